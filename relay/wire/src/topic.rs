//! Topic names and the patterns that select them (`FORMAT.md` section 2, "Topic names").
//!
//! A name is 1 to 8 levels separated by dots. In a pattern `*` stands for one level and a last `>` for one or more.

/// Most bytes of a name or pattern.
pub const NAME_LENGTH_MAX: usize = 255;
/// Most levels of a name or pattern.
pub const LEVELS_MAX: usize = 8;

/// Why a name or a pattern is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicError {
    /// No bytes, or a level without any.
    Empty,
    /// More than [`NAME_LENGTH_MAX`] bytes.
    TooLong,
    /// More than [`LEVELS_MAX`] levels.
    TooDeep,
    /// Not UTF-8.
    NotUtf8,
    /// A control character, a space, or `*` or `>` where it does not stand for a level.
    Character,
}

impl core::fmt::Display for TopicError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Empty => "a topic and each of its levels need at least one character",
            Self::TooLong => "a topic has at most 255 bytes",
            Self::TooDeep => "a topic has at most 8 levels",
            Self::NotUtf8 => "a topic is UTF-8",
            Self::Character => {
                "a topic has no control characters and no spaces; * and > stand only in patterns, \
                 each as a whole level, > as the last"
            }
        })
    }
}

impl core::error::Error for TopicError {}

fn check(bytes: &[u8], is_pattern: bool) -> Result<&str, TopicError> {
    if bytes.is_empty() {
        return Err(TopicError::Empty);
    }
    if bytes.len() > NAME_LENGTH_MAX {
        return Err(TopicError::TooLong);
    }
    let text = core::str::from_utf8(bytes).map_err(|_| TopicError::NotUtf8)?;
    let mut levels = 0;
    let mut ended = false;
    for level in text.split('.') {
        levels += 1;
        if level.is_empty() {
            return Err(TopicError::Empty);
        }
        if ended {
            return Err(TopicError::Character);
        }
        match level {
            "*" if is_pattern => {}
            ">" if is_pattern => ended = true,
            _ if level
                .chars()
                .any(|c| c.is_control() || c == ' ' || c == '*' || c == '>') =>
            {
                return Err(TopicError::Character);
            }
            _ => {}
        }
    }
    if levels > LEVELS_MAX {
        return Err(TopicError::TooDeep);
    }
    Ok(text)
}

/// Checks a topic name.
///
/// # Errors
/// [`TopicError`] names the rule it breaks.
pub fn check_name(bytes: &[u8]) -> Result<&str, TopicError> {
    check(bytes, false)
}

/// Checks a pattern.
///
/// # Errors
/// [`TopicError`] names the rule it breaks.
pub fn check_pattern(bytes: &[u8]) -> Result<&str, TopicError> {
    check(bytes, true)
}

/// Whether `name` is selected by `pattern`; both were checked before.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut names = name.split('.');
    for level in pattern.split('.') {
        match (level, names.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (want, Some(have)) if want == have => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Whether every name that `inner` selects is selected by `outer` too; both were checked before.
#[must_use]
pub fn covers(outer: &str, inner: &str) -> bool {
    let mut inners = inner.split('.');
    for level in outer.split('.') {
        match (level, inners.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            (_, Some(">")) => return false,
            ("*", Some(_)) => {}
            (want, Some(have)) if want == have => {}
            _ => return false,
        }
    }
    inners.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(check_name(b"orders.xnas.ABC"), Ok("orders.xnas.ABC"));
        assert_eq!(check_name(b""), Err(TopicError::Empty));
        assert_eq!(check_name(b"a..b"), Err(TopicError::Empty));
        assert_eq!(check_name(&[b'a'; 256]), Err(TopicError::TooLong));
        assert_eq!(check_name(b"1.2.3.4.5.6.7.8.9"), Err(TopicError::TooDeep));
        assert_eq!(check_name(b"a\xff"), Err(TopicError::NotUtf8));
        for bad in ["a.*", "a.>", "a b", "a\n", "x*y"] {
            assert_eq!(
                check_name(bad.as_bytes()),
                Err(TopicError::Character),
                "{bad}"
            );
        }
    }

    #[test]
    fn patterns() {
        for good in [">", "*", "a.*", "a.>", "*.b.>"] {
            assert_eq!(check_pattern(good.as_bytes()), Ok(good));
        }
        for bad in [">.a", "a*", "a.>.b"] {
            assert_eq!(
                check_pattern(bad.as_bytes()),
                Err(TopicError::Character),
                "{bad}"
            );
        }
    }

    #[test]
    fn matching() {
        for (pattern, name, expected) in [
            (">", "a", true),
            (">", "a.b.c", true),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.c", true),
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*", "a.b", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn covering() {
        for (outer, inner, expected) in [
            (">", "a.>", true),
            ("a.>", ">", false),
            ("a.*", "a.b", true),
            ("a.*", "a.*", true),
            ("a.b", "a.*", false),
            ("a.>", "a.*.c", true),
            ("a.*", "a.>", false),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} {inner}");
        }
    }
}
