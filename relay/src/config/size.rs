//! Numbers of bytes as an operator writes them.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A number of bytes, written as `4096`, `"64KiB"`, `"1GiB"` ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as 4096, \"64KiB\", \"16MiB\" or \"1GiB\"")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Size, E> {
                let refused = || E::invalid_value(de::Unexpected::Signed(value), &self);
                u64::try_from(value).map(Size).map_err(|_| refused())
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Size, E> {
                parse_size(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn parse_size(text: &str) -> Option<Size> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit).map(Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64KiB"), Some(Size(65_536)));
        assert_eq!(parse_size("7"), Some(Size(7)));
        assert_eq!(parse_size("7 GiB"), Some(Size(7 << 30)));
        assert_eq!(parse_size("-1"), None);
        assert_eq!(parse_size("99999999999TiB"), None);
    }
}
