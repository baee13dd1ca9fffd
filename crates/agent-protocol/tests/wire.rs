//! Every message, with every field set, as bytes: a number or a type that changes shows here.
//!
//! The messages are filled by their own descriptions, so a new field is in the snapshot by itself.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::fmt::Write as _;

use agent_protocol::{agent, csi, health, oci, types, virtc};
use protobuf::reflect::{
    FieldDescriptor, FileDescriptor, MessageDescriptor, ReflectValueBox, RuntimeFieldType,
    RuntimeType,
};
use protobuf::{MessageDyn, MessageFull as _};

/// Messages contain each other, but no message contains itself further down than this.
const DEPTH_MAX: usize = 8;

fn value(field: &FieldDescriptor, kind: &RuntimeType, depth: usize) -> ReflectValueBox {
    let number = field.number().unsigned_abs();
    match kind {
        RuntimeType::I32 => ReflectValueBox::I32(-1),
        RuntimeType::I64 => ReflectValueBox::I64(-2),
        RuntimeType::U32 => ReflectValueBox::U32(300 + number),
        RuntimeType::U64 => ReflectValueBox::U64((1 << 40) + u64::from(number)),
        RuntimeType::F32 => ReflectValueBox::F32(1.5),
        RuntimeType::F64 => ReflectValueBox::F64(2.5),
        RuntimeType::Bool => ReflectValueBox::Bool(true),
        RuntimeType::String => ReflectValueBox::String(field.name().to_owned()),
        RuntimeType::VecU8 => ReflectValueBox::Bytes(vec![0, 255]),
        RuntimeType::Enum(kind) => ReflectValueBox::Enum(kind.clone(), 1),
        RuntimeType::Message(kind) => ReflectValueBox::Message(filled(kind, depth + 1)),
    }
}

fn filled(kind: &MessageDescriptor, depth: usize) -> Box<dyn MessageDyn> {
    assert!(depth <= DEPTH_MAX, "{} contains itself", kind.full_name());
    let mut message = kind.new_instance();
    for field in kind.fields() {
        match field.runtime_field_type() {
            RuntimeFieldType::Singular(kind) => {
                field.set_singular_field(&mut *message, value(&field, &kind, depth));
            }
            RuntimeFieldType::Repeated(kind) => {
                let mut list = field.mut_repeated(&mut *message);
                list.push(value(&field, &kind, depth));
                list.push(value(&field, &kind, depth));
            }
            RuntimeFieldType::Map(key, of) => {
                let (key, of) = (value(&field, &key, depth), value(&field, &of, depth));
                field.mut_map(&mut *message).insert(key, of);
            }
        }
    }
    message
}

/// One line a message: its name and its bytes in base 16.
fn snapshot(file: &FileDescriptor) -> String {
    let mut text = String::new();
    for message in file.messages() {
        let bytes = filled(&message, 0).write_to_bytes_dyn().unwrap();
        write!(text, "{} ", message.full_name()).unwrap();
        bytes
            .iter()
            .for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

/// One line a call, as it is named on the wire.
fn calls(file: &FileDescriptor) -> String {
    let mut text = String::new();
    for service in &file.proto().service {
        for call in &service.method {
            let (service, call, input, output) = (
                service.name(),
                call.name(),
                call.input_type(),
                call.output_type(),
            );
            writeln!(text, "{}.{service}/{call} {input} {output}", file.package()).unwrap();
        }
    }
    text
}

#[test]
fn messages_keep_their_bytes() {
    insta::assert_snapshot!("agent", snapshot(agent::file_descriptor()));
    insta::assert_snapshot!("types", snapshot(types::file_descriptor()));
    insta::assert_snapshot!("oci", snapshot(oci::file_descriptor()));
    insta::assert_snapshot!("health", snapshot(health::file_descriptor()));
    insta::assert_snapshot!("csi", snapshot(csi::file_descriptor()));
    insta::assert_snapshot!("virtc", snapshot(virtc::file_descriptor()));
}

#[test]
fn calls_keep_their_names() {
    let files = [
        agent::file_descriptor(),
        health::file_descriptor(),
        virtc::file_descriptor(),
    ];
    insta::assert_snapshot!("calls", files.map(calls).concat());
}

#[test]
fn what_was_written_is_read() {
    let message = filled(&agent::CreateContainerRequest::descriptor(), 0);
    let bytes = message.write_to_bytes_dyn().unwrap();
    let read = agent::CreateContainerRequest::descriptor()
        .parse_from_bytes(&bytes)
        .unwrap();
    assert_eq!(read.write_to_bytes_dyn().unwrap(), bytes);
}
