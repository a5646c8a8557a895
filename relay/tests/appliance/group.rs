//! A group of real `relayd` on loopback with a witness, for tests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use relay_journal::reader::JournalDir;
use relay_journal::segment;
use relay_wire::id::Position;

use super::asker::SECRET;
use super::hosts::Host;
use super::witness::Witness;
use super::{Appliance, LIMIT, Shape, eventually, free_port, relayd, run, text};

/// What `group.standing` counts.
pub const SEEKING: u64 = 0;
pub const FOLLOWING: u64 = 1;
pub const LEADING: u64 = 2;

/// Nobody is suspected for being slow; a connection that ended is told at once all the same.
pub const PATIENT: &str = "suspect_ms = 5000\nack_deadline_ms = 10000\ndisk_stall_ms = 10000";
/// Who is silent is suspected before long, and not for a pause of a shared machine's.
pub const ALERT: &str = "suspect_ms = 1500\nack_deadline_ms = 3000\ndisk_stall_ms = 10000";

/// What differs from group to group.
#[derive(Debug, Clone)]
pub struct GroupShape {
    pub nodes: usize,
    /// The last so many of them are observers.
    pub observers: usize,
    /// An operator is the arbiter.
    pub manual: bool,
    pub min_copies: u8,
    /// More lines of `[stream.group]`.
    pub more: String,
    pub shape: Shape,
    /// Where they run, nodes first and the witness last; none for this machine.
    pub hosts: Vec<Host>,
    /// Where their journals lie, if not beside their configurations.
    pub disks: Vec<PathBuf>,
}

impl Default for GroupShape {
    fn default() -> Self {
        Self {
            nodes: 2,
            observers: 0,
            manual: false,
            min_copies: 1,
            // On a busy machine a node that got no time must not be taken for a dead one, unless that is what a test is about.
            more: PATIENT.to_owned(),
            shape: Shape::default(),
            hosts: Vec::new(),
            disks: Vec::new(),
        }
    }
}

/// Nodes 1, 2 ... of one stream; node N is at place N - 1.
pub struct Group {
    pub witness: Witness,
    pub nodes: Vec<Appliance>,
    pub mirror_ports: Vec<u16>,
    observers: usize,
}

impl Group {
    /// Formatted, with a membership record; nothing but the witness runs yet.
    pub fn formed(wanted: &GroupShape) -> Self {
        let group = Self::formatted(wanted);
        let mut command = relayd();
        command
            .arg("init-group")
            .arg("--config")
            .arg(group.nodes[0].config_path());
        group.nodes[0].shape.host.place(&mut command);
        for node in &group.nodes[..wanted.nodes - wanted.observers] {
            command.arg("--journal").arg(node.directory());
        }
        let output = run(&mut command);
        assert!(output.status.success(), "init-group: {}", text(&output));
        group
    }

    /// Formatted, without a membership record.
    pub fn formatted(wanted: &GroupShape) -> Self {
        let host = |place: usize| wanted.hosts.get(place).cloned().unwrap_or_default();
        let witness = Witness::started_on(host(wanted.nodes), "");
        let secret: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        let mirror_ports: Vec<u16> = (0..wanted.nodes).map(|_| free_port()).collect();
        let nodes = (0..wanted.nodes).map(|place| {
            let peers: Vec<String> = (0..wanted.nodes)
                .filter(|other| *other != place)
                .map(|other| {
                    let address = format!("{}:{}", host(other).address, mirror_ports[other]);
                    let node = other + 1;
                    let observer = other >= wanted.nodes - wanted.observers;
                    format!("{{ node = {node}, address = \"{address}\", observer = {observer} }}")
                })
                .collect();
            let section = format!(
                "[stream.group]\nmirror_listen = \"{}:{}\"\nsecret = \"{secret}\"\n\
                 peers = [{}]\nmin_copies = {}\n\
                 observer = {}\n{}\n[stream.group.arbiter]\n{}",
                host(place).address,
                mirror_ports[place],
                peers.join(", "),
                wanted.min_copies,
                place >= wanted.nodes - wanted.observers,
                wanted.more,
                if wanted.manual {
                    "kind = \"manual\"\n".to_owned()
                } else {
                    witness.section()
                },
            );
            Appliance::formatted(Shape {
                node: place as u64 + 1,
                group: section,
                host: host(place),
                disk: wanted.disks.get(place).cloned(),
                ..wanted.shape.clone()
            })
        });
        Self {
            nodes: nodes.collect(),
            observers: wanted.observers,
            witness,
            mirror_ports,
        }
    }

    /// Everything runs, and all nodes are in sync.
    pub fn started(wanted: &GroupShape) -> Self {
        let mut group = Self::formed(wanted);
        for place in 0..group.nodes.len() {
            group.nodes[place].start();
        }
        group.await_in_sync();
        group
    }

    /// The clients' addresses of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Appliance::address).collect()
    }

    pub fn counter(&self, place: usize, label: &str) -> u64 {
        let counters = self.nodes[place].counters();
        counters.get(label).copied().unwrap_or(0)
    }

    /// Place of the node that runs and leads, if there is one. A frozen one may have been superseded without knowing.
    pub fn leader(&self) -> Option<usize> {
        (0..self.nodes.len())
            .filter(|&place| {
                self.nodes[place].process.is_some()
                    && self.counter(place, "group.standing") == LEADING
            })
            .max_by_key(|&place| self.counter(place, "group.epoch"))
    }

    /// Waits until a node other than `not` leads; its place.
    pub fn await_leader(&self, not: Option<usize>) -> usize {
        let mut leader = None;
        self.eventually("some node leads", || {
            leader = self.leader().filter(|place| Some(*place) != not);
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Waits until every node that runs is in the set of one that leads, and acknowledges in its epoch.
    pub fn await_in_sync(&self) -> usize {
        let nodes = &self.nodes[..self.nodes.len() - self.observers];
        let running = nodes.iter().filter(|n| n.process.is_some()).count();
        let mut leader = None;
        self.eventually("all running nodes are in sync", || {
            leader = self.leader();
            leader.is_some_and(|place| {
                let members = self.counter(place, "group.members");
                members as usize == running && self.copies(place) == running
            })
        });
        leader.unwrap()
    }

    /// Copies of what is released, as the primary at `place` sees it: its own and those of members.
    pub fn copies(&self, place: usize) -> usize {
        let counters = self.nodes[place].counters();
        let counter = |label: &str| counters.get(label).copied().unwrap_or(0);
        let released = counter("position.released");
        let held = (1..=self.nodes.len()).filter(|node| {
            let of_peer = |what: &str| counter(&format!("peer.{node}.{what}"));
            of_peer("is_connected") == 1
                && of_peer("is_member") == 1
                && of_peer("standing") == FOLLOWING
                && of_peer("mirrored") > 0
                && of_peer("mirrored") >= released
        });
        1 + held.count()
    }

    /// As [`eventually`], with the nodes' logs where it fails.
    pub fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            if begun.elapsed() > LIMIT {
                panic!("in vain: {what}\n{}", self.logs());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub fn log_paths(&self) -> Vec<std::path::PathBuf> {
        self.nodes
            .iter()
            .map(|node| node.home.path().join("log"))
            .collect()
    }

    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for (place, node) in self.nodes.iter().enumerate() {
            logs.push_str(&format!("== node {}\n{}", place + 1, node.log()));
        }
        logs
    }

    /// Stops every running node, followers first, and compares the journals byte by byte over what was released; how much that
    /// is.
    pub fn stop_and_compare(&mut self) -> u64 {
        let leader = self.await_in_sync();
        let tail = self.counter(leader, "position.released");
        self.eventually("everything is on every disk", || {
            (0..self.nodes.len()).all(|place| {
                self.nodes[place].process.is_none()
                    || self.counter(place, "position.durable") >= tail
            })
        });
        for place in 0..self.nodes.len() {
            if self.nodes[place].process.is_some() && place != leader {
                let status = self.nodes[place].stop();
                assert!(status.success(), "{}", self.logs());
            }
        }
        if self.nodes[leader].process.is_some() {
            let status = self.nodes[leader].stop();
            assert!(status.success(), "{}", self.logs());
        }
        self.compare(tail);
        tail
    }

    /// Compares all journals up to `released`, and what follows as far as it is there.
    pub fn compare(&self, released: u64) {
        let tails: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let journal = JournalDir::open(&node.directory()).unwrap();
                let extent = journal.extent().unwrap();
                assert!(extent.verdict.is_ok(), "{:?}", extent.verdict);
                assert!(extent.tail.get() >= released, "all of it is there");
                extent.tail
            })
            .collect();
        let released = *tails.iter().min().unwrap();
        let first = self.log_bytes(0, released);
        for place in 1..self.nodes.len() {
            let other = self.log_bytes(place, released);
            let differs = first.iter().zip(&other).position(|(a, b)| a != b);
            assert_eq!(differs, None, "node {} differs from node 1", place + 1);
        }
    }

    /// The first bytes of a node's log.
    fn log_bytes(&self, place: usize, end: Position) -> Vec<u8> {
        let directory = self.nodes[place].directory().join(segment::DIRECTORY);
        let mut bytes = Vec::new();
        for index in 0.. {
            if bytes.len() as u64 >= end.get() {
                break;
            }
            bytes.extend(std::fs::read(directory.join(segment::name(index))).unwrap());
        }
        bytes.truncate(end.get() as usize);
        bytes
    }
}

/// Whether a file whose name begins so lies in a node's directory.
pub fn has_file(node: &Appliance, prefix: &str) -> bool {
    std::fs::read_dir(node.directory())
        .unwrap()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
}

/// Says a word to a node over its operator's socket; the answer.
pub fn admin(node: &Appliance, request: &str) -> String {
    let mut socket = UnixStream::connect(node.directory().join("admin.sock")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    writeln!(socket, "{request}").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

/// Waits until no node leads any more.
pub fn await_no_leader(group: &Group) {
    eventually("nobody leads", || group.leader().is_none());
}
