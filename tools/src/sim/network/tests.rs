//! Each fault of the network does what the table at the head of `network.rs` says.

use super::*;

const A: Host = 0;
const B: Host = 1;
const CLIENT: Owner = Owner::Client {
    client: 0,
    session: 1,
};
const NODE: Owner = Owner::Node {
    node: 1,
    process: 1,
};

struct Pair {
    network: Network,
    queue: Queue<Event>,
    heard: Vec<(Owner, Signal)>,
    client: EndId,
    node: Option<EndId>,
}

impl Pair {
    fn begin(window: usize) -> Self {
        let conduct = Conduct {
            least_ns: 1_000,
            jitter_ns: 10_000,
            window,
            cut_per_million: 500_000,
        };
        let mut network = Network::new(conduct, 2, Random::of(1, 0));
        let mut queue = Queue::new();
        let client = network.connect(CLIENT, A, B, Port::Clients, &mut queue);
        Self {
            network,
            queue,
            heard: Vec::new(),
            client,
            node: None,
        }
    }

    fn connected(window: usize) -> Self {
        let mut pair = Self::begin(window);
        pair.run();
        assert_eq!(pair.take(), [(CLIENT, Signal::Connected)]);
        pair
    }

    fn run(&mut self) {
        while self.step() {}
    }

    /// The next thing happens; false where there is none.
    fn step(&mut self) -> bool {
        let Some(event) = self.queue.next() else {
            return false;
        };
        let Event::Network(event) = event else {
            unreachable!("there is nothing but a network")
        };
        match self.network.on_event(event, &mut self.queue) {
            Some((end, _, Signal::Incoming)) => {
                self.network.accept(end, NODE, &mut self.queue);
                self.node = Some(end);
            }
            Some((_, owner, signal)) => self.heard.push((owner, signal)),
            None => {}
        }
        true
    }

    fn take(&mut self) -> Vec<(Owner, Signal)> {
        std::mem::take(&mut self.heard)
    }

    fn say(&mut self, bytes: &[u8]) -> Option<usize> {
        self.network.write(self.client, bytes, &mut self.queue)
    }

    fn read(&mut self) -> Vec<u8> {
        let node = self.node.expect("it is connected");
        let bytes = self.network.readable(node).to_vec();
        self.network.consume(node, bytes.len(), &mut self.queue);
        bytes
    }
}

/// Goal: bytes come whole and in order, however they are cut, and never more than the window.
#[test]
fn a_stream_keeps_its_order_and_its_window() {
    let mut pair = Pair::connected(100);
    let sent: Vec<u8> = (0..=255).collect();
    let (mut from, mut read) = (0, Vec::new());
    while read.len() < sent.len() {
        let end = (from + 37).min(sent.len());
        let taken = pair.say(&sent[from..end]).expect("it is open");
        from += taken;
        if taken == 0 {
            pair.network.await_room(pair.client, &mut pair.queue);
            pair.run();
            read.extend(pair.read());
            pair.run();
            assert!(pair.take().contains(&(CLIENT, Signal::Writable)));
        } else if from == sent.len() {
            pair.run();
            read.extend(pair.read());
        }
    }
    assert_eq!(read, sent);
}

/// Goal: what is sent into a partition comes when it heals, a farewell last.
#[test]
fn a_partition_holds_bytes_back_and_loses_none() {
    let mut pair = Pair::connected(1 << 16);
    pair.say(b"before ");
    pair.network.block(A, B);
    pair.say(b"during ");
    pair.network.shut_write(pair.client, &mut pair.queue);
    pair.run();
    assert_eq!(pair.read(), b"");
    assert!(!pair.take().contains(&(NODE, Signal::Ended)));
    pair.network.unblock(A, B, &mut pair.queue);
    pair.run();
    assert_eq!(pair.read(), b"before during ");
    assert_eq!(pair.take().last(), Some(&(NODE, Signal::Ended)));
}

/// Goal: one way is one way, but word of room does not get through either.
#[test]
fn a_one_way_partition_lets_a_window_through() {
    let mut pair = Pair::connected(10);
    pair.network.block(B, A);
    assert_eq!(pair.say(b"0123456789abc"), Some(10));
    pair.run();
    assert_eq!(pair.read(), b"0123456789");
    assert_eq!(pair.say(b"abc"), Some(0));
    pair.network.await_room(pair.client, &mut pair.queue);
    pair.network.unblock(B, A, &mut pair.queue);
    pair.run();
    assert!(pair.take().contains(&(CLIENT, Signal::Writable)));
    assert_eq!(pair.say(b"abc"), Some(3));
}

#[test]
fn nobody_connects_through_a_partition_or_to_a_host_that_is_off() {
    for is_off in [false, true] {
        let mut pair = Pair::connected(100);
        if is_off {
            pair.network.on_power_cut(B);
        } else {
            pair.network.block(B, A);
        }
        pair.network
            .connect(CLIENT, A, B, Port::Clients, &mut pair.queue);
        pair.run();
        assert_eq!(pair.take(), [(CLIENT, Signal::Unanswered)]);
    }
}

/// Goal: where the answer to a connection attempt is lost, nothing that follows it is heard either. Method: a partition at just
/// that time, and a greeting from the side that believes it is connected.
#[test]
fn nobody_hears_anything_before_it_is_connected() {
    let mut pair = Pair::begin(100);
    assert!(pair.step(), "the attempt arrives");
    let node = pair.node.expect("it was accepted");
    pair.network.block(B, A);
    assert!(pair.step(), "the answer is lost");
    pair.network.unblock(B, A, &mut pair.queue);
    pair.network.write(node, b"welcome", &mut pair.queue);
    pair.run();
    assert_eq!(pair.take(), [(CLIENT, Signal::Unanswered)]);
}

/// Goal: a power cut is heard of only by who speaks, and only once the host is up again; nothing old reaches the new.
#[test]
fn a_power_cut_leaves_half_of_the_connection() {
    let mut pair = Pair::connected(100);
    pair.say(b"unread");
    pair.run();
    pair.take();
    pair.network.on_power_cut(B);
    pair.say(b"into the void");
    pair.run();
    assert_eq!(pair.take(), []);
    pair.network.on_power_up(B, &mut pair.queue);
    pair.say(b"hello?");
    pair.run();
    assert_eq!(pair.take(), [(CLIENT, Signal::Broken)]);
    assert_eq!(pair.say(b"gone"), None);
}

/// Goal: a killed process's connections end; a farewell in a partition is never heard, and then the connection is half-open.
#[test]
fn a_kill_is_heard_of_unless_something_is_between() {
    let mut pair = Pair::connected(100);
    pair.network.on_killed(NODE, &mut pair.queue);
    pair.run();
    let heard = pair.take();
    assert!(
        matches!(heard[..], [(CLIENT, Signal::Ended | Signal::Broken)]),
        "{heard:?}"
    );
    let mut pair = Pair::connected(100);
    pair.network.block(B, A);
    pair.network.on_killed(NODE, &mut pair.queue);
    pair.run();
    assert_eq!(pair.take(), []);
}

#[test]
fn a_clogged_link_is_slow() {
    let mut pair = Pair::connected(100);
    let before = pair.queue.now_ns();
    pair.network.clog(A, B, 50 * MILLISECOND, false);
    pair.say(b"x");
    pair.run();
    assert!(pair.queue.now_ns() >= before + 50 * MILLISECOND);
    let before = pair.queue.now_ns();
    pair.network.clog(A, B, 50 * MILLISECOND, true);
    pair.say(b"x");
    pair.run();
    assert!(pair.queue.now_ns() < before + 10 * MILLISECOND);
}

/// Goal: a connection that both have left is no more, and its place is not taken for it.
#[test]
fn a_place_given_out_again_is_another_connection() {
    let mut pair = Pair::connected(100);
    let (old_client, old_node) = (pair.client, pair.node.expect("it is connected"));
    pair.network.close(old_node, &mut pair.queue);
    pair.run();
    assert_eq!(pair.take(), [(CLIENT, Signal::Ended)]);
    pair.network.close(old_client, &mut pair.queue);
    pair.client = pair
        .network
        .connect(CLIENT, A, B, Port::Clients, &mut pair.queue);
    pair.run();
    assert_ne!(pair.client, old_client);
    pair.say(b"new");
    pair.run();
    assert_eq!(pair.network.readable(old_node), b"");
    assert_eq!(pair.read(), b"new");
}

/// Goal: a lost connection is heard of at one end at least.
#[test]
fn a_lost_connection_is_heard_of() {
    for seed in 0..20 {
        let mut pair = Pair::connected(100);
        let mut random = Random::of(seed, 0);
        assert!(pair.network.lose_a_connection(&mut random, &mut pair.queue));
        pair.run();
        let heard = pair.take();
        assert!(!heard.is_empty());
        assert!(heard.iter().all(|(_, signal)| *signal == Signal::Broken));
    }
}
