//! Whether a test can run here: some need root, FUSE, or programs that a machine may lack.

use std::path::Path;
use std::process::Command;

/// What a test needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Mounting, and namespaces.
    Root,
    /// Filesystems served by this process.
    Fuse,
    /// Hosts of its own: `ip` and `tc` of iproute2, and `nft`.
    Network,
    /// A clock of its own for one program: the library `faketime`.
    FakeTime,
}

/// Where distributions put the library that gives a program a clock of its own.
const FAKE_TIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// The library, if it is installed.
pub fn fake_time_library() -> Option<&'static str> {
    FAKE_TIME.into_iter().find(|path| Path::new(path).exists())
}

/// Whether the test can run; otherwise the reason is printed, and where `RELAY_REQUIRE_ROOT_TESTS` is set it is a failure.
pub fn has(needs: &[Need]) -> bool {
    let lacking: Vec<String> = needs.iter().filter_map(|need| lack(*need)).collect();
    if lacking.is_empty() {
        return true;
    }
    let reason = lacking.join("; ");
    assert!(
        std::env::var_os("RELAY_REQUIRE_ROOT_TESTS").is_none(),
        "this test is required to run and can't: {reason}"
    );
    println!("skipped: {reason}");
    false
}

fn lack(need: Need) -> Option<String> {
    match need {
        // SAFETY: the call takes and changes nothing.
        Need::Root => (unsafe { libc::geteuid() } != 0).then(|| "root is needed".to_owned()),
        Need::Fuse => {
            let device = std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/fuse");
            device.err().map(|error| format!("/dev/fuse: {error}"))
        }
        Need::Network => ["ip", "tc", "nft"].into_iter().find_map(|program| {
            let output = Command::new(program).arg("-V").output();
            output
                .err()
                .map(|error| format!("{program}: {error} (iproute2 and nftables are needed)"))
        }),
        Need::FakeTime => fake_time_library()
            .is_none()
            .then(|| "libfaketime is not installed".to_owned()),
    }
}
