//! Goal: seals say what segments hold and nothing else passes for them; keys are followed from the first; and the file of seals
//! survives a crash at any byte. Method: logs built in memory are laid out as a journal's directory and sealed with fixed keys;
//! then entries are taken out, put in, moved, signed by others, or cut. What is changed byte by byte is in `seal_changes.rs`.

mod sealed;

use std::fs;

use proptest::prelude::*;
use relay_journal::reader::seals::{EntryProblem, SealFinding, SealOutcome, Signed, Tampering};
use relay_journal::scan::{Front, Link};
use relay_journal::seal::{
    Chain, ChainError, Digest, ENTRY_LENGTH, Entry, EntryError, FILE_NAME, FileErrorKind, KeyId,
    PublicKey, Said, SegmentSum, Statement, read_file,
};
use relay_wire::checksum::crc32c;
use relay_wire::id::{Epoch, Position, Seq, StreamId};
use sealed::log::{LogBuilder, Random, STREAM, superblock};
use sealed::{Journal, SEGMENT, bytes_of, first_key, key};

#[test]
fn an_untouched_journal_is_intact() {
    let journal = Journal::sealed(5);
    let checked = journal.check_1();
    assert!(checked.is_faultless(), "{:?}", checked.reports);
    assert_eq!(checked.reports.len() as u64, journal.whole_segments());
    assert_eq!(checked.file.sealed_end, journal.released());
    assert!(checked.file.is_pinned && checked.file.is_present);
    let sealed = journal.log.writes.iter();
    let sealed = sealed.filter(|write| write.header.position < journal.released());
    assert_eq!(checked.blocks, sealed.clone().count() as u64);
    // Seals say what the blocks say.
    let records: u64 = sealed
        .map(|write| u64::from(write.header.record_count))
        .sum();
    let statements = journal.statements();
    assert_eq!(
        statements.iter().map(|s| s.record_count).sum::<u64>(),
        records
    );
    assert_eq!(statements[0].first_seq, Seq(1));
    for pair in statements.windows(2) {
        assert_eq!(pair[1].first_seq, Seq(pair[0].last_seq.get() + 1));
        assert_eq!(pair[1].previous, pair[0].hash());
    }
}

/// So that an auditor needs no tool of ours for it.
#[test]
fn a_root_is_the_hash_of_the_file() {
    let journal = Journal::sealed(3);
    for statement in journal.statements() {
        let bytes = fs::read(journal.segment(statement.segment)).expect("it is there");
        assert_eq!(statement.root.0, *blake3::hash(&bytes).as_bytes());
    }
}

/// The layout of `FORMAT.md` section 8, byte for byte.
#[test]
fn an_entry_lies_as_it_is_described() {
    let statement = Statement {
        stream: StreamId(7),
        segment: 3,
        start: Position(3 * SEGMENT),
        end: Position(4 * SEGMENT),
        first_seq: Seq(11),
        last_seq: Seq(22),
        record_count: 13,
        next_block_number: 99,
        epoch: Epoch(5),
        log_checksum: 0x0102_0304,
        previous: Digest([0xaa; 32]),
        root: Digest([0xbb; 32]),
    };
    let signer = key(1);
    let entry = Entry::sign(Said::Seal(statement), STREAM, 77, &signer);
    let mut expected = Vec::new();
    expected.extend(b"RELAYSEL");
    expected.extend(1_u16.to_le_bytes());
    expected.extend([1, 0]);
    expected.extend(7_u32.to_le_bytes());
    for number in [3, 3 * SEGMENT, 4 * SEGMENT, 11, 22, 13, 99, 5] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(0x0102_0304_u32.to_le_bytes());
    expected.extend([0; 12]);
    expected.extend([0xaa; 32]);
    expected.extend([0xbb; 32]);
    assert_eq!(statement.hash().0, *blake3::hash(&expected).as_bytes());
    expected.extend(77_u64.to_le_bytes());
    expected.extend(&blake3::hash(&signer.public().0).as_bytes()[..8]);
    expected.extend(entry.signature);
    expected.extend([0; 12]);
    expected.extend(crc32c(&expected).to_le_bytes());
    assert_eq!(entry.encode(), expected[..]);
    assert_eq!(Entry::decode(&expected), Ok(entry));
    assert!(entry.is_signed_by(&signer.public()));
    assert!(!entry.is_signed_by(&key(2).public()));

    let named = Said::Key {
        segment: 3,
        previous: Digest([0xaa; 32]),
        key: key(2).public(),
    };
    let bytes = Entry::sign(named, STREAM, 77, &signer).encode();
    assert_eq!((bytes[10], &bytes[128..160]), (2, &key(2).public().0[..]));
    assert!(bytes[24..96].iter().all(|&byte| byte == 0));
    let cut = Said::Cut {
        segment: 3,
        position: Position(4_096),
        epoch: Epoch(9),
        previous: Digest([0xaa; 32]),
    };
    let bytes = Entry::sign(cut, STREAM, 77, &signer).encode();
    assert_eq!(
        (bytes[10], &bytes[24..32]),
        (3, &4_096_u64.to_le_bytes()[..])
    );
    assert_eq!(bytes[72..80], 9_u64.to_le_bytes());
}

#[test]
fn two_nodes_give_the_same_seal_hashes() {
    let journal = Journal::new(4);
    journal.write_seals(&journal.seals(&key(1), 1_000));
    let one = journal.check_1();
    journal.write_seals(&journal.seals(&key(2), 2_000));
    let other = journal.check(&[key(2).public()]);
    assert!(one.is_faultless() && other.is_faultless());
    assert_eq!(one.file.last, other.file.last);
    assert_ne!(one.reports[0].seal, other.reports[0].seal);
}

#[test]
fn seals_taken_out_put_in_or_moved_break_the_chain() {
    let journal = Journal::sealed(5);
    let entries = journal.seals(&key(1), 1_000);
    // Taken out: the segment has none, and what follows shows that one was there.
    let mut fewer = entries.clone();
    fewer.remove(2);
    journal.write_seals(&fewer);
    let checked = journal.check_1();
    assert_eq!(checked.reports[1].findings, [SealFinding::MissingSeal]);
    let gap = EntryProblem::Chain(ChainError::Segment { found: 2, due: 1 });
    assert_eq!(checked.file.findings[0].what, gap);
    assert_eq!(checked.reports[2].findings, []);
    // Twice.
    let mut more = entries.clone();
    more.insert(2, entries[1]);
    journal.write_seals(&more);
    let twice = EntryProblem::Chain(ChainError::Segment { found: 0, due: 1 });
    assert_eq!(journal.check_1().file.findings[0].what, twice);
    // Signed by the key over another one before.
    let mut other = entries.clone();
    let Said::Seal(statement) = other[3].said else {
        panic!("a seal");
    };
    let statement = Statement {
        previous: Digest([7; 32]),
        ..statement
    };
    other[3] = Entry::sign(Said::Seal(statement), STREAM, 1_000, &key(1));
    journal.write_seals(&other);
    let checked = journal.check_1();
    assert_eq!(checked.outcomes()[2], SealOutcome::ChainBroken);
    assert_eq!(checked.outcomes()[3], SealOutcome::ChainBroken);
    // Signed by the key, and untrue.
    let Said::Seal(statement) = entries[3].said else {
        panic!("a seal");
    };
    let statement = Statement {
        record_count: statement.record_count + 1,
        ..statement
    };
    let mut other = entries;
    other[3] = Entry::sign(Said::Seal(statement), STREAM, 1_000, &key(1));
    journal.write_seals(&other);
    let untrue = SealFinding::Untrue("record count");
    assert_eq!(journal.check_1().reports[2].findings, [untrue]);
}

#[test]
fn a_missing_or_short_segment_is_named() {
    let journal = Journal::sealed(4);
    let bytes = fs::read(journal.segment(1)).expect("it is there");
    fs::write(journal.segment(1), &bytes[..1_000]).expect("it is written");
    let short = SealFinding::Tampered(Tampering::Length { found: 1_000 });
    assert_eq!(journal.check_1().only(), (1, short));
    fs::remove_file(journal.segment(1)).expect("it was there");
    let checked = journal.check_1();
    assert_eq!(checked.only(), (1, SealFinding::MissingSegment));
    // What lies behind it is checked against what its seal says.
    assert_eq!(checked.outcomes()[2], SealOutcome::Intact);
}

#[test]
fn a_journal_without_seals_says_so() {
    let journal = Journal::new(3);
    let checked = journal.check_1();
    assert!(!checked.file.is_present);
    assert_eq!(checked.file.sealed_end, Position(0));
    let outcomes = checked.outcomes();
    assert_eq!(outcomes.len() as u64, journal.whole_segments());
    assert!(outcomes.iter().all(|o| *o == SealOutcome::MissingSeal));
    // Its blocks are looked at all the same.
    journal.flip(SEGMENT + 600, 4);
    assert_eq!(journal.check_1().outcomes()[1], SealOutcome::Tampered);
}

/// A crash leaves any prefix of the file; a disk may also leave the last entry's place with anything in it.
#[test]
fn a_file_cut_anywhere_is_gone_on_with() {
    let journal = Journal::sealed(3);
    let good = journal.read_seals();
    for length in 0..=good.len() {
        let whole = length / ENTRY_LENGTH;
        let read = read_file(STREAM, &good[..length]);
        let (chain, intact) = read.unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!(intact, whole * ENTRY_LENGTH, "{length}");
        assert_eq!(chain.next_segment() as usize, whole.saturating_sub(1));
        if length % 64 == 1 || length % ENTRY_LENGTH == 0 {
            fs::write(journal.path().join(FILE_NAME), &good[..length]).expect("it is written");
            let checked = journal.check_1();
            assert_eq!(checked.file.torn_bytes as usize, length % ENTRY_LENGTH);
            assert_eq!(checked.file.finding_count, 0);
            for report in &checked.reports {
                let expected = if report.segment < chain.next_segment() {
                    SealOutcome::Intact
                } else {
                    SealOutcome::MissingSeal
                };
                assert_eq!(report.outcome(), expected, "{length}");
            }
        }
    }
    let mut garbled = good.clone();
    let last = good.len() - ENTRY_LENGTH;
    garbled[last..].fill(0);
    assert_eq!(read_file(STREAM, &garbled).expect("torn").1, last);
    // Damage before the last entry is no crash's doing.
    garbled = good.clone();
    garbled[last - 1] ^= 1;
    let error = read_file(STREAM, &garbled).expect_err("it is damaged");
    assert_eq!(error.offset as usize, last - ENTRY_LENGTH);
    assert_eq!(error.what, FileErrorKind::Entry(EntryError::Checksum));
}

/// Key 1 seals two segments, key 2 one, key 3 the rest.
fn rotated(journal: &Journal) -> Vec<Entry> {
    let mut entries = vec![first_key(&key(1), 10)];
    let mut chain = Chain::empty(STREAM);
    chain.apply(&entries[0]).expect("it is the first");
    let mut signer = 1;
    for statement in journal.statements() {
        if statement.segment == 2 || statement.segment == 3 {
            let said = Said::Key {
                segment: statement.segment,
                previous: statement.previous,
                key: key(signer + 1).public(),
            };
            entries.push(Entry::sign(said, STREAM, 20, &key(signer)));
            signer += 1;
        }
        entries.push(Entry::sign(Said::Seal(statement), STREAM, 30, &key(signer)));
    }
    for entry in &entries[1..] {
        chain.apply(entry).expect("it follows");
    }
    assert_eq!(chain.key(), Some(&key(3).public()));
    entries
}

#[test]
fn rotated_keys_are_followed_from_the_first() {
    let journal = Journal::new(5);
    let entries = rotated(&journal);
    journal.write_seals(&entries);
    let checked = journal.check_1();
    assert!(checked.is_faultless(), "{:?}", checked.file.findings);
    let keys: Vec<_> = checked
        .file
        .keys
        .iter()
        .map(|named| (named.segment, named.key, named.is_trusted))
        .collect();
    let expected = [(0, 1), (2, 2), (3, 3)];
    assert_eq!(
        keys,
        expected.map(|(segment, n)| (segment, key(n).public(), true))
    );
    // The hashes are those of a node that never changed its key.
    let last = checked.file.last;
    journal.write_seals(&journal.seals(&key(1), 1_000));
    assert_eq!(journal.check_1().file.last, last);

    // Who knows only the newest key can rely on what it signed.
    journal.write_seals(&entries);
    let outcomes = journal.check(&[key(3).public()]).outcomes();
    assert_eq!(outcomes[..3], [SealOutcome::UnknownKey; 3]);
    assert!(outcomes[3..].iter().all(|o| *o == SealOutcome::Intact));

    // Without the step from 1 to 2 nobody vouches for 2, nor for 3.
    let mut fewer = entries.clone();
    fewer.remove(3);
    journal.write_seals(&fewer);
    let outcomes = journal.check_1().outcomes();
    assert_eq!(outcomes[..2], [SealOutcome::Intact; 2]);
    assert!(outcomes[2..].iter().all(|o| *o == SealOutcome::UnknownKey));

    // A step that the old key did not sign.
    let mut forged = entries.clone();
    let said = Said::Key {
        segment: 2,
        previous: entries[2].said.previous(),
        key: key(9).public(),
    };
    forged[3] = Entry::sign(said, STREAM, 20, &key(9));
    journal.write_seals(&forged);
    let unknown = EntryProblem::UnknownKey(key(9).public().id());
    let findings = journal.check_1().file.findings;
    assert!(
        findings.iter().any(|found| found.what == unknown),
        "{findings:?}"
    );
    forged[3].signer = key(1).public().id();
    journal.write_seals(&forged);
    let bad = EntryProblem::BadSignature(key(1).public().id());
    let findings = journal.check_1().file.findings;
    assert!(
        findings.iter().any(|found| found.what == bad),
        "{findings:?}"
    );
}

#[test]
fn a_retired_key_signs_nothing_more() {
    let journal = Journal::new(5);
    let mut entries = rotated(&journal);
    let last = entries.len() - 1;
    entries[last] = Entry::sign(entries[last].said, STREAM, 40, &key(1));
    journal.write_seals(&entries);
    let (_, found) = journal.check_1().only();
    assert_eq!(found, SealFinding::RetiredKey(key(1).public().id()));
    let report = journal.check_1().reports.pop().expect("the last");
    assert_eq!(
        report.seal.expect("it has one").signed,
        Signed::ByRetiredKey
    );
}

/// A group went on without what this node had sealed: the seals are taken back, in writing, and others follow.
#[test]
fn a_cut_takes_seals_back() {
    let journal = Journal::new(4);
    let statements = journal.statements();
    let signed = |said| Entry::sign(said, STREAM, 50, &key(1));
    let lost = Statement {
        root: Digest([3; 32]),
        ..statements[2]
    };
    let cut = Said::Cut {
        segment: 2,
        position: Position(2 * SEGMENT + 512),
        epoch: Epoch(4),
        previous: statements[2].previous,
    };
    let mut entries = vec![first_key(&key(1), 50)];
    entries.extend(statements[..2].iter().map(|s| signed(Said::Seal(*s))));
    entries.push(signed(Said::Seal(lost)));
    entries.push(signed(cut));
    entries.extend(statements[2..].iter().map(|s| signed(Said::Seal(*s))));
    journal.write_seals(&entries);
    let checked = journal.check_1();
    assert!(checked.is_faultless(), "{:?}", checked.reports);
    assert_eq!(checked.file.cuts.len(), 1);
    assert_eq!(checked.file.cuts[0].segment, 2);
    let (chain, _) = read_file(STREAM, &bytes_of(&entries)).expect("it is a chain");
    assert_eq!(chain.seals(), statements);
    // Not by somebody without the key.
    entries[4] = Entry::sign(cut, STREAM, 50, &key(9));
    journal.write_seals(&entries);
    let unknown = EntryProblem::UnknownKey(key(9).public().id());
    assert_eq!(journal.check_1().file.findings[0].what, unknown);
}

#[test]
fn a_segment_that_does_not_go_on_is_not_summed() {
    let journal = Journal::new(2);
    let bytes = fs::read(journal.segment(1)).expect("it is there");
    let geometry = journal.log.geometry;
    let statements = journal.statements();
    let wrong = Link {
        previous_checksum: 1,
        ..statements[0].link()
    };
    let hash = statements[0].hash();
    let mut sum = SegmentSum::new(geometry, STREAM, 1, Some(wrong), hash);
    let error = sum.take(&bytes, &mut |_, _| {}).expect_err("it is wrong");
    assert_eq!(
        (error.position, error.front),
        (Position(SEGMENT), Front::ChainBroken)
    );
    assert_eq!(sum.statement(), None);
    let mut sum = SegmentSum::new(geometry, STREAM, 1, None, hash);
    let half = sum
        .take(&bytes[..40_000], &mut |_, _| {})
        .expect("it is right");
    assert!(half <= 40_000 && !sum.is_complete() && sum.statement().is_none());
    sum.take(&bytes[half..], &mut |_, _| {})
        .expect("it is right");
    assert_eq!(sum.statement(), Some(statements[1]));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 256), kind in 0..5_u8, is_like_one: bool) {
        if is_like_one {
            bytes[..8].copy_from_slice(b"RELAYSEL");
            bytes[8..12].copy_from_slice(&[1, 0, kind, 0]);
            bytes[84..96].fill(0);
            bytes[240..252].fill(0);
            let sum = crc32c(&bytes[..252]);
            bytes[252..].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(&entry.encode()[..], &bytes[..]);
            prop_assert!(!entry.is_signed_by(&key(1).public()));
        }
        let _ = read_file(STREAM, &bytes);
    }

    #[test]
    fn no_segment_makes_the_sum_panic(seed: u64, changes in prop::collection::vec((0..SEGMENT as usize, any::<u8>()), 1..8)) {
        let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
        log.begin(2, 2);
        log.grow(20, 2_000, &mut Random(seed));
        let mut bytes = log.image(SEGMENT as usize * 4);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let mut sum = SegmentSum::new(log.geometry, STREAM, 0, None, Digest::default());
        let _ = sum.take(&bytes[..SEGMENT as usize], &mut |_, _| {});
    }
}

#[test]
fn keys_and_digests_are_read_as_they_are_shown() {
    let public = key(3).public();
    assert_eq!(public.to_string().parse(), Ok(public));
    assert_eq!(Digest([9; 32]).to_string(), "09".repeat(32));
    assert!("0".repeat(63).parse::<PublicKey>().is_err());
    assert!("g".repeat(64).parse::<PublicKey>().is_err());
    assert_eq!(KeyId(0xabc).to_string(), "0000000000000abc");
    let shown = format!("{:?}", key(3));
    assert_eq!(shown, format!("SigningKey({public})"));
}
