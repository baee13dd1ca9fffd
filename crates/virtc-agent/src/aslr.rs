//! The places of mappings, which the guest's own kernel draws once for all programs where a parameter
//! asks for it (`aslr.once`).

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::error::{Attempt as _, Result};

/// Says whether they are drawn once; whoever writes 1 has them drawn anew.
const ONCE: &str = "/sys/module/aslr/parameters/once";

/// The parameter of a kernel that draws them once, opened.
#[derive(Debug)]
pub(crate) struct PlacesDrawnOnce(File);

impl PlacesDrawnOnce {
    /// Nothing where each program has places of its own anyway.
    pub(crate) fn open() -> Result<Option<Self>> {
        Self::open_at(Path::new(ONCE))
    }

    fn open_at(once: &Path) -> Result<Option<Self>> {
        let opened = || match fs::read(once) {
            Ok(value) if value.starts_with(b"Y") => {
                Ok(Some(Self(OpenOptions::new().write(true).open(once)?)))
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        };
        opened().attempt(|| "find out how the places of mappings are drawn".to_owned())
    }

    /// Has the kernel draw the places of later programs anew: all clones have those of their template.
    pub(crate) fn draw_anew(&self) -> Result<()> {
        let written = self.0.write_all_at(b"1", 0);
        written.attempt(|| "draw the places of mappings anew".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_drawn_anew_only_where_they_are_drawn_once() {
        let directory = tempfile::tempdir().unwrap();
        let once = directory.path().join("once");
        assert!(PlacesDrawnOnce::open_at(&once).unwrap().is_none());
        assert!(!once.exists());
        fs::write(&once, "N\n").unwrap();
        assert!(PlacesDrawnOnce::open_at(&once).unwrap().is_none());
        fs::write(&once, "Y\n").unwrap();
        let places = PlacesDrawnOnce::open_at(&once).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&once).unwrap(), "Y\n");
        places.draw_anew().unwrap();
        assert_eq!(fs::read_to_string(&once).unwrap(), "1\n");
    }
}
