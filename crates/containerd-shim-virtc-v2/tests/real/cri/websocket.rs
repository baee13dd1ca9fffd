//! The streaming server of the plug-in, by web sockets: a byte at the front of each message says which
//! stream it belongs to.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Bytes of one message, many more than a test sends.
const MESSAGE_MAX: u64 = 1 << 20;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// The streams of processes.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const STATUS: u8 = 3;
pub(super) const SIZE: u8 = 4;

/// A connection.
pub(super) struct WebSocket {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl WebSocket {
    /// Connects to what an answer of the plug-in names, from a network namespace.
    pub(super) fn open(network: &str, url: &str, parameters: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap();
        let (address, path) = rest.split_once('/').unwrap();
        let (inside, to) = (format!("/run/netns/{network}"), address.to_owned());
        let connecting = std::thread::spawn(move || {
            setns(File::open(inside).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            TcpStream::connect(to).unwrap()
        });
        let mut writer = connecting.join().unwrap();
        writer.set_read_timeout(Some(LIMIT)).unwrap();
        let request = [
            &format!("GET /{path}{parameters} HTTP/1.1"),
            &format!("Host: {address}"),
            &format!("Origin: http://{address}"),
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: v4.channel.k8s.io",
            "\r\n",
        ]
        .join("\r\n");
        writer.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(writer.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { reader, writer }
    }

    /// Sends a message that is shorter than 125 bytes.
    pub(super) fn send(&mut self, stream: u8, data: &[u8]) {
        let length = u8::try_from(data.len() + 1).unwrap();
        assert!(length < 126);
        // What a client sends is masked, here by nothing.
        let mut frame = vec![0x80 | BINARY, 0x80 | length, 0, 0, 0, 0, stream];
        frame.extend(data);
        self.writer.write_all(&frame).unwrap();
    }

    /// The next message with its stream; nothing at the end.
    pub(super) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let mut head = [0; 2];
            self.reader.read_exact(&mut head).ok()?;
            let length = match head[1] {
                126 => u64::from(u16::from_be_bytes(self.bytes())),
                127 => u64::from_be_bytes(self.bytes()),
                short => u64::from(short),
            };
            assert!(length <= MESSAGE_MAX);
            let mut data = vec![0; usize::try_from(length).unwrap()];
            self.reader.read_exact(&mut data).unwrap();
            match head[0] & 0xf {
                CLOSE => return None,
                _ if data.is_empty() => {}
                _ => return Some((data[0], data[1..].to_vec())),
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads one stream until it has said this. Others may speak meanwhile.
    #[track_caller]
    pub(super) fn until(&mut self, stream: u8, text: &str) -> String {
        let mut said = String::new();
        while !said.contains(text) {
            let Some((from, data)) = self.receive() else {
                panic!("{text:?} was not said: {said:?}");
            };
            if from == stream {
                said.push_str(&String::from_utf8_lossy(&data));
            }
        }
        said
    }
}
