//! A copy of a guest's memory: only what was ever written, as virtc copies it, without virtc.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::thread;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// What is read and written at once: it stays in the processor's cache.
const CHUNK_BYTES: u64 = 256 << 10;

/// Threads that copy, at most; virtc has as many.
const THREADS_MAX: usize = 4;

/// Copies the data of `from` into `to`, which is empty and as long. Where `from` has holes, so has `to`.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    let chunks = chunks(from)?;
    let available = thread::available_parallelism().map_or(1, usize::from);
    let share = chunks.len().div_ceil(available.min(THREADS_MAX)).max(1);
    thread::scope(|scope| {
        let parts = chunks.chunks(share);
        let started: Vec<_> = parts
            .map(|part| scope.spawn(move || copy_chunks(from, to, part)))
            .collect();
        started.into_iter().try_for_each(|part| {
            part.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn copy_chunks(from: &File, to: &File, chunks: &[Range<u64>]) -> io::Result<()> {
    let mut buffer = Vec::new();
    for chunk in chunks {
        // A chunk is short.
        buffer.resize((chunk.end - chunk.start) as usize, 0);
        from.read_exact_at(&mut buffer, chunk.start)?;
        to.write_all_at(&buffer, chunk.start)?;
    }
    Ok(())
}

/// What has data, in pieces that are copied at once.
fn chunks(file: &File) -> io::Result<Vec<Range<u64>>> {
    let length = file.metadata()?.len();
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < length {
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // No more data.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = seek(file, SeekFrom::Hole(at))?;
        while at < hole {
            let end = hole.min(at + CHUNK_BYTES);
            chunks.push(at..end);
            at = end;
        }
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn data_is_copied_and_holes_stay() {
        let empty = || {
            let file = tempfile::tempfile_in("/dev/shm").unwrap();
            file.set_len(1 << 30).unwrap();
            file
        };
        let (from, to) = (empty(), empty());
        let written = [0, 5 << 20, (1 << 30) - 4096];
        for at in written {
            from.write_all_at(&[7; 4096], at).unwrap();
        }
        copy(&from, &to).unwrap();
        for at in written {
            let mut page = [0; 4096];
            to.read_exact_at(&mut page, at).unwrap();
            assert_eq!(page, [7; 4096]);
        }
        assert_eq!(
            to.metadata().unwrap().blocks(),
            from.metadata().unwrap().blocks()
        );
    }
}
