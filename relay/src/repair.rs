//! A start that finds its journal damaged asks the peers for the blocks it lacks.
//!
//! Before the stream's threads run, on the thread that starts it: one plain connection to each peer's mirror address after the
//! other, with the same handshake as theirs. A block is believed because its own checksums fit and it continues the block before
//! it; it is written where the damaged one lies, durably, and the journal is read again.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::recovery::Finding;
use relay_wire::id::{Epoch, NodeId, Position};
use relay_wire::peer::{self, Envelope, FetchOutcome, Hello, PeerMessage, Place, Standing, prove};
use relay_wire::proof::is_same;

/// A peer has this long to be reached and to answer.
const PEER_PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of a block with its frame.
const MESSAGE_MAX: usize = relay_journal::block::SPAN_MAX as usize + peer::BLOCK_OVERHEAD;

/// Who asks, and whom.
#[derive(Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) envelope: Envelope,
    pub(crate) node: NodeId,
    pub(crate) process: u64,
    pub(crate) secret: &'a [u8],
    pub(crate) peers: &'a [(NodeId, SocketAddr)],
    /// The newest epoch this node knows to be settled: who leads an earlier one is to be followed by nobody.
    pub(crate) committed: Epoch,
}

/// What is to be done about a damaged journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Write these bytes, a block with its padding, at the damaged place.
    Write { from: NodeId, bytes: Vec<u8> },
    /// The log of the node that leads goes on otherwise: cut this one there and follow it.
    Cut(NodeId),
    /// Nobody can help now; what each peer said.
    None(String),
}

/// Asks the peers what to do about the damage that recovery found.
pub(crate) fn remedy(asker: &Asker<'_>, finding: &Finding, alignment: u32) -> Remedy {
    let place = Place {
        position: finding.position,
        previous_checksum: finding.previous_checksum,
    };
    match asker.fetch(place) {
        Found::Block(from, block) => match padded(&block, finding.position, alignment) {
            Some(bytes) => Remedy::Write { from, bytes },
            None => Remedy::None(format!("node {from}: what it sent is no intact block")),
        },
        Found::Led(node) => Remedy::Cut(node),
        Found::Nobody(said) => Remedy::None(said),
    }
}

/// An intact block as it lies on disk.
pub(crate) fn padded(block: &[u8], position: Position, alignment: u32) -> Option<Vec<u8>> {
    let header = block::decode_header(block).ok()?;
    let is_whole = header.position == position && header.body_end() == block.len();
    if !is_whole || block::verify_body(&header, &block[HEADER_LENGTH..]).is_err() {
        return None;
    }
    let mut bytes = block.to_vec();
    bytes.resize(header.written_length(alignment) as usize, 0);
    Some(bytes)
}

/// What the peers have at a damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// The block, header and body.
    Block(NodeId, Vec<u8>),
    /// Nobody has it, and this node leads and never had it: what lies behind the place here is not part of its log.
    Led(NodeId),
    /// Nobody has it and nobody leads; what each peer said.
    Nobody(String),
}

impl Asker<'_> {
    /// Asks each peer for the block at `place`.
    fn fetch(&self, place: Place) -> Found {
        let mut leader = None;
        let mut said = Vec::new();
        for (node, address) in self.peers {
            match self.fetch_from(*node, *address, place) {
                Ok(Answer {
                    block: Some(block), ..
                }) => return Found::Block(*node, block),
                // It was there too, and may have been acknowledged: also a leader's damage is no reason to cut the other copy.
                Ok(answer) if answer.outcome == FetchOutcome::Damaged => {
                    said.push(format!("node {node}: its copy is damaged there too"));
                }
                Ok(answer) if answer.leads => leader = Some(*node),
                Ok(_) => said.push(format!("node {node}: its log does not go on from there")),
                Err(error) => said.push(format!("node {node} at {address}: {error}")),
            }
        }
        match leader {
            Some(node) => Found::Led(node),
            None => Found::Nobody(said.join("; ")),
        }
    }

    fn fetch_from(&self, node: NodeId, address: SocketAddr, place: Place) -> io::Result<Answer> {
        let deadline = Instant::now() + PEER_PATIENCE;
        let stream = TcpStream::connect_timeout(&address, PEER_PATIENCE)?;
        stream.set_nodelay(true)?;
        let mut link = Link {
            stream,
            bytes: Vec::new(),
            deadline,
        };
        self.shake_hands(&mut link, node)?;
        link.say(&self.envelope, &PeerMessage::Fetch(place))?;
        let mut leads = None;
        let mut answer = None;
        // Its first PROGRESS says whether it leads; it comes by itself.
        while answer.is_none() || leads.is_none() {
            let message = link.hear()?;
            let (envelope, message) = PeerMessage::decode(&message).map_err(io::Error::other)?;
            match message {
                PeerMessage::Progress(progress) => {
                    let is_past = envelope.epoch < self.committed;
                    leads = Some(progress.standing == Standing::Leading && !is_past);
                }
                PeerMessage::Fetched(about, outcome, block) if about == place => {
                    let block = (outcome == FetchOutcome::Here).then(|| block.to_vec());
                    answer = Some((outcome, block));
                }
                _ => {}
            }
        }
        let (outcome, block) = answer.expect("the loop ends with one");
        Ok(Answer {
            outcome,
            block,
            leads: leads == Some(true),
        })
    }

    fn shake_hands(&self, link: &mut Link, node: NodeId) -> io::Result<()> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let hello = PeerMessage::Hello(Hello {
            nonce,
            node: self.node,
            process: self.process,
        });
        let ours = link.say(&self.envelope, &hello)?;
        let theirs = link.hear()?;
        let (envelope, message) = PeerMessage::decode(&theirs).map_err(io::Error::other)?;
        let is_expected = matches!(message, PeerMessage::Hello(hello) if hello.node == node);
        if !is_expected || envelope.stream != self.envelope.stream {
            return Err(io::Error::other("another node or stream answers there"));
        }
        let proof = PeerMessage::Proof(prove(self.secret, true, &ours, &theirs));
        link.say(&self.envelope, &proof)?;
        let expected = prove(self.secret, false, &ours, &theirs);
        let answer = link.hear()?;
        match PeerMessage::decode(&answer).map_err(io::Error::other)?.1 {
            PeerMessage::Proof(proof) if is_same(&proof, &expected) => Ok(()),
            _ => Err(io::Error::other("it does not know the group's secret")),
        }
    }
}

struct Answer {
    outcome: FetchOutcome,
    block: Option<Vec<u8>>,
    leads: bool,
}

struct Link {
    stream: TcpStream,
    bytes: Vec<u8>,
    deadline: Instant,
}

impl Link {
    fn say(&mut self, envelope: &Envelope, message: &PeerMessage<'_>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; message.length()];
        message
            .encode(envelope, &mut bytes)
            .expect("the buffer has the message's length");
        self.stream.write_all(&bytes)?;
        Ok(bytes)
    }

    /// The next whole message.
    fn hear(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = peer::front(&self.bytes, MESSAGE_MAX).map_err(io::Error::other)? {
                let rest = self.bytes.split_off(length);
                return Ok(std::mem::replace(&mut self.bytes, rest));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.bytes.extend_from_slice(&piece[..read]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use relay_wire::id::StreamId;
    use relay_wire::peer::Progress;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef";
    const PLACE: Place = Place {
        position: Position(8192),
        previous_checksum: 7,
    };

    fn envelope(epoch: u64) -> Envelope {
        Envelope {
            stream: StreamId(1),
            epoch: Epoch(epoch),
            incarnation: 1,
        }
    }

    /// Node 2, which leads `epoch` and has no such block; it serves one conversation.
    fn leader(epoch: u64) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut link = Link {
                stream: listener.accept().unwrap().0,
                bytes: Vec::new(),
                deadline: Instant::now() + Duration::from_secs(60),
            };
            let theirs = link.hear().unwrap();
            let hello = PeerMessage::Hello(Hello {
                nonce: [9; 32],
                node: NodeId(2),
                process: 5,
            });
            let ours = link.say(&envelope(epoch), &hello).unwrap();
            link.hear().unwrap();
            let proof = PeerMessage::Proof(prove(SECRET, false, &theirs, &ours));
            link.say(&envelope(epoch), &proof).unwrap();
            link.hear().unwrap();
            let progress = Progress {
                standing: Standing::Leading,
                ..Progress::default()
            };
            link.say(&envelope(epoch), &PeerMessage::Progress(progress))
                .unwrap();
            let answer = PeerMessage::Fetched(PLACE, FetchOutcome::Otherwise, &[]);
            link.say(&envelope(epoch), &answer).unwrap();
        });
        (address, thread)
    }

    /// Goal: a log is cut on the word of who leads now, and of nobody who led before what this node knows of.
    #[test]
    fn who_led_before_is_no_reason_to_cut() {
        for (epoch, is_to_cut) in [(4, true), (3, true), (2, false)] {
            let (address, thread) = leader(epoch);
            let asker = Asker {
                envelope: envelope(0),
                node: NodeId(1),
                process: 6,
                secret: SECRET,
                peers: &[(NodeId(2), address)],
                committed: Epoch(3),
            };
            let found = asker.fetch(PLACE);
            assert_eq!(found == Found::Led(NodeId(2)), is_to_cut, "{found:?}");
            thread.join().unwrap();
        }
    }
}
