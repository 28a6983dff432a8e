//! The real program on a real descriptor 3: the test plays sublet's part.

use std::{
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
};

use sublet_proto::link::frame::{HEADER_LEN, Header, Kind, PAYLOAD_LIMIT};

/// Starts the program with a socket as descriptor 3. The shell moves it there, which saves this test unsafe code.
fn start() -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let child = Command::new("/bin/sh")
        .args(["-c", "exec \"$0\" 3<&0 0</dev/null", env!("CARGO_BIN_EXE_word-stats")])
        .env_clear()
        .env("SUBLET_SUB_TENANT", "customer 1")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("start the program");
    (ours, child)
}

fn receive(socket: &mut UnixStream) -> (Header, Vec<u8>) {
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head).expect("a header");
    let header = Header::decode(&head, PAYLOAD_LIMIT).expect("a valid header");
    let mut payload = vec![0; header.length as usize];
    socket.read_exact(&mut payload).expect("a payload");
    (header, payload)
}

#[test]
fn worker_answers_remembers_and_ends_with_its_channel() {
    let (mut socket, mut child) = start();
    assert_eq!(receive(&mut socket), (Header::bare(Kind::Ready), vec![]));
    for calls in 1..=3_u8 {
        let (lease, label) = ([calls; 16], [9; 16]);
        let text = b"to be or not to be";
        let request = Header { length: 18, aux: 1000, lease, label, ..Header::bare(Kind::Request) };
        socket.write_all(&[&request.encode()[..], text].concat()).expect("send");
        let (header, answer) = receive(&mut socket);
        assert_eq!((header.kind, header.lease, header.label), (Kind::Response, lease, label));
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["distinct_words"], 4);
        let worker = serde_json::json!({ "calls": calls, "total_words": 6 * calls, "sub_tenant": "customer 1" });
        assert_eq!(answer["worker"], worker);
    }
    drop(socket);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}
