//! Generates messages and services from `proto/`, without `protoc`.

use std::path::PathBuf;
use std::{env, fs, io};

use ttrpc_codegen::{Codegen, Customize};

/// The files of `proto/`, and whether each has a service.
const FILES: [(&str, bool); 6] = [
    ("agent", true),
    ("csi", false),
    ("health", true),
    ("oci", false),
    ("types", false),
    ("virtc", true),
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out_dir = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .ok_or(io::ErrorKind::NotFound)?;
    Codegen::new()
        .out_dir(&out_dir)
        .include("proto")
        .inputs(FILES.map(|(file, _)| format!("proto/{file}.proto")))
        .rust_protobuf()
        .customize(Customize {
            async_all: true,
            ..Customize::default()
        })
        .run()?;

    // The generators' own module file begins with an attribute that cannot be included.
    let mut modules = String::new();
    for (file, has_service) in FILES {
        modules.push_str(&format!("pub mod {file};\n"));
        if has_service {
            modules.push_str(&format!("pub mod {file}_ttrpc;\n"));
        }
    }
    fs::write(out_dir.join("modules.rs"), modules)
}
