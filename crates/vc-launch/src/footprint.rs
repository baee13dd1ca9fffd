use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::mm::Advice;

/// What is given back of a stack is a multiple of these bytes: the largest page of any system.
const PAGE_BYTES: usize = 64 << 10;

/// Page faults after which it is worth while to give pages back: more than the way into the sleep
/// and out of it takes.
const FAULTS_WORTH_IT: i64 = 16;

/// Mappings of a program's file that are as the file is: its code, and what is read only.
const PROGRAM_MAPPINGS_MAX: usize = 4;

/// Bytes of a stack that stay, below the frame of whoever gives back the rest: more than what is
/// called meanwhile, or a handler of a signal, takes.
const STACK_KEPT: usize = 64 << 10;

/// Gives back what a long-lived process does not need while it waits: memory that the allocator has
/// free, the pages of its own program, and what deeper calls have left of the calling thread's
/// stack. Those that it goes on to use come back, of the program from the page cache, as it touches
/// them.
///
/// ```
/// let footprint = vc_launch::Footprint::of_this_process()?;
/// footprint.rest();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Footprint {
    program: PathBuf,
    /// Of this process when it last gave something back.
    faults: AtomicI64,
}

impl Footprint {
    /// Of the calling process.
    ///
    /// # Errors
    ///
    /// When `/proc` does not say which program it is.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self {
            program: std::fs::read_link("/proc/self/exe")?,
            faults: AtomicI64::new(0),
        })
    }

    /// To be called as the last thing before the process sleeps: what it does until then comes back.
    /// It does nothing where little was touched since the last time.
    pub fn rest(&self) {
        let before = self.faults.load(Ordering::Relaxed);
        if minor_faults().is_some_and(|now| now - before >= FAULTS_WORTH_IT) {
            // Where it cannot be done, the process is larger, and that is all.
            if let Err(error) = self.give_back() {
                tracing::debug!(%error, "no memory is given back");
            }
        }
    }

    fn give_back(&self) -> io::Result<()> {
        let smaps = std::fs::read("/proc/self/smaps")?;
        let here = std::hint::black_box(0u8);
        let stack = unused_stack(smaps.as_slice(), (&raw const here).addr());
        let mut program = [None; PROGRAM_MAPPINGS_MAX];
        for (slot, mapping) in program
            .iter_mut()
            .zip(unchanged(smaps.as_slice(), &self.program))
        {
            *slot = Some(mapping?);
        }
        drop(smaps);
        #[cfg(target_env = "gnu")]
        #[allow(unsafe_code, reason = "nothing safe trims the allocator")]
        // SAFETY: it takes no pointer, and gives back only what the allocator has free.
        unsafe {
            libc::malloc_trim(0);
        }
        if let Some(Mapping { start, length }) = stack {
            #[allow(unsafe_code, reason = "nothing safe drops pages of a stack")]
            // SAFETY: the range is of this thread's stack, which a guard page or the kernel's gap ends
            // below, and far below all frames that live: what is called from here stays above it.
            unsafe {
                rustix::mm::madvise(start as *mut _, length, Advice::LinuxDontNeed)?;
            }
        }
        self.faults
            .store(minor_faults().unwrap_or(i64::MAX), Ordering::Relaxed);
        // Last, and with nothing between: each part of the program that is touched from here on
        // comes back with its surroundings.
        for Mapping { start, length } in program.into_iter().flatten() {
            #[allow(unsafe_code, reason = "nothing safe drops pages of the program")]
            // SAFETY: the range is one mapping of the program's file that cannot be written and
            // has no page that differs from the file, so that the pages are read from there
            // again. It stays mapped: a program's own segments are never unmapped.
            unsafe {
                rustix::mm::madvise(start as *mut _, length, Advice::LinuxDontNeed)?;
            }
        }
        Ok(())
    }
}

fn minor_faults() -> Option<i64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    Some(usage.minor_page_faults())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    length: usize,
}

/// The mappings of a file in a text of the form of `smaps` that are as the file is, and stay so.
fn unchanged(smaps: impl BufRead, file: &Path) -> impl Iterator<Item = io::Result<Mapping>> {
    let mut candidate = None;
    smaps.lines().filter_map(move |line| {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        match line.strip_prefix("Anonymous:") {
            // Pages that were written, by the loader for one.
            Some(size) if size.trim_start().starts_with("0 ") => candidate.take().map(Ok),
            Some(_) => {
                candidate = None;
                None
            }
            None => {
                if let Some(mapping) = read_only(&line, file) {
                    candidate = Some(mapping);
                }
                None
            }
        }
    })
}

/// What is unused of the stack in whose frame the address is, in a text of the form of `smaps`.
/// Nothing of a stack without a guard page below it, but of the first thread's, which has a name:
/// what is there may be another's.
fn unused_stack(smaps: impl BufRead, frame: usize) -> Option<Mapping> {
    let mut guard_end = None;
    for line in smaps.lines() {
        let line = line.ok()?;
        let mut words = line.split_ascii_whitespace();
        let Some(Mapping { start, length }) = words.next().and_then(range) else {
            continue;
        };
        let rights = words.next()?;
        if frame.checked_sub(start).is_some_and(|above| above < length) {
            let own = guard_end == Some(start) || words.last() == Some("[stack]");
            let guarded = rights == "rw-p" && own;
            let unused = (frame - start).checked_sub(STACK_KEPT)?;
            let length = unused / PAGE_BYTES * PAGE_BYTES;
            return (guarded && length > 0).then_some(Mapping { start, length });
        }
        guard_end = (rights == "---p").then_some(start + length);
    }
    None
}

/// The mapping that a head line describes, if it is private, of this file, and not written.
fn read_only(line: &str, file: &Path) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let mapping = range(words.next()?)?;
    let unchanged = matches!(words.next()?, "r--p" | "r-xp") && Path::new(words.nth(3)?) == file;
    unchanged.then_some(mapping)
}

/// The range that a head line begins with.
fn range(word: &str) -> Option<Mapping> {
    let (start, end) = word.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let length = end.checked_sub(start)?;
    Some(Mapping { start, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_still_has_is_given_back() {
        let found = |rights: &str, path: &str, anonymous: u32| {
            let text = format!(
                "1000-3000 {rights} 00001000 fe:00 17 {path}\nRss: 8 kB\nAnonymous: {anonymous} kB\n"
            );
            let found: io::Result<Vec<_>> =
                unchanged(text.as_bytes(), Path::new("/bin/virtc")).collect();
            found.unwrap()
        };
        let mapping = Mapping {
            start: 0x1000,
            length: 0x2000,
        };
        assert_eq!(found("r-xp", "/bin/virtc", 0), [mapping]);
        assert_eq!(found("r--p", "/bin/virtc", 0), [mapping]);
        for (rights, path, anonymous) in [
            // Written by the loader.
            ("r--p", "/bin/virtc", 4),
            ("rw-p", "/bin/virtc", 0),
            ("rwxp", "/bin/virtc", 0),
            ("r-xs", "/bin/virtc", 0),
            ("r-xp", "/lib/libc.so.6", 0),
            ("r-xp", "", 0),
            ("r-xp", "[vdso]", 0),
        ] {
            assert_eq!(
                found(rights, path, anonymous),
                [],
                "{rights} {path} {anonymous}"
            );
        }
    }

    #[test]
    fn of_a_stack_only_what_is_far_below_its_frames_is_given_back() {
        let text = |guard: &str, rights: &str| {
            format!(
                "10000-20000 {guard} 00000000 00:00 0\nRss: 0 kB\n\
                 20000-80000 {rights} 00000000 00:00 0\nRss: 8 kB\n"
            )
        };
        let of = |guard, rights, frame| unused_stack(text(guard, rights).as_bytes(), frame);
        let mapping = Mapping {
            start: 0x20000,
            length: 0x40000,
        };
        assert_eq!(of("---p", "rw-p", 0x7f123), Some(mapping));
        // Nothing is below the guard page, or it is none, or the thread's stack is nearly full.
        assert_eq!(of("rw-p", "rw-p", 0x7f123), None);
        assert_eq!(of("---p", "rwxp", 0x7f123), None);
        assert_eq!(of("---p", "rw-p", 0x2f123), None);
        assert_eq!(of("---p", "rw-p", 0x80000), None);
        // That of the first thread has a gap below it, and a name.
        let named = |name: &str| {
            let text = format!("20000-80000 rw-p 00000000 00:00 0    {name}\nRss: 8 kB\n");
            unused_stack(text.as_bytes(), 0x7f123)
        };
        assert_eq!(named("[stack]"), Some(mapping));
        assert_eq!(named("[heap]"), None);
    }

    #[test]
    fn what_deep_calls_left_of_a_stack_is_not_resident() {
        #[inline(never)]
        fn deep() {
            std::hint::black_box([1u8; 1 << 20]);
        }
        let rested = std::thread::Builder::new().stack_size(4 << 20).spawn(|| {
            let here = std::hint::black_box(0u8);
            let here = (&raw const here).addr();
            let resident = || {
                let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
                let own = |line: &&str| {
                    let mapping = line.split(' ').next().and_then(range);
                    mapping.is_some_and(|one| (one.start..one.start + one.length).contains(&here))
                };
                let mut after = smaps.lines().skip_while(|line| !own(line));
                kib(after.find_map(|line| line.strip_prefix("Rss:")).unwrap())
            };
            deep();
            let before = resident();
            Footprint::of_this_process().unwrap().rest();
            (before, resident())
        });
        let (before, after) = rested.unwrap().join().unwrap();
        assert!(before >= 1024 && after < 512, "{before} KiB, then {after}");
    }

    fn kib(size: &str) -> u64 {
        size.trim_end_matches("kB").trim().parse().unwrap()
    }

    /// In KiB.
    fn resident(program: &Path) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let code = |line: &&str| line.contains(" r-xp ") && read_only(line, program).is_some();
        let mut after = smaps.lines().skip_while(|line| !code(line));
        let size = after.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        kib(size)
    }

    #[test]
    fn the_code_of_a_process_that_waits_is_not_resident() {
        let footprint = Footprint::of_this_process().unwrap();
        let before = resident(&footprint.program);
        footprint.rest();
        let after = resident(&footprint.program);
        assert!(after < before, "{before} KiB, then {after}");
    }
}
