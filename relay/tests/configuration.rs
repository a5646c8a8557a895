//! The configuration's keys, as documented: README's table, the sample file and the parser say the same.

use std::collections::BTreeSet;

const README: &str = include_str!("../../README.md");
const SAMPLE: &str = include_str!("../../config/single.toml");
/// A group with a witness, and then what etcd has besides.
const GROUP_SAMPLE: &str = concat!(
    include_str!("../../config/pair-witness.toml"),
    include_str!("../../config/pair-etcd.toml")
);

/// Each section: its heading in README's table and in a file.
const SECTIONS: [(&str, &str); 11] = [
    ("top of the file", ""),
    ("`[[stream]]`", "[[stream]]"),
    ("`trading_session`", "[stream.trading_session]"),
    ("`schedule`", "[stream.schedule]"),
    ("`[stream.threads]`", "[stream.threads]"),
    ("`[stream.journal]`", "[stream.journal]"),
    ("`[stream.evidence]`", "[stream.evidence]"),
    ("`[stream.limits]`", "[stream.limits]"),
    ("`[[stream.credential]]`", "[[stream.credential]]"),
    ("`[stream.group]`", "[stream.group]"),
    ("`[stream.group.arbiter]`", "[stream.group.arbiter]"),
];

/// The keys the parser takes in a section, from its own words about one that it does not.
fn accepted(heading: &str) -> BTreeSet<String> {
    let stream = if heading.starts_with("[stream.") || heading.starts_with("[[stream.") {
        "[[stream]]\n"
    } else {
        ""
    };
    let text = format!("{stream}{heading}\nno_such_key = 1\n");
    let said = relayd::check_config_text(&text).expect_err("there is no such key");
    let (_, expected) = said
        .split_once("expected ")
        .unwrap_or_else(|| panic!("{heading}: {said}"));
    let expected = expected.split(" (in ").next().unwrap_or_default();
    let keys: BTreeSet<String> = quoted(expected).map(str::to_owned).collect();
    assert!(keys.len() >= 2, "{heading}: {said}");
    keys
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of README's table under a heading: keys and default.
fn documented(heading: &str) -> Vec<(Vec<&'static str>, &'static str)> {
    let table = README.split("## Configuration\n").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let start = format!("| **{heading}** |");
    rows.skip_while(|row| !row.starts_with(&start))
        .skip(1)
        .take_while(|row| !row.starts_with("| **"))
        .map(|row| {
            let mut cells = row.split('|').skip(1).map(str::trim);
            let keys = quoted(cells.next().unwrap()).collect();
            (keys, cells.next().unwrap())
        })
        .collect()
}

/// The value the sample gives a key, commented out or not, in a section.
fn sample_value(heading: &str, key: &str) -> Option<String> {
    let mut section = "";
    let is_group = heading.starts_with("[stream.group");
    let sample = if is_group { GROUP_SAMPLE } else { SAMPLE };
    for line in sample.lines() {
        if line.starts_with('[') {
            section = line.trim();
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        let value = line
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(" = "));
        if let (true, Some(value)) = (section == heading, value) {
            return Some(value.split(" #").next().unwrap().trim().to_owned());
        }
    }
    None
}

/// Goal: no key is undocumented, and none documented that is not taken. Method: the parser names the keys it takes.
#[test]
fn every_key_stands_in_the_readme_and_nothing_else() {
    for (title, heading) in SECTIONS {
        let rows = documented(title);
        let found: BTreeSet<String> = rows
            .iter()
            .flat_map(|(keys, _)| keys.iter().map(|&key| key.to_owned()))
            .collect();
        assert_eq!(found, accepted(heading), "{title}");
    }
}

/// Goal: the sample shows every key, and README's defaults are the sample's, which the parser's tests tie to the code.
#[test]
fn every_key_stands_in_the_sample_with_the_same_default() {
    for (title, heading) in SECTIONS {
        for (keys, default) in documented(title) {
            for key in keys {
                let is_section = SAMPLE.contains(&format!("[stream.{key}]"))
                    || GROUP_SAMPLE.contains(&format!("[stream.{key}]"))
                    || GROUP_SAMPLE.contains(&format!("[stream.group.{key}]"));
                let inline = title.trim_matches('`');
                let inline = sample_value("[[stream]]", inline).filter(|_| !inline.contains('['));
                let shown = match inline {
                    Some(inline) => inline.contains(key).then(String::new),
                    None => sample_value(heading, key),
                };
                // A file beside the configuration stands for the secret in it.
                let is_secret = key == "secret" && heading == "[stream.group]";
                let is_shown = shown.is_some() || is_section || is_secret || key == "stream";
                assert!(is_shown, "the sample lacks {key} of {title}");
                let values: Vec<&str> = quoted(default).collect();
                if let [value] = values[..] {
                    assert_eq!(shown.as_deref(), Some(value), "{key} of {title}");
                }
            }
        }
    }
}
