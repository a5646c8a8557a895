//! What is fuzzed, one module for each target: a function from arbitrary bytes to nothing that panics where a promise of
//! the product is broken.
//!
//! The functions are plain Rust. `fuzz_targets/` hands them to libFuzzer, `tests/replay.rs` gives them every committed
//! input with the stable compiler, and each target's program, built without the fuzzer, replays files by name.
#![forbid(unsafe_code)]

pub mod config;
pub mod frame;
pub mod input;
pub mod journal_scan;
pub mod message;
pub mod record;
pub mod session;

/// What runs on one input; it panics where something is wrong.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame", frame::run),
    ("record", record::run),
    ("message", message::run),
    ("journal_scan", journal_scan::run),
    ("session", session::run),
    ("config", config::run),
];

/// Runs a target on each file named on the command line.
pub fn replay_arguments(target: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        let data = std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        target(&data);
        println!("{}: fine", path.display());
    }
}
