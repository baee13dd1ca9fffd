//! Whatever comes, the decoder gives back what was sent, or refuses, in bounded memory.

use proptest::prelude::*;

use super::*;
use crate::Error;

#[derive(Debug, Clone)]
enum Sent {
    Hello(Hello),
    HelloOk,
    Data(Vec<u8>),
    End,
    EndAck,
    Error(String),
}

impl Sent {
    fn as_frame(&self) -> Frame<'_> {
        match self {
            Sent::Hello(hello) => Frame::Hello(hello.clone()),
            Sent::HelloOk => Frame::HelloOk,
            Sent::Data(bytes) => Frame::Data(bytes),
            Sent::End => Frame::End,
            Sent::EndAck => Frame::EndAck,
            Sent::Error(text) => Frame::Error(text),
        }
    }
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let stream = prop_oneof![
        Just(Stream::Stdin),
        Just(Stream::Stdout),
        Just(Stream::Stderr)
    ];
    prop_oneof![
        ("[a-z0-9]{1,64}", "[a-z0-9]{0,64}", stream).prop_map(|(container_id, exec_id, stream)| {
            Sent::Hello(Hello {
                container_id,
                exec_id,
                stream,
            })
        }),
        Just(Sent::HelloOk),
        prop::collection::vec(any::<u8>(), 1..20_000).prop_map(Sent::Data),
        Just(Sent::End),
        Just(Sent::EndAck),
        ".{0,100}".prop_map(Sent::Error),
    ]
}

/// Feeds `wire` in pieces of the given sizes and calls `check` with each frame.
fn feed(wire: &[u8], pieces: &[usize], mut check: impl FnMut(Frame<'_>)) -> crate::Result<Decoder> {
    let mut decoder = Decoder::new();
    let mut pieces = pieces.iter().copied().cycle();
    let mut rest = wire;
    loop {
        while let Some(frame) = decoder.next_frame()? {
            check(frame);
        }
        if rest.is_empty() {
            return Ok(decoder);
        }
        let space = decoder.space();
        assert!(!space.is_empty(), "no room for the rest of a frame");
        let bytes = pieces.next().unwrap_or(1).min(rest.len()).min(space.len());
        space[..bytes].copy_from_slice(&rest[..bytes]);
        decoder.filled(bytes);
        rest = &rest[bytes..];
    }
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in(
        sent in prop::collection::vec(any_sent(), 0..8),
        pieces in prop::collection::vec(1usize..5000, 1..6),
    ) {
        let mut wire = Vec::new();
        for frame in &sent {
            encode(&frame.as_frame(), &mut wire).unwrap();
        }
        let mut expected = sent.iter();
        let decoder = feed(&wire, &pieces, |frame| {
            assert_eq!(frame, expected.next().unwrap().as_frame());
        }).unwrap();
        prop_assert!(expected.next().is_none());
        decoder.finish().unwrap();
    }

    #[test]
    fn noise_is_refused_or_read_but_never_kept(
        noise in prop::collection::vec(any::<u8>(), 0..4000),
        piece in 1usize..512,
    ) {
        if let Ok(mut decoder) = feed(&noise, &[piece], |_| ()) {
            prop_assert!(decoder.space().len() <= HEADER_BYTES + PAYLOAD_BYTES_MAX);
        }
    }
}

#[test]
fn a_large_frame_passes_whole_and_a_larger_one_not_at_all() {
    let payload = vec![7; PAYLOAD_BYTES_MAX];
    let mut wire = Vec::new();
    encode(&Frame::Data(&payload), &mut wire).unwrap();
    let mut frames = 0;
    feed(&wire, &[100_000], |frame| {
        assert_eq!(frame, Frame::Data(&payload));
        frames += 1;
    })
    .unwrap();
    assert_eq!(frames, 1);

    let payload = vec![7; PAYLOAD_BYTES_MAX + 1];
    assert!(matches!(
        encode(&Frame::Data(&payload), &mut wire),
        Err(Error::FrameLength {
            kind: Kind::Data,
            ..
        })
    ));
}

#[test]
fn headers_that_lie_are_refused_before_memory_is_set_aside() {
    for header in [
        [2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        [2, 0, 0, 0, 1, 0, 1, 0],
        [2, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 4, 0, 0],
        [3, 0, 0, 0, 1, 0, 0, 0],
        [5, 0, 0, 0, 1, 16, 0, 0],
    ] {
        assert!(
            matches!(Header::from_bytes(header), Err(Error::FrameLength { .. })),
            "{header:?}"
        );
    }
    assert!(matches!(
        Header::from_bytes([6, 0, 0, 0, 0, 0, 0, 0]),
        Err(Error::UnknownFrame { kind: 6 })
    ));
    assert!(matches!(
        Header::from_bytes([2, 0, 1, 0, 1, 0, 0, 0]),
        Err(Error::ReservedBytes)
    ));
}

#[test]
fn an_error_text_is_cut_at_a_character() {
    let text = "ä".repeat(ERROR_BYTES_MAX);
    let mut wire = Vec::new();
    encode(&Frame::Error(&text), &mut wire).unwrap();
    feed(&wire, &[4096], |frame| match frame {
        Frame::Error(text) => assert_eq!(text.len(), ERROR_BYTES_MAX),
        other => panic!("{other:?}"),
    })
    .unwrap();
}

#[test]
fn a_connection_that_ends_inside_a_frame_is_an_error() {
    let mut wire = Vec::new();
    encode(&Frame::Data(b"hello"), &mut wire).unwrap();
    let decoder = feed(&wire[..wire.len() - 1], &[3], |frame| panic!("{frame:?}")).unwrap();
    assert!(matches!(
        decoder.finish(),
        Err(Error::Truncated { bytes: 12 })
    ));
}

#[test]
fn the_wire_is_as_written_down() {
    let mut wire = Vec::new();
    let hello = Hello {
        container_id: "c1".into(),
        exec_id: "e1".into(),
        stream: Stream::Stdout,
    };
    encode(&Frame::Hello(hello), &mut wire).unwrap();
    assert_eq!(
        wire,
        b"\0\0\0\0\x36\0\0\0{\"container_id\":\"c1\",\"exec_id\":\"e1\",\"stream\":\"stdout\"}"
    );
    wire.clear();
    encode(&Frame::HelloOk, &mut wire).unwrap();
    encode(&Frame::Data(b"x"), &mut wire).unwrap();
    encode(&Frame::End, &mut wire).unwrap();
    encode(&Frame::EndAck, &mut wire).unwrap();
    encode(&Frame::Error("no"), &mut wire).unwrap();
    assert_eq!(
        wire,
        b"\x01\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0x\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x02\0\0\0no"
    );
}
