//! A task with a terminal, as a user at one has it.

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::containerd::RUNTIME;
use super::{Containerd, image};

/// How long something may take to be shown.
const SHOWN_LIMIT: Duration = Duration::from_secs(20);

const fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Waits until a text is shown.
fn wait_for(shown: &Receiver<Vec<u8>>, all: &mut String, text: &str) {
    while !all.contains(text) {
        let more = shown.recv_timeout(SHOWN_LIMIT);
        let more = more.unwrap_or_else(|error| panic!("{text:?} is not shown, {error}: {all:?}"));
        all.push_str(&String::from_utf8_lossy(&more));
    }
}

#[test]
fn a_terminal_has_the_size_of_its_user_and_follows_it() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    tcsetwinsize(&terminal, size(30, 100)).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let user = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    // The client tells the size once the process has started. Until then there is none.
    let script = "size() { until [ \"$(stty size 2>/dev/null)\" = \"$1\" ]; do sleep 0.1; done; }; \
                  size '30 100'; stty size; size '40 120'; echo \"then $(stty size)\"";
    let run = ["run", "--rm", "--tty", "--runtime", RUNTIME, image::NAME];
    let client = containerd.command(&[&run[..], &["c1", "sh", "-c", script]].concat());
    // It is told of a change of the terminal that is its session's.
    let mut child = Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(client.get_program())
        .args(client.get_args())
        .stdin(user.try_clone().unwrap())
        .stdout(user.try_clone().unwrap())
        .stderr(user)
        .spawn()
        .unwrap();
    let (show, shown) = channel();
    let mut screen = File::from(terminal.try_clone().unwrap());
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // It fails once nobody has the terminal any more.
        while let Ok(read @ 1..) = screen.read(&mut buffer) {
            let _ = show.send(buffer[..read].to_vec());
        }
    });
    let mut all = String::new();
    wait_for(&shown, &mut all, "30 100");
    tcsetwinsize(&terminal, size(40, 120)).unwrap();
    wait_for(&shown, &mut all, "then 40 120");
    assert!(child.wait().unwrap().success(), "{}", containerd.log());
    reading.join().unwrap();
}
