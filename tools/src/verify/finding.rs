//! What an audit finds, and what that makes of a journal: clean, damaged, tampered with or incomplete.

use relay_client::wire::id::Position;
use relay_journal::segment::{self, Geometry};
use serde::{Deserialize, Serialize};

/// Most findings that are told one by one; all are counted.
pub(crate) const FINDINGS_MAX: usize = 1_000;

/// The verdict, in the order of gravity.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// Nothing was found wrong.
    #[default]
    Clean,
    /// What is there is right, but something that should be there is not.
    Incomplete,
    /// Bytes are not what was written, or a rule of the log is broken.
    Damaged,
    /// What fits in itself is not what was sealed or what another copy holds: it was changed on purpose.
    Tampered,
}

impl Status {
    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Incomplete => "incomplete",
            Self::Damaged => "damaged",
            Self::Tampered => "tampered",
        }
    }
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The superblock says nothing that can be relied on.
    Superblock,
    /// No intact block lies where one is due, or it does not continue the log.
    Block,
    /// A record's own checksum, which is its publisher's, does not fit.
    Record,
    /// An intact block breaks a rule of the log: seqs, publisher sequences, topics, epochs.
    Rule,
    /// A seal, key or cut that is not well signed, does not follow the one before, or says something untrue.
    Seal,
    /// An entry of the file of seals is damaged.
    SealEntry,
    /// A full segment has no seal, or there are none.
    MissingSeal,
    /// The clock went back further than is allowed.
    Clock,
    /// The system could not read it.
    Unreadable,
    /// Two journals hold different things, and one of them is damaged there.
    Difference,
    /// What fits in itself is not what was sealed, or not what another journal holds.
    Rewritten,
    /// A segment is not there, or not as long as it must be.
    MissingSegment,
    /// The journal does not reach what was released.
    Behind,
}

impl Kind {
    /// What a finding of this kind makes of the whole.
    pub(crate) const fn status(self) -> Status {
        match self {
            Self::Superblock
            | Self::Block
            | Self::Record
            | Self::Rule
            | Self::SealEntry
            | Self::Clock
            | Self::Unreadable
            | Self::Difference => Status::Damaged,
            Self::Rewritten | Self::Seal => Status::Tampered,
            Self::MissingSegment | Self::MissingSeal | Self::Behind => Status::Incomplete,
        }
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// The verdict it leads to by itself.
    pub(crate) status: Status,
    /// What kind it is of.
    pub(crate) kind: Kind,
    /// The directory.
    pub(crate) journal: String,
    /// Where in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<u64>,
    /// The segment file that is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<String>,
    /// Where in that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    /// The message concerned, or the next one due there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    /// The field concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    /// What it is, for people.
    pub(crate) text: String,
}

impl Finding {
    /// A finding about a journal as a whole.
    pub(crate) fn new(kind: Kind, journal: &str, text: impl Into<String>) -> Self {
        Self {
            status: kind.status(),
            kind,
            journal: journal.to_owned(),
            position: None,
            segment: None,
            offset: None,
            seq: None,
            field: None,
            text: text.into(),
        }
    }

    /// The same, at a place of the log.
    pub(crate) fn at(mut self, geometry: Geometry, position: Position) -> Self {
        self.position = Some(position.get());
        self.segment = Some(segment::name(geometry.segment_of(position)));
        self.offset = Some(geometry.offset_of(position));
        self
    }

    /// The same, about a message.
    pub(crate) const fn of_seq(mut self, seq: u64) -> Self {
        self.seq = Some(seq);
        self
    }

    /// Place and text, on one line.
    pub(crate) fn line(&self) -> String {
        let mut place = String::new();
        if let Some(position) = self.position {
            place.push_str(&format!("position {position}"));
        }
        if let (Some(segment), Some(offset)) = (&self.segment, self.offset) {
            place.push_str(&format!(" (segment {segment}, offset {offset})"));
        }
        if let Some(seq) = self.seq {
            place.push_str(&format!(", seq {seq}"));
        }
        if let Some(field) = &self.field {
            place.push_str(&format!(", {field}"));
        }
        let between = if place.is_empty() { "" } else { ": " };
        format!("{place}{between}{}", self.text)
    }
}

/// Findings as they come in; bounded.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// The first [`FINDINGS_MAX`].
    pub(crate) list: Vec<Finding>,
    /// How many there are in all.
    pub(crate) count: u64,
    /// The gravest.
    pub(crate) status: Status,
}

impl Findings {
    /// Takes one in.
    pub(crate) fn add(&mut self, finding: Finding) {
        self.count += 1;
        self.status = self.status.max(finding.status);
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_decides_and_memory_is_bounded() {
        let mut findings = Findings::default();
        assert_eq!(findings.status, Status::Clean);
        findings.add(Finding::new(Kind::MissingSegment, "a", "x"));
        assert_eq!(findings.status, Status::Incomplete);
        findings.add(Finding::new(Kind::Rewritten, "a", "y"));
        for _ in 0..2 * FINDINGS_MAX {
            findings.add(Finding::new(Kind::Block, "a", "z"));
        }
        assert_eq!(findings.status, Status::Tampered);
        assert_eq!(findings.list.len(), FINDINGS_MAX);
        assert_eq!(findings.count, 2 * FINDINGS_MAX as u64 + 2);
    }

    #[test]
    fn a_line_says_where_and_what() {
        let geometry = Geometry::new(1 << 20, 4096).expect("in range");
        let found = Finding::new(Kind::Block, "a", "a damaged block header")
            .at(geometry, Position((1 << 20) + 4096))
            .of_seq(9);
        assert_eq!(
            found.line(),
            "position 1052672 (segment 0000000000000001, offset 4096), seq 9: a damaged block header"
        );
    }
}
