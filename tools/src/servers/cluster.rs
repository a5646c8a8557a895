//! One node, or a group of several with a witness of their own, from an empty directory to journals that are compared.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use relay_client::Credential;
use relay_client::wire::id::{NodeId, StreamId};
use relay_client::wire::membership::Membership;
use relay_client::wire::witness::{Answer, Request};
use relay_client::witness::WitnessClient;

use super::daemon::Daemon;
use super::gates::Gates;
use super::node::{
    GroupPart, Node, NodePart, NodeSettings, STREAM, SUBSCRIBER_NAME, StreamPart, publisher_name,
};
use super::port::KeptPort;
use super::secret;
use crate::connect::Connection;
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::output::hex;
use crate::verify::{Judgement, Rules, judge};

/// Bound on a group's finding itself together, catch-up included.
const IN_SYNC_WAIT: Duration = Duration::from_secs(60);
/// How long a client of it tries to come back.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// How often the nodes' counters are looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How often the membership record is read where nobody leads, and the bound on that.
const RECORD_LOOK: Duration = Duration::from_secs(1);
/// What `group.standing` says of a primary.
const LEADING: u64 = 2;

/// What the cluster is to be.
#[derive(Debug, Clone)]
pub(crate) struct ClusterSettings {
    pub(crate) nodes: usize,
    /// Streams of each node; a group has one.
    pub(crate) streams: usize,
    /// CPUs of each stream's threads, node by node; empty ones for no pinning.
    pub(crate) cpus: Vec<Vec<usize>>,
    pub(crate) node: NodeSettings,
    /// Whether nodes can be cut off: every connection then goes through a proxy.
    pub(crate) is_separable: bool,
}

/// See the module's head. Nodes are named by their place, from 0; their numbers begin at 1.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Dropped in this order: whoever would notice the loss of another goes first.
    nodes: Vec<Node>,
    witness: Option<Daemon>,
    gates: Gates,
    /// Where clients reach each node of a group: at its gate, if it has one.
    addresses: Vec<Option<SocketAddr>>,
    secret: Vec<u8>,
    /// Where the witness listens, and the group's secret.
    witness_at: Option<(SocketAddr, Vec<u8>)>,
}

impl Cluster {
    /// Configures and formats everything in `directory`, and makes the group's membership record.
    pub(crate) fn prepare(
        relayd: &Path,
        directory: &Path,
        settings: &ClusterSettings,
    ) -> Result<Self, Failure> {
        assert!(
            settings.nodes == 1 || settings.streams == 1,
            "a group has one stream"
        );
        let mut cluster = Self {
            nodes: Vec::new(),
            witness: None,
            gates: Gates::default(),
            addresses: vec![None; settings.nodes],
            secret: secret()?,
            witness_at: None,
        };
        let mut parts = cluster.parts(settings)?;
        if settings.nodes > 1 {
            cluster.plan_group(relayd, directory, settings, &mut parts)?;
        }
        for part in parts {
            let directory = directory.join(format!("node{}", part.number));
            fs::create_dir_all(&directory)
                .map_err(|error| Failure::file("making", &directory, &error))?;
            let node = Node::prepare(relayd.to_owned(), &directory, settings.node.clone(), part)?;
            cluster.nodes.push(node);
        }
        if cluster.witness.is_some() {
            cluster.init_group()?;
        }
        Ok(cluster)
    }

    fn parts(&self, settings: &ClusterSettings) -> Result<Vec<NodePart>, Failure> {
        let stream = |place: usize| -> Result<_, Failure> {
            let cpus = settings.cpus.get(place).cloned().unwrap_or_default();
            let port = KeptPort::any()?;
            Ok(StreamPart { port, cpus })
        };
        (0..settings.nodes)
            .map(|place| {
                let first = place * settings.streams;
                let streams = first..first + settings.streams;
                Ok(NodePart {
                    number: place as u64 + 1,
                    streams: streams.map(stream).collect::<Result<_, _>>()?,
                    group: None,
                    secret: self.secret.clone(),
                })
            })
            .collect()
    }

    /// Starts a witness and gives each node its part in the group.
    fn plan_group(
        &mut self,
        relayd: &Path,
        directory: &Path,
        settings: &ClusterSettings,
        parts: &mut [NodePart],
    ) -> Result<(), Failure> {
        let secret = secret()?;
        let witness = self.start_witness(relayd, directory, &secret)?;
        self.witness_at = Some((witness, secret.clone()));
        let ports: Vec<_> = (0..settings.nodes)
            .map(|_| KeptPort::any())
            .collect::<Result<_, _>>()?;
        let mirrors: Vec<_> = ports.iter().map(KeptPort::address).collect();
        for ((place, part), mirror_port) in parts.iter_mut().enumerate().zip(ports) {
            let mut gated = |ends: [Option<usize>; 2], upstream: SocketAddr| {
                if settings.is_separable {
                    self.gates.add(ends, upstream)
                } else {
                    Ok(upstream)
                }
            };
            self.addresses[place] =
                Some(gated([None, Some(place)], part.streams[0].port.address())?);
            let mut peers = Vec::new();
            for (other, &mirror) in mirrors.iter().enumerate() {
                if other != place {
                    let address = gated([Some(place), Some(other)], mirror)?;
                    peers.push((other as u64 + 1, address.to_string()));
                }
            }
            part.group = Some(GroupPart {
                mirror_port,
                peers,
                witness: gated([Some(place), None], witness)?.to_string(),
                secret: secret.clone(),
            });
        }
        Ok(())
    }

    fn start_witness(
        &mut self,
        relayd: &Path,
        directory: &Path,
        secret: &[u8],
    ) -> Result<SocketAddr, Failure> {
        let config = directory.join("witness.toml");
        let store = toml::Value::from(directory.join("witness").to_string_lossy().into_owned());
        let text = format!(
            "[witness]\nlisten = \"127.0.0.1:0\"\ndirectory = {store}\nsecret = \"{}\"\n",
            hex(secret)
        );
        fs::write(&config, text).map_err(|error| Failure::file("writing", &config, &error))?;
        let log = directory.join("witness.log");
        let mut witness = Daemon::new(relayd.to_owned(), config, log);
        witness.complete("format", witness.command("format")?)?;
        let address = witness.start("witness", "ready witness listen=")?;
        self.witness = Some(witness);
        address
            .parse()
            .map_err(|_| Failure::Failed(format!("a witness that listens at {address}")))
    }

    fn init_group(&self) -> Result<(), Failure> {
        let daemon = &self.nodes[0].daemon;
        let mut command = daemon.command("init-group")?;
        for directory in self.stream_directories() {
            command.arg("--journal").arg(directory);
        }
        daemon.complete("init-group", command)
    }

    /// Starts every node, and waits until all that belong to the group are in sync.
    pub(crate) fn start(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        for place in 0..self.nodes.len() {
            self.start_node(place)?;
        }
        self.await_in_sync(interrupt)
    }

    /// Starts one node and waits until it accepts clients.
    pub(crate) fn start_node(&mut self, place: usize) -> Result<(), Failure> {
        self.nodes[place].start()
    }

    /// Kills a node with SIGKILL.
    pub(crate) fn kill(&mut self, place: usize) {
        self.nodes[place].daemon.kill();
    }

    /// Freezes a node with SIGSTOP.
    pub(crate) fn freeze(&self, place: usize) -> Result<(), Failure> {
        self.nodes[place].daemon.signal("STOP")
    }

    /// Lets a frozen node go on.
    pub(crate) fn thaw(&self, place: usize) -> Result<(), Failure> {
        self.nodes[place].daemon.signal("CONT")
    }

    /// Cuts a node off from everybody; only where the cluster is separable.
    pub(crate) fn cut(&mut self, place: usize) {
        self.gates.cut(place);
    }

    /// Joins it again.
    pub(crate) fn heal(&mut self, place: usize) {
        self.gates.heal(place);
    }

    /// Nodes.
    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The first stream's directories, by place.
    pub(crate) fn stream_directories(&self) -> Vec<PathBuf> {
        self.directories_of_stream(0)
    }

    /// Directories of the stream at `place`, node by node.
    pub(crate) fn directories_of_stream(&self, place: usize) -> Vec<PathBuf> {
        let of_node = |node: &Node| node.stream_directory(place);
        self.nodes.iter().map(of_node).collect()
    }

    /// Where clients reach the nodes.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let gated = self.addresses.iter().zip(&self.nodes);
        gated
            .map(|(gate, node)| gate.unwrap_or_else(|| node.address(0)).to_string())
            .collect()
    }

    /// The same client, at another of a lone node's streams.
    pub(crate) fn at_stream(&self, place: usize, mut connection: Connection) -> Connection {
        if place > 0 {
            connection.addresses = vec![self.nodes[0].address(place).to_string()];
            connection.stream = STREAM + place as u32;
        }
        connection
    }

    /// How publisher `id` connects.
    pub(crate) fn publisher(&self, id: u64) -> Connection {
        self.connection(publisher_name(id))
    }

    /// How a subscriber connects.
    pub(crate) fn subscriber(&self) -> Connection {
        self.connection(SUBSCRIBER_NAME.into())
    }

    fn connection(&self, name: String) -> Connection {
        Connection {
            addresses: self.addresses(),
            credential: Credential {
                name,
                secret: self.secret.clone(),
            },
            stream: STREAM,
            give_up_after: Some(GIVE_UP_AFTER),
        }
    }

    /// The node that runs and leads the newest epoch, and that epoch. A node alone always leads.
    pub(crate) fn leader(&self) -> Option<(usize, u64)> {
        if self.witness.is_none() {
            return Some((0, 0));
        }
        let leading = (0..self.nodes.len()).filter_map(|place| {
            let counters = self.counters(place)?;
            let is_leading = counters.value("group.standing") == Some(LEADING);
            is_leading.then(|| (place, counters.value("group.epoch").unwrap_or(0)))
        });
        leading.max_by_key(|&(_, epoch)| epoch)
    }

    /// Waits until a node leads an epoch above `epoch`; which one, and its epoch.
    pub(crate) fn await_leader(
        &self,
        above: u64,
        interrupt: &Interrupt,
    ) -> Result<(usize, u64), Failure> {
        let mut found = None;
        self.eventually("a new primary leads", interrupt, || {
            found = self.leader().filter(|&(_, epoch)| epoch > above);
            found.is_some()
        })?;
        Ok(found.expect("it was awaited"))
    }

    /// Waits until every node is in the set of the one that leads.
    pub(crate) fn await_in_sync(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        if self.witness.is_none() {
            return Ok(());
        }
        self.eventually("all nodes are in sync", interrupt, || {
            let leader = self.leader();
            leader.is_some_and(|(place, _)| self.members_with(place) == self.nodes.len())
        })
    }

    /// Nodes in the set of the one at `place` that it is connected to, itself included; 0 where the set is another number.
    fn members_with(&self, place: usize) -> usize {
        let Some(counters) = self.counters(place) else {
            return 0;
        };
        let holds =
            |node: usize, what: &str| counters.value(&format!("peer.{node}.{what}")) == Some(1);
        let connected = (1..=self.nodes.len())
            .filter(|&node| holds(node, "is_connected") && holds(node, "is_member"));
        let members = 1 + connected.count();
        if counters.value("group.members") == Some(members as u64) {
            members
        } else {
            0
        }
    }

    /// Waits until a node leads an epoch above `epoch` while the one at `lost` is gone; `None` where none of the others may,
    /// since the record knows no other copy: its primary had dropped them before it was lost.
    pub(crate) fn await_successor(
        &self,
        lost: usize,
        epoch: u64,
        interrupt: &Interrupt,
    ) -> Result<Option<usize>, Failure> {
        let mut found = None;
        let mut read_at = Instant::now() + RECORD_LOOK;
        let mut is_alone = false;
        self.eventually("a new primary leads", interrupt, || {
            found = self.leader().filter(|&(_, led)| led > epoch);
            if found.is_none() && Instant::now() >= read_at {
                is_alone = self.membership().is_some_and(|record| {
                    let number = lost as u64 + 1;
                    let members = record.members.as_slice();
                    members.iter().all(|member| member.node.get() == number)
                });
                read_at = Instant::now() + RECORD_LOOK;
            }
            found.is_some() || is_alone
        })?;
        Ok(found.map(|(place, _)| place))
    }

    /// The membership record, where the witness answers.
    fn membership(&self) -> Option<Membership> {
        let (address, secret) = self.witness_at.as_ref()?;
        let deadline = Instant::now() + RECORD_LOOK;
        let mut witness = WitnessClient::connect(*address, secret, NodeId(0), deadline).ok()?;
        match witness
            .ask(StreamId(STREAM), &Request::Read, deadline)
            .ok()?
        {
            Answer::Registers(Some(held)) => Membership::decode(held.record.value.as_slice()).ok(),
            _ => None,
        }
    }

    fn counters(&self, place: usize) -> Option<Counters> {
        let node = &self.nodes[place];
        if !node.daemon.is_running() {
            return None;
        }
        // Not there yet while it starts.
        Counters::read(&node.stream_directory(0)).ok()
    }

    fn eventually(
        &self,
        what: &str,
        interrupt: &Interrupt,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        while !condition() {
            interrupt.check()?;
            if begun.elapsed() > IN_SYNC_WAIT {
                return Err(Failure::Failed(format!(
                    "waited {} s in vain until {what}{}",
                    IN_SYNC_WAIT.as_secs(),
                    self.logs()
                )));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .map(|(place, node)| format!("; node {}{}", place + 1, node.daemon.log_tail()))
            .collect()
    }

    /// Stops everything in order, the primary last; how far the log was released.
    pub(crate) fn stop(&mut self, interrupt: &Interrupt) -> Result<u64, Failure> {
        let mut released = 0;
        if self.witness.is_some() {
            self.await_in_sync(interrupt)?;
            let (leader, _) = self.await_leader(0, interrupt)?;
            let position = |place: usize, what: &str| {
                let counters = self.counters(place);
                counters.and_then(|c| c.value(&format!("position.{what}")))
            };
            released = position(leader, "released").unwrap_or(0);
            self.eventually("everything is on every disk", interrupt, || {
                (0..self.nodes.len()).all(|place| position(place, "durable") >= Some(released))
            })?;
            let followers = (0..self.nodes.len()).filter(|&place| place != leader);
            for place in followers.collect::<Vec<_>>() {
                self.nodes[place].daemon.stop()?;
            }
        }
        for node in &mut self.nodes {
            node.daemon.stop()?;
        }
        if let Some(witness) = &mut self.witness {
            witness.stop()?;
        }
        Ok(released)
    }

    /// Stops everything, verifies every journal, and compares them over what was released.
    pub(crate) fn stop_and_judge(&mut self, interrupt: &Interrupt) -> Result<Judgement, Failure> {
        let mut judged = self.stop_and_judge_streams(1, interrupt)?;
        Ok(judged.remove(0))
    }

    /// The same of the first so many streams, each by itself: journals of different streams have nothing in common.
    pub(crate) fn stop_and_judge_streams(
        &mut self,
        streams: usize,
        interrupt: &Interrupt,
    ) -> Result<Vec<Judgement>, Failure> {
        let released = self.stop(interrupt)?;
        let rules = Rules::default();
        let judged = |place| {
            let directories = self.directories_of_stream(place);
            judge(&directories, released, &rules, interrupt)
        };
        (0..streams).map(judged).collect()
    }
}
