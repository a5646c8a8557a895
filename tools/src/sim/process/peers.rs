//! The sockets of a group's node to its peers: bytes to and from its machine, which decides everything.
//!
//! What the machine can't take now stays where it is and is offered again, and nothing more is received until then.

use relay_core::links::{LinkEffect, LinkId};
use relay_wire::id::Position;

use super::{Process, Surroundings};
use crate::network::{EndId, Owner, Port, Signal};
use crate::random::mix;

/// A connection to a peer.
#[derive(Debug)]
struct PeerSocket {
    end: EndId,
    link: LinkId,
    inbox: Vec<u8>,
    /// The machine waits to hear that there is room.
    is_sending: bool,
    /// The machine could not take what is in the inbox.
    is_stalled: bool,
    /// Something came and was not looked at.
    is_due: bool,
    has_ended: bool,
}

/// A connection that was asked for.
#[derive(Debug)]
struct Dialing {
    end: EndId,
    peer: u32,
    /// Only whether it is refused is of interest.
    is_knock: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Peers {
    sockets: Vec<PeerSocket>,
    /// Connections that were asked for, and to which of the configured peers.
    dialing: Vec<Dialing>,
}

impl Process {
    fn peers(&mut self) -> &mut Peers {
        &mut self.group.as_mut().expect("a group's node has peers").peers
    }

    fn nonce(&mut self) -> [u8; 32] {
        self.nonces += 1;
        let word = mix(self.nonces).to_le_bytes();
        core::array::from_fn(|index| word[index % 8] ^ index as u8)
    }

    /// A peer, or whoever says to be one, connects.
    pub(super) fn accept_peer(&mut self, end: EndId, around: &mut Surroundings<'_>) {
        if self.group.is_none() {
            around.network.close(end, around.queue);
            return;
        }
        self.open_peer(end, None, around);
    }

    fn open_peer(&mut self, end: EndId, dialed: Option<u32>, around: &mut Surroundings<'_>) {
        let nonce = self.nonce();
        let opened = match self.end {
            None => self.machine.on_link_opened(dialed, nonce, around.now),
            Some(_) => None,
        };
        let Some(link) = opened else {
            around.network.close(end, around.queue);
            if let Some(peer) = dialed {
                self.machine.on_dial_failed(peer, around.now);
            }
            return;
        };
        self.peers().sockets.push(PeerSocket {
            end,
            link,
            inbox: Vec::new(),
            is_sending: false,
            is_stalled: false,
            is_due: true,
            has_ended: false,
        });
    }

    /// The network has word about a connection that is none of a client.
    pub(super) fn on_peer_signal(
        &mut self,
        end: EndId,
        signal: Signal,
        around: &mut Surroundings<'_>,
    ) {
        let Some(group) = &mut self.group else {
            return;
        };
        let dialing = &mut group.peers.dialing;
        if let Some(at) = dialing.iter().position(|dialing| dialing.end == end) {
            let Dialing { peer, is_knock, .. } = dialing.remove(at);
            if signal == Signal::Refused {
                self.machine.on_peer_refused(peer);
            }
            if signal == Signal::Connected && !is_knock {
                self.open_peer(end, Some(peer), around);
                return;
            }
            around.network.close(end, around.queue);
            if !is_knock {
                self.machine.on_dial_failed(peer, around.now);
            }
            return;
        }
        let sockets = &mut group.peers.sockets;
        let Some(at) = sockets.iter().position(|socket| socket.end == end) else {
            return;
        };
        let socket = &mut sockets[at];
        match signal {
            Signal::Readable => socket.is_due = true,
            Signal::Ended => {
                socket.is_due = true;
                socket.has_ended = true;
            }
            Signal::Writable => {
                let link = socket.link;
                if std::mem::take(&mut socket.is_sending) {
                    self.machine.on_link_sent(link, 0);
                }
            }
            Signal::Broken => {
                let link = socket.link;
                self.drop_peer(at, around);
                self.machine.on_link_closed(link, around.now);
            }
            Signal::Connected | Signal::Refused | Signal::Unanswered | Signal::Incoming => {
                unreachable!("the connection is there")
            }
        }
    }

    /// Hands in what came from peers, into the window from `start` to `end`.
    pub(super) fn hear_peers(
        &mut self,
        start: Position,
        end: Position,
        around: &mut Surroundings<'_>,
    ) -> usize {
        let mut work = 0;
        let mut at = 0;
        while let Some(group) = &mut self.group
            && let Some(socket) = group.peers.sockets.get_mut(at)
        {
            if !socket.is_due && !socket.is_stalled {
                at += 1;
                continue;
            }
            socket.is_due = false;
            let capacity = 2 * self.machine.link_message_length_max();
            let arrived = around.network.readable(socket.end);
            let length = arrived
                .len()
                .min(capacity.saturating_sub(socket.inbox.len()));
            socket.inbox.extend_from_slice(&arrived[..length]);
            around.network.consume(socket.end, length, around.queue);
            let link = socket.link;
            let mut inbox = std::mem::take(&mut socket.inbox);
            self.bend_words(&mut inbox, around.canary);
            let mut window = self.memory.window(start, end);
            let heard = self
                .machine
                .on_link_bytes(link, &inbox, around.now, &mut window);
            inbox.drain(..heard.consumed);
            let socket = &mut self.peers().sockets[at];
            socket.inbox = inbox;
            socket.is_stalled = heard.is_stalled;
            work += heard.consumed;
            if heard.consumed > 0 && !heard.is_stalled {
                // There may be more than the inbox held.
                socket.is_due = true;
                continue;
            }
            let has_ended = socket.has_ended && around.network.has_ended(socket.end);
            if has_ended && !heard.is_stalled {
                self.drop_peer(at, around);
                self.machine.on_link_closed(link, around.now);
                continue;
            }
            at += 1;
        }
        work
    }

    /// What the machine wants of a connection.
    pub(super) fn on_link(&mut self, effect: LinkEffect, around: &mut Surroundings<'_>) {
        match effect {
            LinkEffect::Dial(peer) => self.dial(peer, false, around),
            LinkEffect::Knock(peer) => self.dial(peer, true, around),
            LinkEffect::Send(link) => self.send_to_peer(link, around),
            LinkEffect::Close(link) => {
                let sockets = &self.peers().sockets;
                if let Some(at) = sockets.iter().position(|socket| socket.link == link) {
                    self.drop_peer(at, around);
                }
            }
        }
    }

    fn dial(&mut self, peer: u32, is_knock: bool, around: &mut Surroundings<'_>) {
        let owner = Owner::Node {
            node: self.node,
            process: self.number,
        };
        let to = peer as usize + usize::from(peer as usize >= self.node);
        let patience_ns = self.machine.link_dial_patience_ns();
        let (network, queue) = (&mut *around.network, &mut *around.queue);
        let (node, port) = (self.node, Port::Mirror);
        let end = network.connect_within(patience_ns, owner, node, to, port, queue);
        self.peers().dialing.push(Dialing {
            end,
            peer,
            is_knock,
        });
    }

    fn send_to_peer(&mut self, link: LinkId, around: &mut Surroundings<'_>) {
        let group = self.group.as_mut().expect("a group's node has peers");
        let sockets = &mut group.peers.sockets;
        let Some(socket) = sockets.iter_mut().find(|socket| socket.link == link) else {
            // Closed meanwhile, as the appliance's farewell does.
            self.machine.on_link_closed(link, around.now);
            self.machine.on_link_sent(link, 0);
            return;
        };
        let bytes = self.machine.link_outgoing(link);
        match around.network.write(socket.end, bytes, around.queue) {
            Some(0) | None => {
                // A broken connection is heard of by itself.
                socket.is_sending = true;
                around.network.await_room(socket.end, around.queue);
            }
            Some(sent) => self.machine.on_link_sent(link, sent),
        }
    }

    fn drop_peer(&mut self, at: usize, around: &mut Surroundings<'_>) {
        let socket = self.peers().sockets.remove(at);
        around.network.close(socket.end, around.queue);
        if socket.is_sending {
            self.machine.on_link_sent(socket.link, 0);
        }
    }

    /// The machine has come to its end: its connections go with it.
    pub(super) fn close_peers(&mut self, around: &mut Surroundings<'_>) {
        let peers = std::mem::take(self.peers());
        let dialed = peers.dialing.into_iter().map(|dialing| dialing.end);
        for end in peers
            .sockets
            .into_iter()
            .map(|socket| socket.end)
            .chain(dialed)
        {
            around.network.close(end, around.queue);
        }
    }
}
