//! The habits that keep the source as it is meant to be, checked on the source itself.
//!
//! Cargo keeps the crates' imports in order as long as their manifests do; the rest are rules about words. The rules that
//! follow name what they forbid in pieces, so that they do not find themselves.

use std::fs;
use std::path::{Path, PathBuf};

/// "About 800 lines": beyond this no longer.
const LINES_MAX: usize = 1_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below `place`, with its text.
fn sources(place: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(place)];
    while let Some(path) = waiting.pop() {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "target" && name != ".git" {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "{place} has sources");
    found
}

/// The part of a file before its unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

fn forbid(place: &str, words: &[&str], except: &[&str], why: &str) {
    for (path, text) in sources(place) {
        let shown = path.display().to_string();
        if except.iter().any(|end| shown.ends_with(end)) {
            continue;
        }
        for word in words {
            let line = product(&text).lines().position(|line| line.contains(word));
            let line = line.map(|line| line + 1);
            assert_eq!(line, None, "{shown}: {word}: {why}");
        }
    }
}

#[test]
fn files_stay_short_and_finished() {
    for place in ["journal", "relay", "tools", "benches"] {
        for (path, text) in sources(place) {
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{}: {lines} lines", path.display());
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_drawer = ["util", "utils", "common", "helpers"].contains(&name.as_str());
            assert!(!is_drawer, "{}: say what it is about", path.display());
        }
        let unfinished = [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("to", "do!("),
        ];
        forbid(place, &unfinished, &[], "finish it, or file it");
    }
}

/// Goal: wire <- journal <- core; the client and the floor stand apart; tools run relayd and never import it.
#[test]
fn crates_import_downwards_only() {
    for (manifest, allowed) in [
        ("relay/wire", &[][..]),
        ("journal", &["relay-wire"]),
        ("relay/core", &["relay-wire", "relay-journal"]),
        ("relay/client", &["relay-wire"]),
        // Of the client library relayd uses the witness's client, which the tools use too.
        (
            "relay",
            &["relay-wire", "relay-journal", "relay-core", "relay-client"],
        ),
        (
            "tools",
            &[
                "relay-wire",
                "relay-journal",
                "relay-core",
                "relay-client",
                "relay-floor",
            ],
        ),
        ("benches/floor", &[]),
    ] {
        let path = root().join(manifest).join("Cargo.toml");
        let text = fs::read_to_string(path).unwrap();
        let own = text.split("[dependencies]").nth(1).unwrap_or_default();
        let own = own.split("\n[").next().unwrap();
        for line in own.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            let is_ours = name.starts_with("relay") || name.starts_with("relayd");
            assert!(!is_ours || allowed.contains(&name), "{manifest}: {name}");
        }
    }
}

/// Goal: what decides has no clock, file, socket or thread of its own, and nothing unsafe.
#[test]
fn the_core_touches_nothing_of_the_machine() {
    let machine = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::time",
        "Instant::now",
        "SystemTime",
    ];
    // The plain-file reader is the journal's one part for tools.
    let reader = [
        "journal/src/reader.rs",
        "journal/src/reader/seals/file.rs",
        "journal/src/reader/set_aside.rs",
        "journal/src/reader/side_index.rs",
        "journal/src/source.rs",
        "journal/src/read_ahead.rs",
    ];
    for place in ["relay/wire/src", "relay/core/src", "journal/src"] {
        forbid(place, &machine, &reader, "time and bytes are arguments");
        let root = fs::read_to_string(root().join(place).join("lib.rs")).unwrap();
        assert!(root.contains("#![forbid(unsafe_code)]"), "{place}");
    }
}

/// Goal: inside relayd each part knows what it should: stages not each other, the ring no message, and what is built from
/// the configuration not the configuration.
#[test]
fn the_appliance_keeps_its_layers() {
    let words = ["crate::config", "crate::startup"];
    let built = [
        "stage",
        "arena",
        "counters",
        "fixed_files",
        "housekeeping",
        "idle",
        "indexer",
        "link",
        "pipeline",
        "preparation",
        "released_log",
        "ring",
        "space",
        "storage",
    ];
    for (path, text) in sources("relay/src") {
        let inside = path.strip_prefix(root().join("relay/src")).unwrap();
        let first = inside.iter().next().unwrap().to_string_lossy().into_owned();
        if built.contains(&first.trim_end_matches(".rs")) {
            let found = words.iter().find(|&&word| product(&text).contains(word));
            let shown = inside.display();
            assert_eq!(found, None, "{shown}: take values, not the configuration");
        }
    }
    for stage in ["ingress", "sequence", "egress"] {
        let words = [format!("crate::stage::{stage}"), format!("super::{stage}")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let why = "stages talk through links";
        forbid("relay/src/stage", &words, &[], why);
    }
    for (path, text) in sources("relay/src") {
        if path.ends_with("ring.rs") || path.ends_with("fixed_files.rs") {
            let shown = path.display();
            assert!(
                !product(&text).contains("relay_"),
                "{shown}: it knows no message"
            );
        }
    }
}
