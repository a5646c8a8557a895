//! Published against received, hash by hash: what is lost, duplicated, reordered or altered.
//!
//! The same judgement as `scripts/compare_hashes.py`, for where there is no Python; the script is the one that proves
//! something, since it shares nothing with the product. Equal messages are told apart by how often they occurred: the
//! n-th occurrence received is the n-th published.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// What one subscriber received, beside what was published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) altered: u64,
    /// Seqs that do not follow the one before.
    pub(crate) seq_breaks: u64,
}

/// The result of a comparison, as the script prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) published: u64,
    pub(crate) subscribers: Vec<Difference>,
}

/// Compares the file of a publisher with those of subscribers.
pub(crate) fn compare_files(published: &Path, received: &[&Path]) -> Result<Comparison, Failure> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| Failure::file("reading", path, &error))
    };
    let published = read(published)?;
    let published: Vec<_> = published.lines().collect();
    let mut subscribers = Vec::new();
    for path in received {
        subscribers.push(compare(&published, &read(path)?));
    }
    Ok(Comparison {
        published: published.len() as u64,
        subscribers,
    })
}

fn compare(published: &[&str], received: &str) -> Difference {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, line) in published.iter().enumerate() {
        places.entry(line).or_default().push(place);
    }
    let mut taken: HashMap<&str, usize> = HashMap::new();
    let mut found = Difference::default();
    let mut order = Vec::new();
    let mut last_seq = None;
    for line in received.lines() {
        found.received += 1;
        let (seq, message) = line.split_once(' ').unwrap_or(("", line));
        let seq = seq.parse::<u64>().ok();
        let follows = match (last_seq, seq) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(last), Some(seq)) => seq == last + 1,
        };
        found.seq_breaks += u64::from(!follows);
        last_seq = seq.or(last_seq);
        let Some(places) = places.get(message) else {
            found.altered += 1;
            continue;
        };
        let taken = taken.entry(message).or_default();
        match places.get(*taken) {
            Some(&place) => order.push(place),
            None => found.duplicated += 1,
        }
        *taken += 1;
    }
    let missing = (published.len() - order.len()) as u64;
    // What was altered is missing in its true form too; it is counted once.
    found.lost = missing.saturating_sub(found.altered);
    found.reordered = (order.len() - longest_rise(&order)) as u64;
    found
}

/// Length of the longest rising subsequence: what is not in it is out of order.
fn longest_rise(order: &[usize]) -> usize {
    let mut ends: Vec<usize> = Vec::new();
    for &place in order {
        let at = ends.partition_point(|&end| end < place);
        if at == ends.len() {
            ends.push(place);
        } else {
            ends[at] = place;
        }
    }
    ends.len()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const PUBLISHED: &str = "a t\nb t\na t\nc t\nd t\n";

    /// What each file of received lines must be judged as, in the fields' order.
    const CASES: [(&str, [u64; 6]); 8] = [
        ("1 a t\n2 b t\n3 a t\n4 c t\n5 d t\n", [5, 0, 0, 0, 0, 0]),
        ("1 a t\n2 b t\n4 c t\n5 d t\n", [4, 1, 0, 0, 0, 1]),
        (
            "1 a t\n2 b t\n2 b t\n3 a t\n4 c t\n5 d t\n",
            [6, 0, 1, 0, 0, 1],
        ),
        ("1 a t\n2 a t\n3 b t\n4 c t\n5 d t\n", [5, 0, 0, 1, 0, 0]),
        ("1 a t\n2 X t\n3 a t\n4 c t\n5 d t\n", [5, 0, 0, 0, 1, 0]),
        ("1 a t\n2 b u\n3 a t\n4 c t\n5 d t\n", [5, 0, 0, 0, 1, 0]),
        ("", [0, 5, 0, 0, 0, 0]),
        ("x\n", [1, 4, 0, 0, 1, 1]),
    ];

    fn difference(values: [u64; 6]) -> Difference {
        let [received, lost, duplicated, reordered, altered, seq_breaks] = values;
        Difference {
            received,
            lost,
            duplicated,
            reordered,
            altered,
            seq_breaks,
        }
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let published: Vec<_> = PUBLISHED.lines().collect();
        for (received, expected) in CASES {
            assert_eq!(
                compare(&published, received),
                difference(expected),
                "{received:?}"
            );
        }
    }

    /// The script must judge as this module does; without Python there is nothing to compare.
    #[test]
    fn the_script_judges_alike() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/compare_hashes.py");
        if Command::new("python3").arg("--version").output().is_err() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let published = directory.path().join("published");
        let received = directory.path().join("received");
        fs::write(&published, PUBLISHED).expect("written");
        for (lines, expected) in CASES {
            fs::write(&received, lines).expect("written");
            let output = Command::new("python3")
                .args([&script, &published, &received])
                .output()
                .expect("python runs");
            let comparison: Comparison =
                serde_json::from_slice(&output.stdout).expect("the script prints one object");
            assert_eq!(comparison.published, 5);
            assert_eq!(comparison.subscribers, [difference(expected)], "{lines:?}");
            let is_same = expected[1..].iter().all(|&count| count == 0);
            assert_eq!(
                output.status.code(),
                Some(if is_same { 0 } else { 3 }),
                "{lines:?}"
            );
        }
    }
}
