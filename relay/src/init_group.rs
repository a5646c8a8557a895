//! `relayd init-group`: makes the membership record of a stream, once, before its nodes run.

use std::path::PathBuf;
use std::time::Duration;

use relay_wire::id::{Epoch, NodeId};
use relay_wire::membership::{MEMBERS_MAX, Member, Members, Membership};

use crate::arbiter;
use crate::config::{Config, StreamConfig};
use crate::startup::StartError;
use crate::storage::Storage;

/// How long the arbiter is tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the command line says.
#[derive(Debug, clap::Args)]
pub(crate) struct InitGroupArguments {
    /// The configuration file of one of the group's nodes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The stream, where the file has several with a group
    #[arg(long, value_name = "ID")]
    stream: Option<u32>,
    /// The node that leads first; without it the one with the lowest number
    #[arg(long, value_name = "NODE")]
    primary: Option<u64>,
    /// A node and its disk, as `relayd format` and `relayd check` print them; once for each
    #[arg(long = "member", value_name = "NODE=INCARNATION", value_parser = parse_member)]
    members: Vec<Member>,
    /// A journal on this machine, whose node and disk are read from it; once for each
    #[arg(long = "journal", value_name = "DIRECTORY")]
    journals: Vec<PathBuf>,
}

fn parse_member(text: &str) -> Result<Member, String> {
    let parsed = text.split_once('=').and_then(|(node, incarnation)| {
        Some(Member {
            node: NodeId(node.parse().ok()?),
            incarnation: u64::from_str_radix(incarnation, 16).ok()?,
            process: 0,
        })
    });
    let member = parsed.filter(|member| member.node.get() > 0 && member.incarnation > 0);
    member.ok_or_else(|| {
        "a node's number, =, and the 16 hexadecimal digits that `relayd format` printed".to_owned()
    })
}

/// A disk's incarnation as it is printed, and given to `--member`.
pub(crate) fn incarnation_text(incarnation: u64) -> String {
    format!("{incarnation:016x}")
}

/// Makes the record; the line to print.
pub(crate) fn init_group(arguments: &InitGroupArguments) -> Result<String, StartError> {
    let config = Config::load(&arguments.config)?;
    let stream = stream_of(&config, arguments)?;
    let group = stream.group.as_ref().ok_or("that stream has no group")?;
    let mut members = arguments.members.clone();
    for directory in &arguments.journals {
        let storage = Storage::open(directory)?;
        let superblock = storage.superblock();
        if superblock.stream != stream.settings.stream {
            let directory = directory.display();
            let found = superblock.stream;
            return Err(format!("{directory}: this journal is stream {found}'s").into());
        }
        members.push(Member {
            node: superblock.node,
            incarnation: superblock.disk_incarnation,
            process: 0,
        });
    }
    check_members(stream, &members)?;
    let lowest = members.iter().map(|member| member.node).min();
    let primary = arguments.primary.map(NodeId).or(lowest);
    let primary = primary
        .filter(|primary| members.iter().any(|member| member.node == *primary))
        .ok_or("--primary names a node that is no member")?;
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce)?;
    let record = Membership {
        stream: stream.settings.stream,
        epoch: Epoch(1),
        nonce: u64::from_le_bytes(nonce),
        primary,
        members: Members::of(&members),
        min_copies: group.min_copies,
        policy: stream.settings.policy,
    };
    // A record of the node's own lies beside its journal, which nobody may be using.
    let is_manual = group.arbiter.is_manual();
    let _own = if is_manual {
        Some(Storage::open(&stream.directory)?)
    } else {
        None
    };
    if is_manual && primary != stream.settings.node {
        return Err(format!(
            "an operator is the arbiter, so the record is made on the node that leads first: run this on \
             node {primary}, with its configuration"
        )
        .into());
    }
    arbiter::init(&group.arbiter, &record, PATIENCE)?;
    let others = if is_manual {
        "; the others are told the record by this one"
    } else {
        ""
    };
    Ok(format!(
        "stream {}: made the membership record: primary node {primary}, {} members, min_copies {}. \
         Start the nodes in any order{others}",
        record.stream,
        members.len(),
        record.min_copies
    ))
}

fn stream_of<'a>(
    config: &'a Config,
    arguments: &InitGroupArguments,
) -> Result<&'a StreamConfig, StartError> {
    let mut streams = config.streams.iter().filter(|stream| {
        let id = stream.settings.stream.get();
        stream.group.is_some() && arguments.stream.is_none_or(|wanted| wanted == id)
    });
    match (streams.next(), streams.next()) {
        (Some(stream), None) => Ok(stream),
        (None, _) => Err("no such stream with a [stream.group] in that configuration".into()),
        (Some(_), Some(_)) => {
            Err("several streams have a group: say which with --stream ID".into())
        }
    }
}

/// The members are nodes of the group that may be counted on, each once.
fn check_members(stream: &StreamConfig, members: &[Member]) -> Result<(), StartError> {
    let group = stream.group.as_ref().expect("looked at before");
    let is_data_node = |node: NodeId| {
        let is_me = node == stream.settings.node && !group.is_observer;
        is_me
            || group
                .peers
                .iter()
                .any(|(peer, _)| peer.node == node && !peer.is_observer)
    };
    for (at, member) in members.iter().enumerate() {
        if !is_data_node(member.node) {
            return Err(format!(
                "node {} is none of the group's nodes, or an observer; see [stream.group]",
                member.node
            )
            .into());
        }
        if members[..at].iter().any(|other| other.node == member.node) {
            return Err(format!("node {} is given twice", member.node).into());
        }
    }
    let least = usize::from(group.min_copies);
    if !(least..=MEMBERS_MAX).contains(&members.len()) {
        return Err(format!(
            "{} members are given; min_copies asks for {least} or more. Give --member or --journal for \
             each node",
            members.len()
        )
        .into());
    }
    Ok(())
}
