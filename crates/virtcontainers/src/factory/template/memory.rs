//! Copies of a guest's memory: only what was ever written, and of that no page of zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;

/// A page of the guest.
const PAGE_BYTES: usize = 4096;

/// What one thread reads and writes at once: it stays in the processor's cache.
const CHUNK_BYTES: usize = 64 * PAGE_BYTES;

/// What one thread copies. Writers of one file wait for each other: two take a third less time than one, and
/// half as much again of the processors, on which the VMM starts meanwhile. One copies so much while that
/// starts.
const BYTES_PER_THREAD: u64 = 128 << 20;

/// Threads that copy. More gain nothing: the memory is the limit.
const THREADS_MAX: usize = 4;

/// A piece of a file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    begin: u64,
    end: u64,
}

/// A file in memory, of this size and empty, that a VMM of another user can open.
pub(super) fn anonymous(bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create("virtc-guest-memory", MemfdFlags::CLOEXEC)?);
    file.set_len(bytes)?;
    Ok(file)
}

/// Copies what `from` has into `to`, which is empty, and says how many bytes that were.
pub(super) fn copy(from: &File, to: &File) -> io::Result<u64> {
    let chunks = chunks(from)?;
    let available = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads(&chunks).min(available);
    let share = chunks.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let parts = chunks.chunks(share);
        let started: Vec<_> = parts
            .map(|part| scope.spawn(move || copy_chunks(from, to, part)))
            .collect();
        let mut copied = 0;
        for part in started {
            let part = part
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            copied += part?;
        }
        Ok(copied)
    })
}

/// How many threads these are worth.
fn threads(chunks: &[Extent]) -> usize {
    let bytes: u64 = chunks.iter().map(|chunk| chunk.end - chunk.begin).sum();
    let wanted = bytes.div_ceil(BYTES_PER_THREAD);
    usize::try_from(wanted).map_or(THREADS_MAX, |wanted| wanted.clamp(1, THREADS_MAX))
}

fn copy_chunks(from: &File, to: &File, chunks: &[Extent]) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    for chunk in chunks {
        // A chunk is no longer than the buffer.
        let length = usize::try_from(chunk.end - chunk.begin).unwrap_or(CHUNK_BYTES);
        let data = &mut buffer[..length];
        from.read_exact_at(data, chunk.begin).map_err(unreadable)?;
        for (begin, end) in runs(data) {
            to.write_all_at(&data[begin..end], chunk.begin + begin as u64)?;
            copied += (end - begin) as u64;
        }
    }
    Ok(copied)
}

/// What is copied is wrong, and not the room for it.
fn unreadable(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The runs of pages that are not all zeros.
fn runs(data: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, page) in data.chunks(PAGE_BYTES).enumerate() {
        let begin = number * PAGE_BYTES;
        if is_zero(page) {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.1 == begin => last.1 = begin + page.len(),
            _ => runs.push((begin, begin + page.len())),
        }
    }
    runs
}

fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// What has data, in pieces that one buffer takes.
fn chunks(file: &File) -> io::Result<Vec<Extent>> {
    let mut chunks = Vec::new();
    for extent in extents(file)? {
        let mut begin = extent.begin;
        while begin < extent.end {
            let end = extent.end.min(begin + CHUNK_BYTES as u64);
            chunks.push(Extent { begin, end });
            begin = end;
        }
    }
    Ok(chunks)
}

/// How much of a file is no hole.
pub(super) fn data_bytes(file: &File) -> io::Result<u64> {
    let extents = extents(file)?;
    Ok(extents.iter().map(|extent| extent.end - extent.begin).sum())
}

fn extents(file: &File) -> io::Result<Vec<Extent>> {
    let end_of_file = file.metadata()?.len();
    let mut extents = Vec::new();
    let mut at = 0;
    while at < end_of_file {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // No more data.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(begin))?.min(end_of_file);
        extents.push(Extent { begin, end });
        at = end;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    #[test]
    fn what_was_written_is_copied_and_pages_of_zeros_are_not() {
        let from = anonymous(1 << 30).unwrap();
        let text = |page: u64| format!("page {page}").into_bytes();
        let written = [0, 1, 63, 64, 1000, (1 << 18) - 1];
        for page in written {
            from.write_all_at(&text(page), page * PAGE).unwrap();
        }
        from.write_all_at(&[0; 2 * PAGE_BYTES], 500 * PAGE).unwrap();
        let to = anonymous(1 << 30).unwrap();
        let bytes = written.len() as u64 * PAGE;
        assert_eq!(copy(&from, &to).unwrap(), bytes);
        assert_eq!(data_bytes(&to).unwrap(), bytes);
        // The pages of zeros are data of it.
        assert_eq!(data_bytes(&from).unwrap(), bytes + 2 * PAGE);
        for page in written {
            let mut read = vec![0; text(page).len()];
            to.read_exact_at(&mut read, page * PAGE).unwrap();
            assert_eq!(read, text(page));
        }
        let pages: u64 = extents(&to)
            .unwrap()
            .iter()
            .map(|e| (e.end - e.begin) / PAGE)
            .sum();
        assert_eq!(pages, written.len() as u64);
    }

    #[test]
    fn one_thread_copies_what_is_copied_while_a_vmm_starts() {
        let of = |bytes| {
            let (begin, end) = (PAGE, PAGE + bytes);
            threads(&[Extent { begin, end }])
        };
        assert_eq!(threads(&[]), 1);
        assert_eq!(of(74 << 20), 1);
        assert_eq!(of(200 << 20), 2);
        assert_eq!(of(u64::MAX >> 1), THREADS_MAX);
    }

    #[test]
    fn an_empty_memory_is_copied_too() {
        let (from, to) = (anonymous(1 << 20).unwrap(), anonymous(1 << 20).unwrap());
        assert_eq!(copy(&from, &to).unwrap(), 0);
    }

    #[test]
    fn one_byte_makes_a_page_worth_copying() {
        let mut page = vec![0; PAGE_BYTES];
        assert!(is_zero(&page));
        page[PAGE_BYTES - 1] = 1;
        assert!(!is_zero(&page));
    }
}
