//! exec, attach and port-forward, by the plug-in's own streaming server.

use super::client::Streams;
use super::websocket::{SIZE, STATUS, STDERR, STDIN, STDOUT, WebSocket};
use super::{Client, Containerd, Network, settings};

/// Says whose stream it is, and repeats what it gets.
const REPEAT: &str = "echo to-stderr >&2; while read line; do echo got $line; done; exit 3";

const SERVE: &str = "echo forwarded > /tmp/page; httpd -p 127.0.0.1:8080 -h /tmp; exec sleep 1000";

#[test]
fn streams_of_processes_and_ports_are_carried() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let pod = client.run_pod("streams");
    let reader = client.begin(&pod, "reader", &["sh", "-c", REPEAT], |config| {
        (config.stdin, config.stdin_once) = (true, true);
    });
    let server = client.begin(&pod, "server", &["sh", "-c", SERVE], |_| {});

    // exec: all three streams, and the end of the command.
    let url = client.exec_url(&server, &["sh", "-c", REPEAT], Streams::All);
    let mut exec = WebSocket::open(&network.0, &url, "");
    exec.until(STDERR, "to-stderr\n");
    exec.send(STDIN, b"one\n");
    exec.until(STDOUT, "got one\n");
    drop(exec);
    let url = client.exec_url(&server, &["sh", "-c", "echo out; exit 9"], Streams::All);
    let mut exec = WebSocket::open(&network.0, &url, "");
    let status = exec.until(STATUS, "ExitCode");
    assert!(status.contains("\"9\""), "{status}");

    // With a terminal, which has a size.
    let url = client.exec_url(&server, &["sh"], Streams::Terminal);
    let mut exec = WebSocket::open(&network.0, &url, "");
    exec.send(SIZE, br#"{"Width":77,"Height":33}"#);
    exec.send(STDIN, b"until stty size | grep '33 77'; do :; done\n");
    exec.until(STDOUT, "\r\n33 77\r\n");
    exec.send(STDIN, b"exit\n");
    exec.until(STATUS, "Success");

    // Without input, which has ended before it begins.
    let url = client.exec_url(&server, &["sh", "-c", "cat; echo hello"], Streams::Output);
    let mut exec = WebSocket::open(&network.0, &url, "");
    assert_eq!(exec.until(STDOUT, "\n"), "hello\n");
    exec.until(STATUS, "Success");

    // attach: what the first process says from now on.
    let url = client.attach_url(&reader, Streams::All);
    let mut attach = WebSocket::open(&network.0, &url, "");
    attach.send(STDIN, b"two\n");
    attach.until(STDOUT, "got two\n");
    // Its stdin ends with the connection, where that was asked for.
    drop(attach);
    containerd.wait_for("the end of the reader", || {
        client.container(&reader).exit_code == 3
    });

    // A terminal of the first process: what is typed is echoed, by what the log has too.
    let shell = client.begin(&pod, "shell", &["sh"], |config| {
        (config.stdin, config.tty) = (true, true);
    });
    let url = client.attach_url(&shell, Streams::Terminal);
    let mut attach = WebSocket::open(&network.0, &url, "");
    attach.send(SIZE, br#"{"Width":66,"Height":22}"#);
    attach.send(STDIN, b"until stty size | grep '22 66'; do :; done\n");
    attach.until(STDOUT, "\r\n22 66\r\n");
    // It goes on without whoever looks.
    drop(attach);
    let url = client.attach_url(&shell, Streams::Terminal);
    let mut attach = WebSocket::open(&network.0, &url, "");
    attach.send(STDIN, b"exit 6\n");
    containerd.wait_for("the end of the shell", || {
        client.container(&shell).exit_code == 6
    });

    // port-forward: the first message of each stream is the port.
    containerd.wait_for("the server", || {
        let said = client.exec(&server, &["nc", "-w", "1", "127.0.0.1", "8080"], 5);
        said.is_ok_and(|said| said.exit_code == 0)
    });
    let url = client.forward_url(&pod, 8080);
    let mut forward = WebSocket::open(&network.0, &url, "?port=8080");
    let port = 8080_u16.to_le_bytes().to_vec();
    assert_eq!(forward.receive(), Some((0, port.clone())));
    assert_eq!(forward.receive(), Some((1, port)));
    forward.send(0, b"GET /page HTTP/1.0\r\n\r\n");
    forward.until(0, "forwarded\n");

    client.stop_pod(&pod);
    client.remove_pod(&pod);
}
