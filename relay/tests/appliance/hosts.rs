//! Hosts for tests: network namespaces around a router, where links can be cut, lose packets or be slow.
//!
//! ```text
//!   host 0 -- veth --.            .-- veth -- host 2
//!                     [ router ]
//!   host 1 -- veth --'  nftables: what goes from whom to whom is dropped, always or by chance
//!                       tbf: how fast it goes towards a host
//! ```
//!
//! The namespaces have no names: a descriptor holds each, so that with the last process in it, and with this one, everything
//! is gone, however the test ends. Their addresses (198.18.0.0/15, meant for tests) exist nowhere else.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::text;

/// Where a process runs, and where it is reached.
#[derive(Debug, Clone)]
pub struct Host {
    pub address: IpAddr,
    namespace: Option<Arc<File>>,
}

impl Default for Host {
    /// This machine, by its loopback address.
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            namespace: None,
        }
    }
}

impl Host {
    /// The program will run on this host.
    pub fn place(&self, command: &mut Command) {
        let Some(namespace) = self.namespace.clone() else {
            return;
        };
        // SAFETY: between fork and exec only setns is called, which is allowed there.
        unsafe {
            command.pre_exec(move || join(&namespace));
        }
    }

    /// The sockets that this thread makes from now on are on this host.
    pub fn enter(&self) {
        if let Some(namespace) = &self.namespace {
            join(namespace).unwrap();
        }
    }
}

fn join(namespace: &File) -> std::io::Result<()> {
    // SAFETY: an open descriptor and a flag are passed; only this thread changes.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// What happens to packets from one host to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    from: usize,
    to: usize,
    /// How many of a hundred are dropped.
    percent: u32,
}

/// See the module's description.
pub struct Network {
    pub router: Host,
    pub hosts: Vec<Host>,
    faults: Vec<Fault>,
}

impl Network {
    /// So many hosts, all of which reach each other.
    pub fn of(count: usize) -> Self {
        let router = namespace(Ipv4Addr::UNSPECIFIED);
        let hosts: Vec<Host> = (0..count).map(|n| namespace(address(n, 2))).collect();
        let network = Self {
            router,
            hosts,
            faults: Vec::new(),
        };
        ip(&network.router, "link set lo up");
        for (number, host) in network.hosts.iter().enumerate() {
            network.connect(number, host);
        }
        run_in(
            &network.router,
            Command::new("sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]),
            "",
        );
        network.program(
            "table inet faults {\n chain forward {\n  type filter hook forward priority 0;\n }\n}\n",
        );
        network
    }

    fn connect(&self, number: usize, host: &Host) {
        let descriptor = |host: &Host| host.namespace.as_ref().unwrap().as_raw_fd();
        let there = format!("/proc/{}/fd/{}", std::process::id(), descriptor(host));
        let (near, far) = (address(number, 1), address(number, 2));
        ip(
            &self.router,
            &format!("link add h{number} type veth peer name eth0 netns {there}"),
        );
        ip(&self.router, &format!("addr add {near}/24 dev h{number}"));
        ip(&self.router, &format!("link set h{number} up"));
        ip(host, "link set lo up");
        ip(host, &format!("addr add {far}/24 dev eth0"));
        ip(host, "link set eth0 up");
        ip(host, &format!("route add default via {near}"));
    }

    /// Nothing gets from one host to the other any more; the other way is as it was.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.lose(from, to, 100);
    }

    /// Nothing gets from either host to the other any more.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Nobody reaches the host any more, nor does it reach anybody.
    pub fn isolate(&mut self, host: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.cut(host, other);
        }
    }

    /// So many of a hundred packets from one host to the other are dropped, at random.
    pub fn lose(&mut self, from: usize, to: usize, percent: u32) {
        self.faults.retain(|f| (f.from, f.to) != (from, to));
        self.faults.push(Fault { from, to, percent });
        self.apply();
    }

    /// Everybody reaches everybody again.
    pub fn heal(&mut self) {
        self.faults.clear();
        self.apply();
    }

    /// So much gets to the host in a second, for example `1mbit`.
    pub fn slow(&self, host: usize, rate: &str) {
        let line = format!("qdisc replace dev h{host} root tbf rate {rate} burst 32kb latency 1s");
        run_in(
            &self.router,
            Command::new("tc").args(line.split_whitespace()),
            "",
        );
    }

    /// As fast as it can again.
    pub fn hasten(&self, host: usize) {
        let line = format!("qdisc del dev h{host} root");
        run_in(
            &self.router,
            Command::new("tc").args(line.split_whitespace()),
            "",
        );
    }

    fn apply(&self) {
        let mut rules = "flush chain inet faults forward\n".to_owned();
        for Fault { from, to, percent } in &self.faults {
            let (from, to) = (address(*from, 2), address(*to, 2));
            let chance = match percent {
                100 => String::new(),
                _ => format!("numgen random mod 100 < {percent} "),
            };
            rules.push_str(&format!(
                "add rule inet faults forward ip saddr {from} ip daddr {to} {chance}drop\n"
            ));
        }
        self.program(&rules);
    }

    fn program(&self, rules: &str) {
        run_in(&self.router, Command::new("nft").args(["-f", "-"]), rules);
    }
}

fn address(host: usize, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, host as u8 + 1, last)
}

/// A new namespace. It is made by a thread of its own, since a thread that leaves its namespace is not to go on.
fn namespace(address: Ipv4Addr) -> Host {
    let made = std::thread::spawn(|| {
        // SAFETY: a flag is passed; only this thread changes.
        let status = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    Host {
        address: IpAddr::V4(address),
        namespace: Some(Arc::new(made.join().unwrap())),
    }
}

fn ip(host: &Host, line: &str) {
    run_in(host, Command::new("ip").args(line.split_whitespace()), "");
}

fn run_in(host: &Host, command: &mut Command, input: &str) {
    host.place(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}
