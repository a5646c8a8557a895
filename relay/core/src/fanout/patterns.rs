//! A subscriber's patterns, arranged so that a name is held against all of them at once.
//!
//! Sorted by their levels, the patterns that begin with the same levels stand side by side, so a name is followed level by level
//! into ever shorter stretches: the level itself, and `*`. That costs a few binary searches for each level of the name,
//! whether there are ten patterns or a thousand.

/// The patterns; see the module's description.
#[derive(Debug, Clone)]
pub(super) struct PatternSet {
    /// In the order of their sequences of levels, each once.
    sorted: Vec<Box<str>>,
    is_everything: bool,
    has_wildcards: bool,
}

impl PatternSet {
    /// A set of patterns that were checked before.
    pub(super) fn new(mut patterns: Vec<Box<str>>) -> Self {
        patterns.sort_unstable_by(|a, b| a.split('.').cmp(b.split('.')));
        patterns.dedup();
        Self {
            is_everything: patterns.iter().any(|pattern| &**pattern == ">"),
            has_wildcards: patterns.iter().any(|pattern| pattern.contains(['*', '>'])),
            sorted: patterns,
        }
    }

    /// Whether every name there can be is selected.
    pub(super) const fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// The patterns, where each is the name of one topic.
    pub(super) fn names(&self) -> Option<&[Box<str>]> {
        (!self.has_wildcards).then_some(&self.sorted)
    }

    /// Whether one of the patterns selects `name`.
    pub(super) fn select(&self, name: &str) -> bool {
        self.is_everything || selects(&self.sorted, 0, Some(name))
    }
}

/// Whether one of `patterns`, which are alike in the levels before byte `at`, selects a name of which `rest` is left.
fn selects(patterns: &[Box<str>], at: usize, rest: Option<&str>) -> bool {
    let Some(first) = patterns.first() else {
        return false;
    };
    let Some(rest) = rest else {
        // The name is over. So is the first of the patterns, if any is: the shorter stands before the longer.
        return first.len() < at;
    };
    let (level, rest) = match rest.split_once('.') {
        Some((level, rest)) => (level, Some(rest)),
        None => (rest, None),
    };
    !with_level(patterns, at, ">").is_empty()
        || [level, "*"].iter().any(|&next| {
            let alike = with_level(patterns, at, next);
            selects(alike, at + next.len() + 1, rest)
        })
}

/// Those of `patterns` whose level at byte `at` is `wanted`.
fn with_level<'a>(patterns: &'a [Box<str>], at: usize, wanted: &str) -> &'a [Box<str>] {
    let start = patterns.partition_point(|pattern| level(pattern, at) < Some(wanted));
    let alike = &patterns[start..];
    let end = alike.partition_point(|pattern| level(pattern, at) == Some(wanted));
    &alike[..end]
}

/// The level at byte `at`; `None`, which comes first, where the pattern is over.
fn level(pattern: &str, at: usize) -> Option<&str> {
    pattern.get(at..)?.split('.').next()
}

#[cfg(test)]
mod tests {
    use relay_wire::topic;

    use super::*;

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(patterns.iter().map(|&pattern| Box::from(pattern)).collect())
    }

    /// Goal: the set selects what any of its patterns selects alone. Method: every set of one and two, and one of all, out
    /// of patterns with every kind of level, against every name of up to three levels out of three words, two of which
    /// begin alike and one of which sorts before `*`.
    #[test]
    fn a_set_selects_what_its_patterns_select() {
        let words = ["a", "a!", "!", "*", ">"];
        let mut patterns: Vec<String> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for first in words {
            patterns.push(first.into());
            for second in words {
                patterns.push(format!("{first}.{second}"));
                for third in words {
                    patterns.push(format!("{first}.{second}.{third}"));
                }
            }
        }
        patterns.retain(|pattern| topic::check_pattern(pattern.as_bytes()).is_ok());
        names.extend(patterns.iter().cloned());
        names.retain(|name| topic::check_name(name.as_bytes()).is_ok());
        assert!(names.len() == 39 && patterns.len() > 100);
        for one in &patterns {
            for other in &patterns {
                let both = set(&[one, other]);
                for name in &names {
                    let due = topic::matches(one, name) || topic::matches(other, name);
                    assert_eq!(both.select(name), due, "{one} {other} {name}");
                }
            }
        }
        let but_one: Vec<_> = patterns.iter().map(String::as_str).collect();
        let but_one: Vec<_> = but_one
            .into_iter()
            .filter(|p| !p.contains(['*', '>']))
            .collect();
        let all = set(&but_one);
        assert!(!all.is_everything() && set(&["a", ">"]).is_everything());
        assert!(names.iter().all(|name| all.select(name)));
        assert!(!all.select("b") && !all.select("a.b") && !all.select("a.a.a.a"));
        assert!(!set(&[]).select("a"));
    }
}
