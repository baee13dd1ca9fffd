//! Links the agent at a fixed address.
//!
//! Nothing has to be relocated when it starts then, which it does for every process of a
//! container; and a guest without acceleration finds code that it has translated before, which
//! is kept by address. Both together make a launch twice as fast there.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The last of these words counts, and the workspace's flags come before.
    println!("cargo::rustc-link-arg-bins=-static");
    println!("cargo::rustc-link-arg-bins=-no-pie");
}
