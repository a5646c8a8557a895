//! What a node's counters say about its group: who leads, which copies count, how far each of them is.

use serde::Serialize;

use crate::counters::Counters;
use crate::output::thousands;
use crate::publish::utc_ns;

/// A node's own view of its group.
#[derive(Debug, Serialize)]
pub(super) struct GroupStatus {
    role: &'static str,
    epoch: u64,
    /// 0 while it is not known.
    primary: u64,
    members: u64,
    min_copies: u64,
    promised: u64,
    is_changing: bool,
    is_tail_unknown: bool,
    /// What keeps it from leading, where no primary is heard and somebody has to help.
    waits_for: Option<&'static str>,
    takeovers: u64,
    /// `None` before the first answer.
    arbiter_heard_ms_ago: Option<u64>,
    appended: u64,
    durable: u64,
    released: u64,
    peers: Vec<PeerStatus>,
}

#[derive(Debug, Serialize)]
struct PeerStatus {
    node: u64,
    role: &'static str,
    is_connected: bool,
    is_in_sync: bool,
    durable: u64,
    /// What the primary counts of it; 0 as a follower sees it.
    mirrored: u64,
    lag_bytes: u64,
    mismatches: u64,
}

/// A role by the number a node exports; `seeks` is one that has no primary yet, or none any more.
fn role(number: u64) -> &'static str {
    match number {
        1 => "follows",
        2 => "leads",
        _ => "seeks",
    }
}

/// What is waited for, by the number a node exports.
fn waits_for(number: u64) -> Option<&'static str> {
    match number {
        0 => None,
        1 => Some(
            "no primary is heard: bring it back; or see that it is off, and say `relay promote --dir DIR` on the node \
             that is to lead",
        ),
        2 => Some(
            "it does not lead: its log ends before what is known to be released; bring a node back that holds \
             everything, or accept the loss with `relay promote --dir DIR --accept-loss NODE`, NODE being this one",
        ),
        3 => Some(
            "no primary is heard, and this copy may lack what was released since it was in sync: start the nodes that \
             were in sync last, or accept the loss with `relay promote --dir DIR --accept-loss NODE`, NODE being this one",
        ),
        4 => Some(
            "it does not lead: damage was cut from the end of its log, and no other member has answered for what lay there; \
             bring one back with the disk it had, or accept the loss with `relay promote --dir DIR --accept-loss NODE`, NODE \
             being this one",
        ),
        _ => Some("it does not lead; see its log"),
    }
}

impl GroupStatus {
    /// What the counters say; `None` for a node without a group.
    pub(super) fn of(counters: &Counters) -> Option<Self> {
        let standing = counters.value("group.standing")?;
        let value = |label: &str| counters.value(label).unwrap_or(0);
        let heard_ns = value("group.arbiter_heard_ns");
        let ago_ns = utc_ns().saturating_sub(heard_ns);
        Some(Self {
            role: role(standing),
            epoch: value("group.epoch"),
            primary: value("group.primary"),
            members: value("group.members"),
            min_copies: value("group.min_copies"),
            promised: value("group.promised"),
            is_changing: value("group.is_changing") != 0,
            is_tail_unknown: value("group.is_tail_unknown") != 0,
            waits_for: waits_for(value("group.obstacle")),
            takeovers: value("group.takeovers"),
            arbiter_heard_ms_ago: (heard_ns > 0).then_some(ago_ns / 1_000_000),
            appended: value("position.appended"),
            durable: value("position.durable"),
            released: value("position.released"),
            peers: peers(counters),
        })
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let leader = match (self.role, self.primary) {
            ("leads", _) => format!("leads epoch {}", self.epoch),
            (role, 0) => format!("{role}; no primary is known"),
            ("follows", primary) => format!("follows node {primary} in epoch {}", self.epoch),
            (role, primary) => format!("{role}; node {primary} led last"),
        };
        let heard = self.arbiter_heard_ms_ago.map_or_else(
            || "the arbiter was not heard yet".to_owned(),
            |ms| format!("the arbiter was last heard {} ms ago", thousands(ms)),
        );
        let mut lines = vec![format!(
            "  {leader}; {} in sync, {} needed; {heard}",
            self.members, self.min_copies
        )];
        if self.is_changing {
            lines.push("  a change of the in-sync set is not settled yet".to_owned());
        }
        if let Some(what) = self.waits_for {
            lines.push(format!("  {what}"));
        }
        if self.is_tail_unknown {
            let what =
                "  damage was cut at a start: it leads only once another member has answered";
            lines.push(what.to_owned());
        }
        lines.push(format!(
            "    {:<36} {:>20} {:>20} {:>20}",
            "positions", "appended", "durable", "released"
        ));
        lines.push(format!(
            "    {:<36} {:>20} {:>20} {:>20}",
            "this node",
            thousands(self.appended),
            thousands(self.durable),
            thousands(self.released)
        ));
        for peer in &self.peers {
            let what = match (peer.is_connected, peer.is_in_sync) {
                (false, _) => "NOT CONNECTED".to_owned(),
                (true, true) => format!("{}, in sync", peer.role),
                (true, false) => format!("{}, not in sync", peer.role),
            };
            lines.push(format!(
                "    {:<36} {:>20} {:>20} {:>20}",
                format!("node {}: {what}", peer.node),
                format!("{} behind", thousands(peer.lag_bytes)),
                thousands(peer.durable),
                format!("{} mirrored", thousands(peer.mirrored)),
            ));
        }
        lines
    }
}

/// Whether a counter is told by a group's lines.
pub(super) fn is_told(label: &str) -> bool {
    ["group.", "peer."]
        .iter()
        .any(|front| label.starts_with(front))
}

fn peers(counters: &Counters) -> Vec<PeerStatus> {
    let nodes = counters.values.iter().filter_map(|(label, _)| {
        let node = label.strip_prefix("peer.")?.strip_suffix(".is_member")?;
        node.parse().ok()
    });
    nodes
        .map(|node: u64| {
            let value = |what: &str| counters.value(&format!("peer.{node}.{what}")).unwrap_or(0);
            PeerStatus {
                node,
                role: role(value("standing")),
                is_connected: value("is_connected") != 0,
                is_in_sync: value("is_member") != 0,
                durable: value("durable"),
                mirrored: value("mirrored"),
                lag_bytes: value("lag_bytes"),
                mismatches: value("mismatches"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(values: &[(&str, u64)]) -> Counters {
        Counters {
            pid: 1,
            node: 1,
            stream: 1,
            started_ns: 1,
            values: values
                .iter()
                .map(|&(label, value)| (label.to_owned(), value))
                .collect(),
        }
    }

    #[test]
    fn a_group_is_told_where_there_is_one() {
        assert!(GroupStatus::of(&reading(&[("position.appended", 1)])).is_none());
        let group = GroupStatus::of(&reading(&[
            ("group.standing", 2),
            ("group.epoch", 5),
            ("group.members", 2),
            ("group.min_copies", 1),
            ("peer.2.is_connected", 1),
            ("peer.2.is_member", 1),
            ("peer.2.standing", 1),
            ("peer.2.lag_bytes", 4_096),
        ]))
        .unwrap();
        assert_eq!((group.role, group.peers[0].node), ("leads", 2));
        let lines = group.lines();
        assert!(
            lines[0].contains("leads epoch 5; 2 in sync, 1 needed"),
            "{lines:?}"
        );
        let peer = lines.last().unwrap();
        assert!(peer.contains("node 2: follows, in sync"), "{peer}");
        assert!(peer.contains("4,096 behind"), "{peer}");
    }
}
