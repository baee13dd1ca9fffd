//! Waits in a template until a clone of it is to go on.
//!
//! A template is a guest that has started and has nothing of any sandbox: no network, and no vsock or
//! share that anybody serves. It says so with one byte on a serial port, and reads a line. Its memory and state are
//! saved there. Each clone finds itself in that reading. Its line has the seed of its random numbers,
//! and says behind which bridges it has devices that the template had not: `0b.0,1b.0`, `root` for
//! everywhere, or `none`.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::aslr::PlacesDrawnOnce;
use crate::error::{Attempt as _, Error, Result};
use crate::randomness::Randomness;
use crate::sandbox::blocking;

/// What the template says when it waits, having rehearsed a container or not.
const WAITS: &[u8] = b"T";
const WAITS_UNREHEARSED: &[u8] = b"t";

/// Bytes of the line. It names some dozens of bridges.
const LINE_BYTES_MAX: usize = 1024;

/// Bytes of the seed, at least.
const SEED_BYTES_MIN: usize = 32;

/// Where everything is looked at again.
const ROOT: &str = "root";
const RESCAN_ROOT: &str = "/sys/bus/pci/rescan";

/// Nothing is looked for: the template had all devices.
const NONE: &str = "none";

/// The bridges of the root bus.
const DEVICES: &str = "/sys/bus/pci/devices";
const ROOT_BUS: &str = "0000:00";

/// The event by which QEMU tells of devices that come and go. Its interpretation by ACPI takes
/// longer than all of a clone's look for its devices.
const HOT_PLUG_EVENT: &str = "/sys/firmware/acpi/interrupts/gpe01";

/// What the file takes (`drivers/acpi/sysfs.c`), each with the end of its line.
const DISABLE: &[u8] = b"disable\n";
const CLEAR: &[u8] = b"clear\n";
const ENABLE: &[u8] = b"enable\n";

/// The serial port of the hand-over, which nobody needs any more. To close it takes an emulated guest
/// longer than to read the line from it.
#[must_use]
pub(crate) struct UsedPort(#[expect(dead_code, reason = "it is only kept open")] AsyncFd<OwnedFd>);

/// What a template waits with until a clone of it goes on.
pub(crate) struct HandOver {
    port: String,
    serial: AsyncFd<OwnedFd>,
    // A clone has these open, and need not look for them.
    randomness: Randomness,
    places_of_mappings: Option<PlacesDrawnOnce>,
    hot_plug: Option<HotPlugEvent>,
}

impl HandOver {
    /// By the serial port `port`, such as `ttyS1`.
    pub(crate) fn prepare(port: &str) -> Result<Self> {
        let serial = crate::sys::watch(open_raw(port)?, Interest::READABLE);
        Ok(Self {
            port: port.to_owned(),
            serial: serial.attempt(|| format!("watch serial port {port}"))?,
            randomness: Randomness::open()?,
            places_of_mappings: PlacesDrawnOnce::open()?,
            hot_plug: HotPlugEvent::quiet(),
        })
    }

    /// Says that everything is ready, and returns in a clone, with its devices.
    pub(crate) async fn wait(self, rehearsed: bool) -> Result<UsedPort> {
        let attempt = || format!("wait on {} for the hand-over", self.port);
        let says = if rehearsed { WAITS } else { WAITS_UNREHEARSED };
        rustix::io::write(self.serial.get_ref(), says).attempt(attempt)?;
        let line = read_line(&self.serial).await.attempt(attempt)?;
        let (seed, places) = parse(&line)?;
        // Whatever is found may draw random numbers, and all clones have the generators of one.
        self.randomness.add(&seed)?;
        if let Some(once) = self.places_of_mappings {
            once.draw_anew()?;
        }
        if places != Places::None {
            blocking(move || places.look_for_devices()).await?;
        }
        if let Some(hot_plug) = self.hot_plug {
            hot_plug.go_on()?;
        }
        Ok(UsedPort(self.serial))
    }
}

/// The event of devices that come and go, kept from being told.
struct HotPlugEvent(File);

impl HotPlugEvent {
    /// Nothing on a machine without this event, which has nothing to be kept from.
    fn quiet() -> Option<Self> {
        let event = OpenOptions::new().write(true).open(HOT_PLUG_EVENT).ok()?;
        event.write_all_at(DISABLE, 0).ok()?;
        Some(Self(event))
    }

    fn go_on(&self) -> Result<()> {
        // What it told of so far has been found. Where it told of nothing, there is nothing to clear,
        // which is an error.
        let _ = self.0.write_all_at(CLEAR, 0);
        let enabled = self.0.write_all_at(ENABLE, 0);
        enabled.attempt(|| "enable the event of devices that come and go".into())
    }
}

/// Where a clone has devices that its template had not.
#[derive(Debug, PartialEq, Eq)]
enum Places {
    None,
    /// At the root.
    Everywhere,
    /// Behind these bridges of the root bus.
    Behind(Vec<String>),
}

/// A seed in hexadecimal, and the places.
fn parse(line: &str) -> Result<(Vec<u8>, Places)> {
    let parsed = line.split_once(' ').and_then(|(seed, places)| {
        let digits = seed.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let seed: Option<Vec<u8>> = digits.map(byte).collect();
        Some((seed.filter(|seed| seed.len() >= SEED_BYTES_MIN)?, places))
    });
    let (seed, places) = parsed.ok_or_else(|| Error::Invalid {
        field: "hand-over",
        // Not the line: it has the seed.
        value: format!("{} bytes", line.len()),
        reason: "is no seed with places",
    })?;
    Ok((seed, Places::parse(places)?))
}

impl Places {
    fn parse(places: &str) -> Result<Self> {
        match places {
            NONE => return Ok(Self::None),
            ROOT => return Ok(Self::Everywhere),
            _ => {}
        }
        let bridges: Vec<String> = places.split(',').map(str::to_owned).collect();
        let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'.';
        let is_bridge = |bridge: &String| !bridge.is_empty() && bridge.bytes().all(plain);
        match bridges.iter().find(|bridge| !is_bridge(bridge)) {
            None => Ok(Self::Behind(bridges)),
            Some(other) => Err(Error::Invalid {
                field: "place of devices",
                value: other.clone(),
                reason: "is no bridge of the root bus",
            }),
        }
    }

    /// Has the kernel look for devices there.
    fn look_for_devices(&self) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Everywhere => rescan(Path::new(RESCAN_ROOT)),
            Self::Behind(bridges) => bridges
                .iter()
                .try_for_each(|bridge| rescan(&bus_behind(bridge)?.join("rescan"))),
        }
    }
}

/// The bus behind a bridge.
fn bus_behind(bridge: &str) -> Result<PathBuf> {
    let buses = Path::new(DEVICES)
        .join(format!("{ROOT_BUS}:{bridge}"))
        .join("pci_bus");
    let attempt = || format!("find the bus in {}", buses.display());
    let mut found = fs::read_dir(&buses).attempt(attempt)?;
    let none = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let bus = found.next().ok_or_else(none).attempt(attempt)?;
    Ok(bus.attempt(attempt)?.path())
}

fn rescan(file: &Path) -> Result<()> {
    fs::write(file, "1").attempt(|| format!("look for devices by {}", file.display()))
}

/// A serial port that passes every byte as it is.
fn open_raw(port: &str) -> Result<OwnedFd> {
    let attempt = || format!("open serial port {port}");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let serial = open(format!("/dev/{port}"), flags, Mode::empty()).attempt(attempt)?;
    let mut settings = tcgetattr(&serial).attempt(attempt)?;
    settings.make_raw();
    tcsetattr(&serial, OptionalActions::Now, &settings).attempt(attempt)?;
    Ok(serial)
}

/// A line without its end.
async fn read_line(serial: &AsyncFd<OwnedFd>) -> std::io::Result<String> {
    let mut line = Vec::new();
    loop {
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            let invalid = |_| std::io::ErrorKind::InvalidData.into();
            return String::from_utf8(line).map_err(invalid);
        }
        let mut buffer = [0; LINE_BYTES_MAX];
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        let mut ready = serial.readable().await?;
        match rustix::io::read(serial.get_ref(), &mut buffer[..room]) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => line.extend_from_slice(&buffer[..read]),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_seed_and_places() {
        let seed = "0a".repeat(32);
        let bridges = ["0b.0", "1b.0"].map(str::to_owned).to_vec();
        for (text, places) in [
            ("none", Places::None),
            ("root", Places::Everywhere),
            ("0b.0,1b.0", Places::Behind(bridges)),
        ] {
            let parsed = parse(&format!("{seed} {text}")).unwrap();
            assert_eq!(parsed, (vec![10; 32], places));
        }
        for wrong in ["", "root", "0a root", &format!("{} root", "0g".repeat(32))] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_is_a_bridge_of_the_root_bus() {
        for wrong in ["../../x", "", "0b.0,", "none,0b.0"] {
            assert!(Places::parse(wrong).is_err(), "{wrong}");
        }
    }
}
