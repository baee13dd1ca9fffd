//! Unpacking what kernels and modules are packed with, recognised by its first bytes.

use std::io::{self, Read};

/// Bytes that anything unpacked may have.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;

/// Bytes of one unpacked block in LZ4's legacy frame, which is what the kernel's build writes.
const LZ4_LEGACY_BLOCK_BYTES: usize = 8 << 20;

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const LZ4_LEGACY: &[u8] = &[0x02, 0x21, 0x4c, 0x18];

/// Unpacks gzip, xz, zstd or LZ4 (legacy frame); returns nothing for other bytes.
///
/// # Errors
/// What the format's reader says about damaged bytes, or that too much comes out.
pub fn unpack(packed: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let unpacked = if packed.starts_with(GZIP) {
        read_all(flate2::read::GzDecoder::new(packed))?
    } else if packed.starts_with(XZ) {
        // Kernel builds append to the one stream what is not part of it.
        read_all(lzma_rust2::XzReader::new(packed, false))?
    } else if packed.starts_with(ZSTD) {
        read_all(ruzstd::decoding::StreamingDecoder::new(packed).map_err(io::Error::other)?)?
    } else if packed.starts_with(LZ4_LEGACY) {
        lz4_legacy(&packed[LZ4_LEGACY.len()..])?
    } else {
        return Ok(None);
    };
    Ok(Some(unpacked))
}

fn read_all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(UNPACKED_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    check_size(bytes.len())?;
    Ok(bytes)
}

fn check_size(bytes: usize) -> io::Result<()> {
    if bytes as u64 > UNPACKED_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it unpacks to more than {UNPACKED_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// Blocks with their packed size before them. The kernel's build appends the unpacked size of the
/// whole, which ends the blocks: it is no size of a block that follows.
fn lz4_legacy(mut packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut block = vec![0; LZ4_LEGACY_BLOCK_BYTES];
    while let Some((size, rest)) = packed.split_first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        if size > rest.len() {
            break;
        }
        let n = lz4_flex::block::decompress_into(&rest[..size], &mut block)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        bytes.extend_from_slice(&block[..n]);
        check_size(bytes.len())?;
        packed = &rest[size..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn legacy(blocks: &[&[u8]]) -> Vec<u8> {
        let mut out = LZ4_LEGACY.to_vec();
        for block in blocks {
            let packed = lz4_flex::block::compress(block);
            out.extend((packed.len() as u32).to_le_bytes());
            out.extend(packed);
        }
        out.extend((blocks.concat().len() as u32).to_le_bytes());
        out
    }

    #[test]
    fn lz4_blocks_are_joined_and_the_appended_size_is_left_out() {
        let packed = legacy(&[b"one block ", b"and another"]);
        assert_eq!(unpack(&packed).unwrap().unwrap(), b"one block and another");
    }

    #[test]
    fn other_bytes_are_not_unpacked() {
        assert!(unpack(b"\x7fELF....").unwrap().is_none());
        assert!(unpack(b"").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn damaged_bytes_give_an_answer(
            magic in prop::sample::select(vec![GZIP, XZ, ZSTD, LZ4_LEGACY]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = unpack(&[magic, &bytes].concat());
        }
    }
}
