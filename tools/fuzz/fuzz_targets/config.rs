#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::config::run(data));

/// Without the fuzzer: replays the files named on the command line.
#[cfg(not(fuzzing))]
fn main() {
    relay_fuzz::replay_arguments(relay_fuzz::config::run);
}
