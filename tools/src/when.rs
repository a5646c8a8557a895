//! Times on the command line: RFC 3339 in, nanoseconds UTC out, and back.

/// A time as RFC 3339 writes it, ns since 1970 UTC; the error says what is wrong with it.
pub(crate) fn parse_utc_ns(text: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    u64::try_from(time.as_nanosecond()).map_err(|_| "it is before 1970".to_owned())
}

/// Nanoseconds UTC as RFC 3339 writes them.
pub(crate) fn utc_text(time_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time_ns))
        .map_or_else(|_| format!("{time_ns} ns"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        for (text, time_ns) in [
            ("2026-01-05T09:30:00Z", 1_767_605_400_000_000_000),
            (
                "2026-01-05T17:30:00.000000001+08:00",
                1_767_605_400_000_000_001,
            ),
        ] {
            assert_eq!(parse_utc_ns(text), Ok(time_ns));
        }
        assert_eq!(
            utc_text(1_767_605_400_000_000_001),
            "2026-01-05T09:30:00.000000001Z"
        );
        assert!(parse_utc_ns("1969-01-01T00:00:00Z").is_err());
        assert!(parse_utc_ns("2026-01-05").is_err());
    }
}
