//! Two hosts for a test: network namespaces with a cable between them.
//!
//! They have no names: a descriptor holds each, so that with this process everything is gone, however the test ends. Their
//! addresses (198.18.0.0/15, meant for tests) exist nowhere else.

use std::fs::File;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

/// A host: the address of its end of the cable, which is its interface `cable`.
pub(crate) struct Host {
    pub(crate) address: Ipv4Addr,
    namespace: File,
}

impl Host {
    /// Two hosts; nothing where this process may not make any.
    pub(crate) fn pair() -> Option<(Self, Self)> {
        let [one, other] = [1, 2].map(|number| Ipv4Addr::new(198, 18, 0, number));
        let (one, other) = (Self::new(one)?, Self::new(other)?);
        let there = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            other.namespace.as_raw_fd()
        );
        one.ip(&format!(
            "link add cable type veth peer name cable netns {there}"
        ));
        for host in [&one, &other] {
            host.ip(&format!("addr add {}/24 dev cable", host.address));
            host.ip("link set cable up");
        }
        Some((one, other))
    }

    fn new(address: Ipv4Addr) -> Option<Self> {
        // By a thread of its own, since a thread that leaves its namespace is not to go on.
        let made = thread::spawn(|| {
            // SAFETY: a flag is passed; only this thread changes.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
                return Ok(File::open("/proc/thread-self/ns/net").expect("it is there"));
            }
            Err(std::io::Error::last_os_error())
        });
        match made.join().expect("it ends") {
            Ok(namespace) => Some(Self { address, namespace }),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            Err(error) => panic!("making a network namespace: {error}"),
        }
    }

    /// Does something on this host: sockets and programs that are made meanwhile are there.
    pub(crate) fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // SAFETY: an open descriptor and a flag are passed; only this thread changes.
                let status = unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
                work()
            });
            worker.join()
        });
        there.expect("it ends well")
    }

    /// `ip LINE` on this host.
    pub(crate) fn ip(&self, line: &str) {
        let output = self.on(|| {
            let mut command = Command::new("ip");
            command.args(line.split_whitespace()).output()
        });
        let output = output.expect("ip runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {line}: {said}");
    }
}
