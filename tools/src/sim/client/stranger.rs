//! Somebody who has no business here: connects, talks nonsense, or says nothing at all.

use relay_wire::id::{Epoch, Seq};
use relay_wire::message::{Heartbeat, Message};

use crate::clock::Queue;
use crate::cluster::Event;
use crate::network::{EndId, Network, Owner, Port, Signal};
use crate::random::Random;

/// The number that stands for strangers among the clients.
pub(crate) const STRANGER: usize = usize::MAX;

/// Begins a visit: the words come when the connection is made.
pub(crate) fn visit(
    host: usize,
    node: usize,
    port: Port,
    network: &mut Network,
    queue: &mut Queue<Event>,
) {
    let owner = Owner::Client {
        client: STRANGER,
        session: 0,
    };
    network.connect(owner, host, node, port, queue);
}

/// What a stranger does when something happens on one of its connections.
pub(crate) fn on_signal(
    end: EndId,
    signal: Signal,
    random: &mut Random,
    network: &mut Network,
    queue: &mut Queue<Event>,
) {
    match signal {
        Signal::Connected => {
            let mut words = match random.below(4) {
                0 => Vec::new(),
                1 => (0..random.below(200))
                    .map(|_| random.next() as u8)
                    .collect(),
                2 => u32::MAX.to_le_bytes().to_vec(),
                _ => {
                    let beat = Message::Heartbeat(Heartbeat {
                        next_seq: Seq(0),
                        epoch: Epoch(0),
                        checksum: 0,
                        held: relay_wire::code::Held::No,
                    });
                    beat.to_vec().expect("it can be encoded")
                }
            };
            if !words.is_empty() && random.chance(500_000) {
                let at = random.below(words.len() as u64) as usize;
                words[at] ^= 1;
            }
            network.write(end, &words, queue);
        }
        Signal::Readable => {
            let length = network.readable(end).len();
            network.consume(end, length, queue);
        }
        Signal::Ended | Signal::Broken | Signal::Refused | Signal::Unanswered => {
            network.close(end, queue)
        }
        Signal::Writable | Signal::Incoming => {}
    }
}
