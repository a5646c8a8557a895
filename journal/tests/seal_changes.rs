//! Goal: whatever is changed in a sealed segment, in the seals, or in who signed them is found, and found where it is. Method:
//! bytes of sealed journals are changed, one at a time, or a forger without the key does his best.

mod sealed;

use std::fs;

use relay_journal::block::{self, BlockKind, HEADER_LENGTH, decode_header};
use relay_journal::reader::seals::{EntryProblem, SealFinding, SealOutcome, Tampering};
use relay_journal::seal::{ChainError, ENTRY_LENGTH, Entry, FILE_NAME, Said, Statement};
use relay_wire::checksum::crc32c;
use relay_wire::id::{Position, StreamId};
use sealed::log::{self, Random};
use sealed::{Journal, SEGMENT, bytes_of, first_key, key};

/// The place a finding names for a change at `position` must be the changed block, or the very byte behind a filler.
fn is_located(journal: &Journal, position: u64, found: &SealFinding) -> bool {
    let (start, end, written) = journal.block_of(position);
    match found {
        SealFinding::Tampered(Tampering::Block(error)) => {
            error.position == Position(start) && position < written
        }
        SealFinding::Tampered(Tampering::Leftover { position: at }) => {
            at.get() == position && (written..end).contains(&position)
        }
        _ => false,
    }
}

#[test]
fn every_class_of_field_is_covered() {
    let journal = Journal::sealed(8);
    let writes = &journal.log.writes;
    let find = |kind: BlockKind, is_wanted: &dyn Fn(&log::Write) -> bool| {
        let found = writes
            .iter()
            .find(|write| write.header.kind == kind && is_wanted(write) && write.position() > 0);
        found.unwrap_or_else(|| panic!("a block of kind {kind:?}"))
    };
    let sealed = |write: &log::Write| write.header.next_position() < journal.released();
    let records = find(BlockKind::Records, &sealed);
    let mark = find(BlockKind::Mark, &sealed);
    let filler = find(BlockKind::Filler, &|write| {
        write.header.next_position() <= journal.released()
            && u64::from(write.header.span) > write.bytes.len() as u64
    });
    let padded = find(BlockKind::Records, &|write| {
        sealed(write) && write.header.body_end() < write.bytes.len()
    });
    let mut places = Vec::new();
    // Block header: magic, version, kind, zero, stream, epoch, number, position, first seq, record count, data count, body
    // length, span, sealed time, released, previous checksum, body checksum, zero, header checksum.
    let fields = [
        0, 8, 10, 11, 12, 16, 24, 32, 40, 48, 52, 56, 60, 64, 72, 80, 84, 88, 123, 124, 127,
    ];
    for block in [records, mark, filler] {
        places.extend(fields.map(|offset| block.position() + offset));
    }
    // Record: length, kind, flags, extension length, topic, checksum, publisher, incarnation, publisher sequence, key hash,
    // origin time, seq, receive time, payload.
    let fields = [0, 4, 5, 6, 8, 12, 16, 24, 32, 40, 48, 56, 64, 72];
    places.extend(fields.map(|offset| records.position() + HEADER_LENGTH + offset));
    places.push(padded.position() + padded.header.body_end());
    places.push(padded.position() + padded.bytes.len() - 1);
    places.push(mark.position() + mark.bytes.len() - 1);
    places.push(filler.position() + filler.bytes.len());
    places.push(filler.header.next_position().get() as usize - 1);
    for place in places {
        let position = place as u64;
        for mask in [1, 0x80, 0xff] {
            journal.flip(position, mask);
            let (segment, found) = journal.check_1().only();
            assert_eq!(segment, position / SEGMENT, "position {position}");
            assert!(
                is_located(&journal, position, &found),
                "position {position}: {found:?}"
            );
            journal.flip(position, mask);
        }
    }
    assert!(journal.check_1().is_faultless());
}

/// One byte in each of the segments at a time, so that a check finds as many changes as there are segments.
#[test]
fn ten_thousand_random_changes_are_found_where_they_are() {
    const SEGMENTS: u64 = 100;
    const ROUNDS: u64 = 100;
    let journal = Journal::sealed(SEGMENTS);
    let segments = journal.whole_segments();
    let mut random = Random(29);
    let mut found = 0;
    for _ in 0..ROUNDS {
        let changes: Vec<(u64, u8)> = (0..segments)
            .map(|segment| {
                let position = segment * SEGMENT + random.below(SEGMENT);
                (position, 1 + random.below(255) as u8)
            })
            .collect();
        for (position, mask) in &changes {
            journal.flip(*position, *mask);
        }
        let checked = journal.check_1();
        assert_eq!(checked.file.finding_count, 0);
        for (report, (position, mask)) in checked.reports.iter().zip(&changes) {
            let [finding] = report.findings[..] else {
                panic!("{position}: {:?}", report.findings);
            };
            assert!(
                is_located(&journal, *position, &finding),
                "position {position}: {finding:?}"
            );
            journal.flip(*position, *mask);
            found += 1;
        }
    }
    assert_eq!(found, ROUNDS * segments);
    assert!(found >= 10_000);
}

/// Bytes of the seals themselves; with the entry's checksum as it was, and mended by somebody who knows the format.
#[test]
fn every_byte_of_a_seal_is_covered() {
    let journal = Journal::sealed(3);
    let good = journal.read_seals();
    for entry in 0..3 {
        for offset in 0..ENTRY_LENGTH {
            for is_mended in [false, true] {
                let at = entry * ENTRY_LENGTH;
                let mut bytes = good.clone();
                bytes[at + offset] ^= 0x10;
                if is_mended {
                    if offset >= ENTRY_LENGTH - 4 {
                        continue;
                    }
                    let sum = crc32c(&bytes[at..at + ENTRY_LENGTH - 4]);
                    bytes[at + ENTRY_LENGTH - 4..at + ENTRY_LENGTH]
                        .copy_from_slice(&sum.to_le_bytes());
                }
                fs::write(journal.path().join(FILE_NAME), &bytes).expect("it is written");
                let checked = journal.check_1();
                assert!(
                    !checked.is_faultless(),
                    "byte {offset} of entry {entry}, mended {is_mended}"
                );
                // The segments themselves are what they were, and no finding says otherwise.
                let accused = checked
                    .reports
                    .iter()
                    .find(|report| report.outcome() == SealOutcome::Tampered);
                assert_eq!(accused, None, "byte {offset} of entry {entry}");
            }
        }
    }
}

/// Writes the blocks from `from` on again so that every checksum fits, as somebody does who knows the format.
fn forge(journal: &mut Journal, from: usize, change: impl FnOnce(&mut [u8])) {
    let alignment = journal.log.superblock.block_alignment;
    let mut change = Some(change);
    let mut previous = journal.log.writes[from].header.previous_checksum;
    for write in &mut journal.log.writes[from..] {
        if let Some(change) = change.take() {
            change(&mut write.bytes[HEADER_LENGTH..write.header.body_end()]);
        }
        write.header.previous_checksum = previous;
        write.header = block::seal(&mut write.bytes, &write.header);
        assert_eq!(decode_header(&write.bytes), Ok(write.header));
        assert_eq!(
            write.bytes.len(),
            write.header.written_length(alignment) as usize
        );
        previous = write.header.checksum;
    }
    let prepared = (journal.log.tail() + SEGMENT as usize).next_multiple_of(SEGMENT as usize);
    let image = journal.log.image(prepared);
    for (index, bytes) in image.chunks(SEGMENT as usize).enumerate() {
        fs::write(journal.segment(index as u64), bytes).expect("it is written");
    }
}

#[test]
fn a_forgery_without_the_key_is_found() {
    let mut journal = Journal::sealed(4);
    let good = journal.read_seals();
    // A block with messages in segment 1; the first bytes of its body are a record's header, so change its last payload byte.
    let inside = |write: &log::Write| {
        write.header.data_count > 0 && write.header.position.get() / SEGMENT == 1
    };
    let at = journal.log.writes.iter().position(inside).expect("one");
    let last = journal.log.writes[at].header.body_length as usize - 1;
    forge(&mut journal, at, |body| body[last] ^= 0x55);
    // Every checksum fits now, and only the seals say that it is another log.
    let outcomes = journal.check_1().outcomes();
    assert_eq!(
        outcomes,
        [
            &[SealOutcome::Intact][..],
            &[SealOutcome::Tampered; 1],
            &vec![SealOutcome::Tampered; outcomes.len() - 2],
        ]
        .concat()
    );
    let rewritten = SealFinding::Tampered(Tampering::Rewritten);
    assert_eq!(journal.check_1().reports[1].findings, [rewritten]);

    // Sealed anew with another key that is named as the first: it is not the one that is trusted.
    journal.write_seals(&journal.seals(&key(9), 1_000));
    let checked = journal.check_1();
    let unknown = EntryProblem::UnknownKey(key(9).public().id());
    assert_eq!(checked.file.findings[0].what, unknown);
    assert!(
        checked
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::UnknownKey)
    );
    // Who trusts nobody beforehand can't see that, and is told.
    let unpinned = journal.check(&[]);
    assert!(unpinned.is_faultless() && !unpinned.file.is_pinned);

    // Sealed anew in the name of the key, which the forger lacks.
    let named = key(1).public().id();
    let mut entries = journal.seals(&key(9), 1_000);
    entries[0] = first_key(&key(1), 1_000);
    for entry in &mut entries[1..] {
        entry.signer = named;
    }
    journal.write_seals(&entries);
    let checked = journal.check_1();
    for report in &checked.reports {
        assert_eq!(report.findings[0], SealFinding::BadSignature(named));
    }

    // The good seals up to the change and forged ones behind it.
    let mut mixed = good[..2 * ENTRY_LENGTH].to_vec();
    mixed.extend(bytes_of(&entries[2..]));
    fs::write(journal.path().join(FILE_NAME), mixed).expect("it is written");
    let outcomes = journal.check_1().outcomes();
    assert_eq!(outcomes[0], SealOutcome::Intact);
    assert!(
        outcomes[1..]
            .iter()
            .all(|o| *o == SealOutcome::BadSignature)
    );
}

#[test]
fn wrong_keys_and_foreign_seals_do_not_pass() {
    let journal = Journal::sealed(3);
    let checked = journal.check(&[key(5).public()]);
    assert!(
        checked
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::UnknownKey)
    );
    // Another journal's seals: by the trusted key, of another log of the same stream.
    let mut other = Journal::new(3);
    forge(&mut other, 3, |body| {
        let last = body.len() - 1;
        body[last] ^= 1;
    });
    journal.write_seals(&other.seals(&key(1), 1_000));
    assert!(
        journal
            .check_1()
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::Tampered)
    );
    // Another stream's.
    let entries: Vec<Entry> = journal
        .seals(&key(1), 1_000)
        .iter()
        .map(|entry| match entry.said {
            Said::Seal(statement) => {
                let stream = StreamId(8);
                let statement = Statement {
                    stream,
                    ..statement
                };
                Entry::sign(Said::Seal(statement), stream, 1_000, &key(1))
            }
            _ => *entry,
        })
        .collect();
    journal.write_seals(&entries);
    let checked = journal.check_1();
    let foreign = EntryProblem::Chain(ChainError::Stream(StreamId(8)));
    assert_eq!(checked.file.findings[0].what, foreign);
    assert!(
        checked
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::MissingSeal)
    );
}
