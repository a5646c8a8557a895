//! What is looked for, as the command line says it, and whether a message is it.

use clap::Args;
use relay_client::wire::id::{Incarnation, PublisherId, PublisherSeq, Seq, TopicId};
use relay_client::wire::record::Record;
use relay_client::wire::topic::{check_pattern, matches};
use relay_journal::reader::side_index::Wanted;
use relay_journal::topics::Topics;

use crate::connect::decode_hex;
use crate::exit::Failure;
use crate::when::parse_utc_ns;

/// The options that say which messages are meant. All that are given must hold.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which messages")]
pub(crate) struct QueryOptions {
    /// With this seq; `A..B` from A to B
    #[arg(long, value_name = "SEQ")]
    seq: Option<String>,
    /// Of this publisher
    #[arg(long, value_name = "ID")]
    publisher: Option<u64>,
    /// With this publisher sequence, in every life of the publisher
    #[arg(long, value_name = "N", requires = "publisher")]
    publisher_seq: Option<u64>,
    /// Only in this life of the publisher
    #[arg(long, value_name = "N", requires = "publisher")]
    incarnation: Option<u64>,
    /// On these topics; `*` is any one level, `>` the rest
    #[arg(long, value_name = "PATTERN")]
    topic: Vec<String>,
    /// With this key, by its hash: a number, or 0x and hexadecimal digits
    #[arg(long, value_name = "HASH")]
    key: Option<String>,
    /// Received at this time or later, like 2026-01-05T09:30:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Received at this time or earlier
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Whose payload holds this text; every payload in range is read for it
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Whose payload holds these bytes, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with = "contains")]
    contains_hex: Option<String>,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) seqs: (Seq, Seq),
    pub(super) times_ns: (u64, u64),
    pub(super) publisher: Option<PublisherId>,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) publisher_seq: Option<PublisherSeq>,
    /// Patterns; none for every topic.
    pub(super) topics: Vec<String>,
    pub(super) key_hash: Option<u64>,
    pub(super) needle: Option<Vec<u8>>,
}

impl QueryOptions {
    /// Checks what was given. Something must be: a whole journal is listed elsewhere.
    pub(super) fn resolve(&self) -> Result<Query, Failure> {
        let query = self.checked().map_err(Failure::Usage)?;
        let is_empty = self.seq.is_none()
            && self.publisher.is_none()
            && self.topic.is_empty()
            && self.key.is_none()
            && self.from.is_none()
            && self.to.is_none()
            && query.needle.is_none();
        if is_empty {
            return Err(Failure::Usage(
                "say what to look for: --seq, --publisher, --topic, --key, --from, --to, --contains or --contains-hex"
                    .to_owned(),
            ));
        }
        Ok(query)
    }

    fn checked(&self) -> Result<Query, String> {
        let time = |text: &Option<String>, name: &str| {
            let parsed = text.as_deref().map(parse_utc_ns).transpose();
            parsed
                .map_err(|error| format!("{name} takes a time like 2026-01-05T09:30:00Z: {error}"))
        };
        let times_ns = (
            time(&self.from, "--from")?.unwrap_or(0),
            time(&self.to, "--to")?.unwrap_or(u64::MAX),
        );
        if times_ns.0 > times_ns.1 {
            return Err("--to is before --from".to_owned());
        }
        for pattern in &self.topic {
            check_pattern(pattern.as_bytes())
                .map_err(|error| format!("--topic {pattern}: {error}"))?;
        }
        let key_hash = self.key.as_deref().map(key).transpose()?;
        let needle = match (&self.contains, &self.contains_hex) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(digits)) => {
                let bytes = decode_hex(digits);
                Some(bytes.ok_or("--contains-hex takes an even number of hexadecimal digits")?)
            }
            (None, None) => None,
        };
        if needle.as_ref().is_some_and(Vec::is_empty) {
            return Err("every payload holds nothing: give --contains some text".to_owned());
        }
        Ok(Query {
            seqs: self
                .seq
                .as_deref()
                .map_or(Ok((Seq(1), Seq(u64::MAX))), seqs)?,
            times_ns,
            publisher: self.publisher.map(PublisherId),
            incarnation: self.incarnation.map(Incarnation),
            publisher_seq: self.publisher_seq.map(PublisherSeq),
            topics: self.topic.clone(),
            key_hash,
            needle,
        })
    }
}

/// One seq, or two with dots between.
fn seqs(text: &str) -> Result<(Seq, Seq), String> {
    let number = |digits: &str| match digits.parse() {
        Ok(seq) if seq > 0 => Ok(Seq(seq)),
        _ => Err(format!(
            "--seq takes a seq, from 1, or A..B; `{text}` is neither"
        )),
    };
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(format!("--seq {text} ends before it begins"));
    }
    Ok((first, last))
}

fn key(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(0) => Err("0 is the hash of no key".to_owned()),
        Ok(hash) => Ok(hash),
        Err(_) => Err(format!(
            "--key takes the key's hash, a number or 0x...; `{text}` is none"
        )),
    }
}

impl Query {
    /// The message with this seq.
    pub(super) const fn of_seq(seq: Seq) -> Self {
        Self {
            seqs: (seq, seq),
            times_ns: (0, u64::MAX),
            publisher: None,
            incarnation: None,
            publisher_seq: None,
            topics: Vec::new(),
            key_hash: None,
            needle: None,
        }
    }

    /// The ids of the topics that are meant; nothing for every topic.
    pub(super) fn topic_ids(&self, topics: &Topics) -> Option<Vec<TopicId>> {
        if self.topics.is_empty() {
            return None;
        }
        let named = topics.iter();
        let wanted = named.filter(|(_, name)| self.wants_topic(name));
        Some(wanted.map(|(id, _)| id).collect())
    }

    /// Whether a topic of this name is meant.
    pub(super) fn wants_topic(&self, name: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|pattern| matches(pattern, name))
    }

    /// What an index is asked.
    pub(super) const fn wanted<'a>(&self, topics: Option<&'a [TopicId]>) -> Wanted<'a> {
        Wanted {
            seqs: self.seqs,
            times_ns: self.times_ns,
            publisher: self.publisher,
            incarnation: self.incarnation,
            publisher_seq: self.publisher_seq,
            topics,
            key_hash: self.key_hash,
        }
    }

    /// Whether a message is one of those, whatever its topic.
    pub(super) fn matches(&self, record: &Record<'_>) -> bool {
        let time_ns = record.receive_time_ns();
        let is_in = |(first, last): (u64, u64), value: u64| first <= value && value <= last;
        record.is_data()
            && is_in((self.seqs.0.get(), self.seqs.1.get()), record.seq().get())
            && is_in(self.times_ns, time_ns)
            && self
                .publisher
                .is_none_or(|wanted| record.publisher() == wanted)
            && self
                .incarnation
                .is_none_or(|wanted| record.incarnation() == wanted)
            && self
                .publisher_seq
                .is_none_or(|wanted| record.publisher_seq() == wanted)
            && self
                .key_hash
                .is_none_or(|wanted| record.header().key_hash.get() == wanted)
            && self
                .needle
                .as_ref()
                .is_none_or(|needle| holds(record.payload(), needle))
    }

    /// Whether no later message can be one: seqs and receive times only grow.
    pub(super) fn is_past(&self, record: &Record<'_>) -> bool {
        record.is_data()
            && (record.seq() > self.seqs.1 || record.receive_time_ns() > self.times_ns.1)
    }
}

/// Whether `payload` holds `needle`, which is not empty.
fn holds(payload: &[u8], needle: &[u8]) -> bool {
    let (first, rest) = needle.split_first().expect("a needle is not empty");
    let mut from = 0;
    while let Some(at) = payload[from..].iter().position(|byte| byte == first) {
        let behind = &payload[from + at + 1..];
        if behind.len() < rest.len() {
            return false;
        }
        if behind.starts_with(rest) {
            return true;
        }
        from += at + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_understood_or_refused() {
        let parsed = |change: fn(&mut QueryOptions)| {
            let mut options = QueryOptions::default();
            change(&mut options);
            options.resolve()
        };
        let one = parsed(|options| options.seq = Some("7".into())).expect("a seq");
        assert_eq!(one.seqs, (Seq(7), Seq(7)));
        let range = parsed(|options| options.seq = Some("7..9".into())).expect("a range");
        assert_eq!(range.seqs, (Seq(7), Seq(9)));
        let key = parsed(|options| options.key = Some("0xff".into())).expect("a key");
        assert_eq!(key.key_hash, Some(255));
        let bytes = parsed(|options| options.contains_hex = Some("00ff".into())).expect("bytes");
        assert_eq!(bytes.needle, Some(vec![0, 255]));
        let refused: [fn(&mut QueryOptions); 8] = [
            |_| {},
            |options| options.seq = Some("0".into()),
            |options| options.seq = Some("9..7".into()),
            |options| options.key = Some("0".into()),
            |options| options.key = Some("x".into()),
            |options| options.contains = Some(String::new()),
            |options| options.from = Some("yesterday".into()),
            |options| options.topic = vec!["a..b".into()],
        ];
        for change in refused {
            assert!(matches!(parsed(change), Err(Failure::Usage(_))));
        }
    }

    #[test]
    fn a_needle_is_found_wherever_it_lies() {
        assert!(holds(b"aab", b"ab"));
        assert!(holds(b"xyz", b"z"));
        assert!(holds(b"xyz", b"xyz"));
        assert!(!holds(b"xy", b"xyz"));
        assert!(!holds(b"", b"a"));
    }
}
