//! Processes on the mirror port that do not belong to the group.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use relay_wire::id::{Epoch, NodeId, StreamId};
use relay_wire::peer::{Envelope, HELLO_LENGTH, Hello, PeerMessage, prove};

use super::Scene;
use super::appliance::group::{Group, GroupShape};
use super::appliance::load::{Load, LoadShape};
use super::appliance::{self, LIMIT, Random, free_port};

/// Whatever a node tells somebody who has proven nothing: HELLO, and PROOF in answer to one.
const TOLD_MAX: usize = 2 * HELLO_LENGTH;

/// Passes connections on to a port, and keeps what the first one that said enough said.
struct Recorder {
    port: u16,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    fn before(target: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
                    continue;
                };
                let (from, to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let heard = Arc::clone(&heard);
                heard.lock().unwrap().clear();
                std::thread::spawn(move || pass_on(from, to, Some(&heard)));
                std::thread::spawn(move || pass_on(far, near, None));
            }
        });
        Self { port, said }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, heard: Option<&Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if let Some(heard) = heard {
            let mut heard = heard.lock().unwrap();
            if heard.len() < 64 << 10 {
                heard.extend_from_slice(&buffer[..length]);
            }
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A stranger's connection.
struct Stranger {
    socket: TcpStream,
    told: Vec<u8>,
}

impl Stranger {
    fn at(port: u16) -> Self {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let told = Vec::new();
        Self { socket, told }
    }

    /// The node's own HELLO.
    fn hello(&mut self) -> Vec<u8> {
        let mut hello = vec![0; HELLO_LENGTH];
        self.socket.read_exact(&mut hello).unwrap();
        self.told.extend_from_slice(&hello);
        hello
    }

    /// Says this, as far as it is let, and reads until it is closed on: what it was told in all.
    fn say(mut self, bytes: &[u8]) -> Vec<u8> {
        // Being closed on is no error of the stranger's.
        let _ = self.socket.write_all(bytes);
        let _ = self.socket.read_to_end(&mut self.told);
        assert!(
            self.told.len() <= TOLD_MAX,
            "{} bytes were told",
            self.told.len()
        );
        self.told
    }
}

/// A group whose second node reaches the first through a recorder.
fn recorded() -> (Scene, Recorder) {
    let mut group = Group::formed(&GroupShape::default());
    let target = group.mirror_ports[0];
    let recorder = Recorder::before(target);
    let (direct, through) = (format!(":{target}\""), format!(":{}\"", recorder.port));
    let section = &mut group.nodes[1].shape.group;
    assert!(section.contains(&direct), "{section}");
    *section = section.replace(&direct, &through);
    group.nodes[1].write_config();
    for node in &mut group.nodes {
        node.start();
    }
    group.await_in_sync();
    let load = Load::started(&group.addresses(), &LoadShape::default());
    load.await_more(100);
    let scene = Scene {
        group,
        load,
        network: None,
        disks: Vec::new(),
    };
    (scene, recorder)
}

/// Goal: whoever does not know the secret reads nothing and changes nothing on the mirror port, whatever he says: noise, a HELLO
/// of nobody, a HELLO of a real peer with a proof by another secret, the node's own HELLO sent back, or all that a real peer
/// once said, byte by byte. The log says what was refused.
#[test]
fn strangers_read_and_change_nothing() {
    let mut random = Random::new(appliance::seed());
    let (scene, recorder) = recorded();
    let takeovers = |scene: &Scene, place| scene.group.counter(place, "group.takeovers");
    let before = [takeovers(&scene, 0), takeovers(&scene, 1)];
    let recorded = recorder.said.lock().unwrap().clone();
    assert!(recorded.len() > 2 * HELLO_LENGTH, "a peer said something");
    for port in scene.group.mirror_ports.clone() {
        for _ in 0..20 {
            let noise: Vec<u8> = (0..random.below(300))
                .map(|_| random.below(256) as u8)
                .collect();
            let mut stranger = Stranger::at(port);
            stranger.socket.write_all(&noise).unwrap();
            stranger.socket.shutdown(Shutdown::Write).unwrap();
            stranger.say(&[]);
        }
        let mut mirror = Stranger::at(port);
        let own = mirror.hello();
        mirror.say(&own);
        let mut replay = Stranger::at(port);
        replay.hello();
        replay.say(&recorded);
        for node in [1, 2, 77] {
            impersonate(port, node);
        }
        scene.await_flow(50);
    }
    for (place, before) in before.into_iter().enumerate() {
        // Of many refusals in a row the log names the first and counts the others.
        scene.group.nodes[place].await_log(&["a mirror connection was refused"]);
        assert_eq!(takeovers(&scene, place), before, "{}", scene.group.logs());
    }
    scene.await_recovery();
    scene.finish();
}

/// Says to be a node, with a proof made with another secret.
fn impersonate(port: u16, node: u64) {
    let mut stranger = Stranger::at(port);
    let theirs = stranger.hello();
    let envelope = Envelope {
        stream: StreamId(1),
        epoch: Epoch(1_000_000),
        incarnation: 9,
    };
    let hello = PeerMessage::Hello(Hello {
        nonce: [7; 32],
        node: NodeId(node),
        process: 5,
    });
    let mut ours = vec![0; HELLO_LENGTH];
    hello.encode(&envelope, &mut ours).unwrap();
    let proof = PeerMessage::Proof(prove(b"another secret", true, &ours, &theirs));
    let mut said = ours.clone();
    said.resize(ours.len() + proof.length(), 0);
    proof.encode(&envelope, &mut said[ours.len()..]).unwrap();
    stranger.say(&said);
}

/// Goal: 500 silent connections to each mirror port keep no peer out: a node that is killed meanwhile comes back beside them.
#[test]
fn a_crowd_on_the_mirror_port_keeps_no_peer_out() {
    let mut scene = Scene::on_loopback(&GroupShape::default(), &LoadShape::default());
    let mut crowd = Vec::new();
    for port in scene.group.mirror_ports.clone() {
        for _ in 0..500 {
            crowd.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
        }
    }
    scene.await_flow(50);
    for is_primary in [false, true] {
        let leader = scene.group.await_in_sync();
        let victim = if is_primary { leader } else { 1 - leader };
        scene.group.nodes[victim].kill();
        scene.await_flow(50);
        scene.group.nodes[victim].start();
        let port = scene.group.mirror_ports[1 - victim];
        for _ in 0..100 {
            crowd.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
        }
        scene.await_recovery();
    }
    drop(crowd);
    scene.finish();
}
