//! Which of the recorded messages: from where to where, of which topics, publishers and keys.

use std::str::FromStr;

use clap::Args;
use relay_client::wire::record::Record;
use relay_client::wire::topic;

use crate::exit::Failure;
use crate::when::parse_utc_ns;

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The first message there is.
    Start,
    /// The last one released when the command began.
    End,
    /// A seq, from 1.
    Seq(u64),
    /// A receive time, ns UTC.
    Time(u64),
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let seq = text.parse().ok().filter(|&seq| seq > 0 && seq < u64::MAX);
                let seq = seq.ok_or_else(|| format!("`{text}` is no seq; they start at 1"))?;
                Ok(Self::Seq(seq))
            }
            _ => parse_utc_ns(text).map(Self::Time).map_err(|error| {
                format!(
                    "`{text}` is none of: start, end, a seq, a time like 2026-01-05T09:30:00Z \
                     ({error})"
                )
            }),
        }
    }
}

/// The hash of a key, as records carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

impl FromStr for KeyHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.map(Self).map_err(|_| {
            format!(
                "`{text}` is no key hash; records carry a number, give it in decimal or as 0x..."
            )
        })
    }
}

/// The selection, on the command line.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct SelectionOptions {
    /// The first to take: a seq, a receive time as 2026-01-05T09:30:00Z, start or end
    #[arg(long, value_name = "WHERE", default_value = "start")]
    from: Bound,
    /// The last to take, itself included: a seq, a receive time, or end
    #[arg(long, value_name = "WHERE", default_value = "end")]
    to: Bound,
    /// Topics to take, repeatable; `*` is any one level, `>` the rest
    #[arg(long, value_name = "PATTERN", default_value = ">")]
    topic: Vec<String>,
    /// Only what this publisher sent, repeatable
    #[arg(long, value_name = "ID")]
    publisher: Vec<u64>,
    /// Only what has this key hash, repeatable; decimal, or hexadecimal with 0x
    #[arg(long, value_name = "HASH")]
    key: Vec<KeyHash>,
}

/// The selection, checked.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) from: Bound,
    pub(crate) to: Bound,
    pub(crate) patterns: Vec<String>,
    publishers: Vec<u64>,
    keys: Vec<KeyHash>,
}

impl SelectionOptions {
    /// Whether it leaves out what lies before or behind.
    pub(crate) const fn is_part(&self) -> bool {
        !matches!((self.from, self.to), (Bound::Start, Bound::End))
    }

    /// Refuses what selects nothing by itself.
    pub(crate) fn check(&self) -> Result<Selection, Failure> {
        for pattern in &self.topic {
            topic::check_pattern(pattern.as_bytes())
                .map_err(|error| Failure::Usage(format!("--topic {pattern}: {error}")))?;
        }
        let is_backwards = match (self.from, self.to) {
            (_, Bound::Start) => true,
            (Bound::Seq(from), Bound::Seq(to)) => from > to,
            (Bound::Time(from), Bound::Time(to)) => from > to,
            _ => false,
        };
        if is_backwards {
            let text =
                "the range ends before it begins; --to is the last to take, --from the first";
            return Err(Failure::Usage(text.into()));
        }
        Ok(Selection {
            from: self.from,
            to: self.to,
            patterns: self.topic.clone(),
            publishers: self.publisher.clone(),
            keys: self.key.clone(),
        })
    }
}

impl Selection {
    /// Whether messages of this topic are wanted.
    pub(crate) fn wants_topic(&self, name: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| topic::matches(pattern, name))
    }

    /// Whether a record of a wanted topic is wanted itself. The range is not looked at.
    pub(crate) fn wants(&self, record: &Record<'_>) -> bool {
        let publisher = record.publisher().get();
        let key = KeyHash(record.header().key_hash.get());
        (self.publishers.is_empty() || self.publishers.contains(&publisher))
            && (self.keys.is_empty() || self.keys.contains(&key))
    }

    /// Whether a record lies behind the range's end, as everything after it does.
    pub(crate) fn is_past(&self, record: &Record<'_>) -> bool {
        match self.to {
            Bound::Seq(seq) => record.seq().get() > seq,
            Bound::Time(time_ns) => record.receive_time_ns() > time_ns,
            Bound::Start | Bound::End => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        selection: SelectionOptions,
    }

    fn check(line: &[&str]) -> Result<Selection, String> {
        let line = Line::try_parse_from([&["x"], line].concat()).map_err(|e| e.to_string())?;
        line.selection.check().map_err(|error| error.to_string())
    }

    #[test]
    fn bounds_are_start_end_a_seq_or_a_time() {
        assert_eq!("start".parse(), Ok(Bound::Start));
        assert_eq!("end".parse(), Ok(Bound::End));
        assert_eq!("12".parse(), Ok(Bound::Seq(12)));
        let time = Bound::Time(1_767_605_400_000_000_000);
        assert_eq!("2026-01-05T09:30:00Z".parse(), Ok(time));
        for bad in ["", "0", "-1", "now", "99999999999999999999", "2026-01-05"] {
            assert!(bad.parse::<Bound>().is_err(), "{bad}");
        }
        assert_eq!("0xff".parse(), Ok(KeyHash(255)));
        assert_eq!("255".parse(), Ok(KeyHash(255)));
        assert!("key".parse::<KeyHash>().is_err());
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        assert!(check(&[]).is_ok());
        assert!(check(&["--from", "5", "--to", "5"]).is_ok());
        for bad in [
            &["--from", "5", "--to", "4"][..],
            &["--to", "start"],
            &[
                "--from",
                "2026-01-05T09:30:01Z",
                "--to",
                "2026-01-05T09:30:00Z",
            ],
            &["--topic", "a..b"],
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn topics_are_matched_by_any_pattern() {
        let selection = check(&["--topic", "a.*", "--topic", "b"]).expect("good");
        assert!(selection.wants_topic("a.x") && selection.wants_topic("b"));
        assert!(!selection.wants_topic("a") && !selection.wants_topic("b.c"));
    }
}
