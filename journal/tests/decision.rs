//! Goal: the decision table says what its rows say, for every combination of evidence there is.
//! Method: the expected table is written out by hand, one row for each front, and compared with
//! [`decide`] in full.

use relay_journal::recovery::{Beyond, Clean, Decision, Evidence, Front, decide};

/// For each front the twelve decisions: beyond nothing, not releasing, releasing, checkpoint; each with no clean
/// stop, one here, one further on. `E` end, `C` cut, `R` rotten, `X` refuse.
const EXPECTED: &[(Front, &str)] = &[
    //                      nothing  not-rel. releasing checkpoint
    //                      none here beyond ...
    (
        Front::Absent,
        /*   */ "E E R    C C R    R R R    R R R",
    ),
    (
        Front::Zeroed,
        /*   */ "C C R    C C R    R R R    R R R",
    ),
    (
        Front::BadHeader,
        /**/ "C C R    C C R    R R R    R R R",
    ),
    (
        Front::BadBody,
        /*  */ "C C R    C C R    R R R    R R R",
    ),
    (
        Front::BadPadding,
        /**/ "C C R    C C R    R R R    R R R",
    ),
    (
        Front::ChainBroken,
        /**/ "R R R    R R R    R R R    R R R",
    ),
    (
        Front::LaterEpoch,
        /**/ "C C R    C C R    R R R    R R R",
    ),
    (
        Front::StaleEarlier,
        /**/ "E E R    C C R    R R R    R R R",
    ),
    (
        Front::ForeignStream,
        /**/ "X X X    X X X    X X X    X X X",
    ),
    (
        Front::OtherVersion,
        /**/ "X X X    X X X    X X X    X X X",
    ),
];

#[test]
fn every_combination_is_decided_as_written() {
    assert_eq!(EXPECTED.len(), Front::ALL.len());
    let mut combinations = 0;
    for (row, &front) in Front::ALL.iter().enumerate() {
        assert_eq!(EXPECTED[row].0, front);
        let mut letters = EXPECTED[row].1.split_whitespace();
        for &beyond in Beyond::ALL {
            for &clean in Clean::ALL {
                let expected = match letters.next() {
                    Some("E") => Decision::End,
                    Some("C") => Decision::CutTorn,
                    Some("R") => Decision::Rotten,
                    Some("X") => Decision::Refuse,
                    other => panic!("no decision is written as {other:?}"),
                };
                let evidence = Evidence {
                    front,
                    beyond,
                    clean,
                };
                assert_eq!(decide(&evidence), expected, "{evidence:?}");
                combinations += 1;
            }
        }
        assert_eq!(letters.next(), None);
    }
    assert_eq!(combinations, 120);
}

/// Whatever else is seen, nothing is cut that is known to have been durable.
#[test]
fn proof_of_durability_is_never_cut() {
    for &front in Front::ALL {
        for &beyond in Beyond::ALL {
            for &clean in Clean::ALL {
                let evidence = Evidence {
                    front,
                    beyond,
                    clean,
                };
                if beyond >= Beyond::IntactReleasingBeyond || clean == Clean::TailBeyond {
                    let decision = decide(&evidence);
                    assert!(matches!(decision, Decision::Rotten | Decision::Refuse));
                }
            }
        }
    }
}
