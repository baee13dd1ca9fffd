//! A terminal: a pseudo-terminal of the test's own is the user's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use test_vm::Host;

use super::host;

const LIMIT: Duration = Duration::from_secs(60);

/// A person at a terminal.
struct Person {
    screen: Receiver<Vec<u8>>,
    seen: String,
    keys: File,
    terminal: OwnedFd,
    child: Child,
}

impl Person {
    fn start(host: &Host, args: &[&str]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        tcsetwinsize(&terminal, size(33, 111)).unwrap();
        // setsid gives virtc this terminal as its controlling one.
        let mut command = Command::new("setsid");
        let virtc = host.command(args);
        command
            .args(["--ctty", "--wait"])
            .arg(virtc.get_program())
            .args(virtc.get_args());
        for (name, value) in virtc.get_envs() {
            command.env(name, value.unwrap());
        }
        command.current_dir(host.cwd()).env("TERM", "xterm");
        let copy = || Stdio::from(terminal.try_clone().unwrap());
        let child = command
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .unwrap();
        let keys = File::from(master);
        let mut reading = keys.try_clone().unwrap();
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reading.read(&mut buffer) {
                if send.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            screen,
            seen: String::new(),
            keys,
            terminal: terminal.into(),
            child,
        }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is on the screen, and forgets what was before it.
    #[track_caller]
    fn see(&mut self, text: &str) {
        let end = Instant::now() + LIMIT;
        while !self.seen.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} is not on the screen:\n{}", self.seen),
            }
        }
        let at = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..at);
    }

    fn code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[test]
pub(super) fn a_shell_has_the_terminals_size_and_follows_it() {
    let host = host();
    let before = {
        let mut person = Person::start(&host, &["run", "-t", "--", "bash", "--norc"]);
        person.type_keys("stty size\r");
        person.see("33 111");
        tcsetwinsize(&person.terminal, size(40, 80)).unwrap();
        person.type_keys("stty size\r");
        person.see("40 80");
        // Line editing: the wrong letters are taken back. What is computed is no echo.
        person.type_keys("echo $((6*7))edixt\u{7f}\u{7f}ted\r");
        person.see("42edited");
        person.type_keys("exit 9\r");
        assert_eq!(person.code(), 9);
        tcgetattr(&person.terminal).unwrap().local_modes
    };
    use rustix::termios::LocalModes;
    assert!(
        before.contains(LocalModes::ECHO | LocalModes::ICANON),
        "the terminal is restored"
    );
}

#[test]
pub(super) fn an_interrupt_is_the_programs_and_the_escape_ends_the_machine() {
    let host = host();
    let mut person = Person::start(&host, &["run", "-t", "--", "bash", "--norc"]);
    person.type_keys("sh -c 'echo $((6*7))up; exec sleep 1000'\r");
    person.see("42up");
    person.type_keys("\u{3}");
    person.type_keys("echo code=$?\r");
    person.see("code=130");
    person.type_keys("sh -c 'echo $((6*8))up; exec sleep 1000'\r");
    person.see("48up");
    person.type_keys("\r~.");
    assert_eq!(person.code(), 137);
}

#[test]
fn a_terminal_is_restored_when_the_machine_dies() {
    let host = host();
    let mut person = Person::start(&host, &["run", "-t", "--", "bash", "--norc"]);
    person.type_keys("echo $((6*7))up\r");
    person.see("42up");
    let virtc = i32::try_from(person.child.id()).unwrap();
    let below = test_vm::descendants(virtc);
    let qemu = below
        .iter()
        .find(|p| p.command.contains("qemu-system"))
        .unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(qemu.pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert_eq!(person.code(), 125);
    use rustix::termios::LocalModes;
    let modes = tcgetattr(&person.terminal).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON));
}
