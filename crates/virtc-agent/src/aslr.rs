//! The places of mappings, which the guest's own kernel draws once for all programs where a parameter
//! asks for it (`aslr.once`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Attempt as _, Result};

/// Says whether they are drawn once; whoever writes 1 has them drawn anew.
const ONCE: &str = "/sys/module/aslr/parameters/once";

/// Has the kernel draw the places of later programs anew: all clones have those of their template.
///
/// Where each program has places of its own anyway, nothing is done.
///
/// # Errors
///
/// [`crate::error::Error::Io`] when the kernel does not do it.
pub(crate) fn draw_places() -> Result<()> {
    draw_by(Path::new(ONCE))
}

fn draw_by(once: &Path) -> Result<()> {
    let attempt = || "draw the places of mappings anew".to_owned();
    match fs::read(once) {
        Ok(value) if value.starts_with(b"Y") => fs::write(once, "1").attempt(attempt),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).attempt(attempt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_drawn_anew_only_where_they_are_drawn_once() {
        let directory = tempfile::tempdir().unwrap();
        let once = directory.path().join("once");
        draw_by(&once).unwrap();
        assert!(!once.exists());
        for (before, after) in [("Y\n", "1"), ("N\n", "N\n")] {
            fs::write(&once, before).unwrap();
            draw_by(&once).unwrap();
            assert_eq!(fs::read_to_string(&once).unwrap(), after);
        }
    }
}
