//! A way through the states in words.

use core::fmt::Write as _;

use relay_core::arbiter::{ArbiterAnswer, Ask};
use relay_wire::membership::Membership;
use relay_wire::peer::PeerMessage;

use crate::action::Action;
use crate::store::Store;
use crate::world::World;

/// An action with what it is about in this state.
pub(crate) fn describe(store: &Store, world: &World, action: Action) -> String {
    let node = |at: u8| at + 1;
    let ask = |at: u8| {
        let machine = store.machines.get(world.machines[usize::from(at)]);
        machine
            .ask
            .map_or_else(String::new, |request| of_ask(&request.ask))
    };
    match action {
        Action::Hear(from, to) => {
            let message = world.next_message(from.into(), to.into());
            let what = message.map(|number| of_message(&store.messages.get(number).bytes));
            format!(
                "node {} hears from {}: {}",
                node(to),
                node(from),
                what.unwrap_or_default()
            )
        }
        Action::Lost(at, peer) => {
            format!("node {} hears that node {} is gone", node(at), node(peer))
        }
        Action::Close(at, peer) => {
            format!(
                "the connection of node {} to {} breaks",
                node(at),
                node(peer)
            )
        }
        Action::Connect(a, b) => format!("nodes {} and {} connect", node(a), node(b)),
        Action::Write(at, place) => {
            let machine = store.machines.get(world.machines[usize::from(at)]);
            let position = machine
                .writes
                .get(usize::from(place))
                .map(|write| write.position);
            let position = position.unwrap_or_default();
            format!("node {} has written its block at {position}", node(at))
        }
        Action::Vote(at) => {
            let machine = store.machines.get(world.machines[usize::from(at)]);
            let vote = machine.vote.unwrap_or_default();
            format!(
                "node {} has stored its vote: promised {}, committed {}",
                node(at),
                vote.promised,
                vote.committed
            )
        }
        Action::Rebuild(at) => format!("node {} begins again from its disk", node(at)),
        Action::Carry(at) => format!("the arbiter carries out for node {}: {}", node(at), ask(at)),
        Action::Answer(at) => {
            let answer = store.answers.get(world.answers[usize::from(at)]);
            format!(
                "node {} hears the arbiter: {}",
                node(at),
                of_answer(&answer)
            )
        }
        Action::Lose(at) => format!("node {} never hears; dropped: {}", node(at), ask(at)),
        Action::Late(at) => format!("node {} gives up; may land later: {}", node(at), ask(at)),
        Action::Forget(at) => format!("node {} never hears; was done: {}", node(at), ask(at)),
        Action::Refuse(at) => format!("node {} can't reach the arbiter: {}", node(at), ask(at)),
        Action::Land(place) => format!("the late request {} lands", place + 1),
        Action::Publish(at) => format!("the publisher sends a message to node {}", node(at)),
        Action::Beat(at) => format!("half a second passes at node {}", node(at)),
        Action::Lapse(at) => format!("two seconds pass at node {}", node(at)),
        Action::Crash(at, _) => format!("node {} crashes", node(at)),
        Action::Start(at) => format!("node {} starts", node(at)),
        Action::Rot(at, _) => format!("the last block of node {} rots", node(at)),
        Action::Blank(at) => format!("node {} gets a blank disk", node(at)),
        Action::HandOver(at) => format!("node {} is to hand over", node(at)),
    }
}

fn of_record(record: &Membership) -> String {
    let members = record.members.as_slice().iter();
    let members: Vec<String> = members
        .map(|member| format!("{}:{}", member.node, member.incarnation))
        .collect();
    format!(
        "epoch {}, node {} leads {}",
        record.epoch,
        record.primary,
        members.join(" ")
    )
}

fn of_ask(ask: &Ask) -> String {
    match ask {
        Ask::Read => "read".to_owned(),
        Ask::Swap { base, next, .. } => {
            format!("swap of revision {} to {}", base.0, of_record(next))
        }
        Ask::Floor { floor, .. } => format!("floor {}", floor.position),
    }
}

fn of_answer(answer: &ArbiterAnswer) -> String {
    match answer {
        ArbiterAnswer::Read(Some(registers)) => of_record(&registers.membership),
        ArbiterAnswer::Refused(Some(registers)) => {
            format!("refused, {}", of_record(&registers.membership))
        }
        ArbiterAnswer::Done(revision) => format!("done, revision {}", revision.0),
        other => format!("{other:?}"),
    }
}

fn of_message(bytes: &[u8]) -> String {
    let Ok((envelope, message)) = PeerMessage::decode(bytes) else {
        return "something that is no message".to_owned();
    };
    let what = match message {
        PeerMessage::Progress(progress) => format!(
            "{:?}, durable {}, received {}, released {}, promised {}, committed {}, joins {}{}",
            progress.standing,
            progress.durable,
            progress.received,
            progress.released,
            progress.promised,
            progress.committed,
            progress.lowest_join,
            if progress.is_tail_unknown {
                ", tail unknown"
            } else {
                ""
            }
        ),
        PeerMessage::Open(record) => format!("OPEN {}", of_record(&record)),
        PeerMessage::History(history) => {
            let entries: Vec<String> = history
                .entries()
                .map(|entry| format!("{}@{}", entry.epoch, entry.start))
                .collect();
            format!("HISTORY {} to {}", entries.join(" "), history.tail)
        }
        PeerMessage::From(position) => format!("FROM {position}"),
        PeerMessage::Block(block) => match relay_journal::block::decode_header(block) {
            Ok(header) => format!(
                "BLOCK at {}, {:?}, epoch {}, released {}",
                header.position, header.kind, header.epoch, header.released
            ),
            Err(error) => format!("a damaged block: {error}"),
        },
        PeerMessage::AskEnd(epoch) => format!("ASK_END {epoch}"),
        PeerMessage::Fetch(place) => format!("FETCH {}", place.position),
        PeerMessage::Fetched(place, outcome, _) => {
            format!("FETCHED {}: {outcome:?}", place.position)
        }
        PeerMessage::HandOver => "HAND_OVER".to_owned(),
        PeerMessage::Hello(_) => "HELLO".to_owned(),
        PeerMessage::Proof(_) => "PROOF".to_owned(),
    };
    format!("[{}] {what}", envelope.epoch)
}

/// How a group stands.
pub(crate) fn describe_world(store: &Store, world: &World) -> String {
    let registers = world.registers_in(store);
    let mut text = format!(
        "arbiter: revision {}, {}\n",
        registers.revision.0,
        of_record(&registers.membership)
    );
    let history = store.histories.get(world.history);
    let _ = writeln!(
        text,
        "released up to {}, acknowledged {}",
        history.ledger.end(),
        history.acknowledged()
    );
    for at in 0..store.bounds.nodes {
        let machine = store.machines.get(world.machines[at]);
        let _ = write!(text, "node {}: disk to {}", at + 1, machine.disk.end());
        match &machine.node {
            None => {
                let _ = writeln!(text, ", stopped, {:?}", machine.halt);
            }
            Some(node) => {
                let status = node.status();
                let _ = writeln!(
                    text,
                    ", {:?} in {}, appended {}, durable {}, released {}, {:?}{}{}",
                    status.standing,
                    status.epoch,
                    status.appended.point.position,
                    status.durable.point.position,
                    status.released.point.position,
                    status.vote,
                    if machine.is_serving { ", serves" } else { "" },
                    if machine.restart.is_some() {
                        ", begins again"
                    } else {
                        ""
                    },
                );
            }
        }
    }
    text
}
