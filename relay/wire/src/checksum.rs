//! CRC-32C, the one checksum of records, messages and blocks.
//!
//! Castagnoli's polynomial in its usual reflected form (RFC 3720, appendix B.4), computed by the processor's instruction
//! where there is one.

/// The checksum of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// The checksum of what `checksum` covered, followed by `bytes`.
#[must_use]
pub fn crc32c_append(checksum: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(checksum, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of RFC 3720's polynomial, as every catalogue of CRCs gives it.
    #[test]
    fn check_value() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn appending_equals_the_whole() {
        let whole = b"market data of a day";
        assert_eq!(
            crc32c_append(crc32c(&whole[..7]), &whole[7..]),
            crc32c(whole)
        );
    }
}
