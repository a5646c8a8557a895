//! The page of an audit: plain HTML that shows itself without a network, for whoever keeps it.

use std::fmt::Write;

use relay_journal::segment;

use super::finding::Finding;
use super::journal::{ClockLine, EpochLine, SessionLine};
use super::seals::Seals;
use super::{Judgement, Verification};
use crate::output::thousands;
use crate::publish::utc_ns;
use crate::when::utc_text;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#1a1a1a}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
table{border-collapse:collapse;width:100%;margin:.5em 0}\
th,td{border:1px solid #c8c8c8;padding:.3em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}\
th{background:#f2f2f2;font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}\
.verdict{padding:.6em 1em;border-left:.4em solid;font-weight:600}\
.clean{border-color:#1b7f3b;background:#e9f6ed}.incomplete{border-color:#b57900;background:#fdf4e0}\
.damaged,.tampered{border-color:#b3261e;background:#fbeae9}";

/// The page.
pub(super) fn page(judgement: &Judgement) -> String {
    let mut page = Page(String::new());
    let status = judgement.status.word();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width\">");
    page.raw("<title>Journal audit: ")
        .text(status)
        .raw("</title>");
    page.raw("<style>")
        .raw(STYLE)
        .raw("</style></head>\n<body>");
    page.raw("<h1>Journal audit</h1>\n");
    page.raw("<p class=\"verdict ").raw(status).raw("\">");
    page.text(&verdict(judgement)).raw("</p>\n");
    page.facts(judgement);
    for journal in &judgement.journals {
        page.journal(journal);
    }
    page.findings(judgement);
    page.raw("</body></html>\n");
    page.0
}

fn verdict(judgement: &Judgement) -> String {
    let word = match judgement.status.word() {
        "clean" => "Clean: nothing was found wrong.".to_owned(),
        other => {
            let mut word = other.to_owned();
            word[..1].make_ascii_uppercase();
            format!("{word}: {} findings.", thousands(judgement.finding_count))
        }
    };
    let range = match (judgement.first_seq, judgement.last_seq) {
        (Some(first), Some(last)) => format!(", seq {first} to {last}"),
        _ => String::new(),
    };
    format!("{word} {} messages{range}.", thousands(judgement.records))
}

/// A page in the making. Only [`Page::raw`] takes text as it is.
struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    /// Adds text with everything escaped that HTML would read.
    fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                control if control.is_control() => {
                    write!(self.0, "\\u{{{:x}}}", u32::from(control)).expect("a string takes all");
                }
                other => self.0.push(other),
            }
        }
        self
    }

    fn row(&mut self, cells: &[&str]) {
        self.raw("<tr>");
        for cell in cells {
            self.raw("<td>").text(cell).raw("</td>");
        }
        self.raw("</tr>\n");
    }

    fn head(&mut self, names: &[&str]) {
        self.raw("<table><thead><tr>");
        for name in names {
            self.raw("<th>").text(name).raw("</th>");
        }
        self.raw("</tr></thead><tbody>\n");
    }

    fn end(&mut self) {
        self.raw("</tbody></table>\n");
    }

    /// A table of two columns.
    fn pairs(&mut self, pairs: &[(&str, String)]) {
        self.raw("<table><tbody>\n");
        for (name, value) in pairs {
            self.raw("<tr><th>").text(name).raw("</th><td>");
            self.text(value).raw("</td></tr>\n");
        }
        self.end();
    }

    fn facts(&mut self, judgement: &Judgement) {
        let bound = judgement.clock_bound_ns as f64 / 1e9;
        let mut pairs = vec![
            ("made", utc_text(utc_ns())),
            ("by", judgement.tool.clone()),
            (
                "checked",
                "every block's header, body and padding checksums; that each block continues the one before; every \
                 record's checksum; seqs, publishers' sequences and incarnations, topics, epochs and receive times \
                 without gap or step back; where there are seals, each finished segment's bytes against its signed root"
                    .to_owned(),
            ),
            ("clock", format!("blocks' times may go back by {bound} s")),
        ];
        if judgement.journals.len() > 1 {
            let (start, end) = judgement.compared;
            let result = match &judgement.difference {
                None if judgement.identical_bytes == end.saturating_sub(start) => {
                    format!("identical, byte for byte, from position {start} to {end}")
                }
                None => format!(
                    "identical, byte for byte, in the {} bytes between position {start} and {end} that can be read in all of them",
                    judgement.identical_bytes
                ),
                Some(difference) => difference.text(),
            };
            pairs.push(("compared with each other", result));
        }
        self.pairs(&pairs);
    }

    fn journal(&mut self, journal: &Verification) {
        self.raw("<h2>").text(&journal.directory).raw("</h2>\n");
        let seqs = match (journal.first_seq, journal.last_seq) {
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => "none".to_owned(),
        };
        let mut state = if journal.verified {
            "nothing wrong"
        } else {
            "NOT RIGHT, see the findings"
        }
        .to_owned();
        if journal.is_live {
            state.push_str("; a relay ran on it, it was read as far as was released");
        }
        if journal.torn_tail {
            state.push_str("; behind its end lies something that was never durable");
        }
        self.pairs(&[
            ("result", state),
            (
                "node, stream",
                format!("{}, {}", journal.node, journal.stream),
            ),
            (
                "disk incarnation",
                format!("{:016x}", journal.disk_incarnation),
            ),
            ("seqs", seqs),
            (
                "messages, records, blocks",
                format!(
                    "{}, {}, {}",
                    thousands(journal.messages),
                    thousands(journal.records),
                    thousands(journal.blocks)
                ),
            ),
            (
                "positions",
                format!(
                    "{} to {}, released up to {}",
                    journal.start, journal.tail, journal.released
                ),
            ),
            (
                "rules checked up to position",
                journal.rules_checked_to.to_string(),
            ),
            (
                "clock went back at most",
                format!("{:.9} s", journal.clock_back_ns_max as f64 / 1e9),
            ),
        ]);
        if let Some(seals) = &journal.seals {
            self.seals(seals);
        }
        self.sessions(&journal.sessions);
        self.epochs(&journal.epochs);
    }

    fn sessions(&mut self, sessions: &[SessionLine]) {
        if sessions.is_empty() {
            return;
        }
        self.head(&[
            "trading session",
            "name",
            "seqs",
            "messages",
            "clock, against UTC",
            "clock went back at most",
        ]);
        for session in sessions {
            let seqs = match (session.first_seq, session.last_seq) {
                (Some(first), Some(last)) => format!("{first} to {last}"),
                _ => "none".to_owned(),
            };
            self.row(&[
                &session.number.to_string(),
                &session.name,
                &seqs,
                &thousands(session.messages),
                &session
                    .clock
                    .as_ref()
                    .map_or_else(|| "not stated".to_owned(), ClockLine::text),
                &format!("{:.9} s", session.clock_back_ns_max as f64 / 1e9),
            ]);
        }
        self.end();
    }

    /// Keys, and the root of every sealed segment.
    fn seals(&mut self, seals: &Seals) {
        self.raw("<p>").text(&seals.text()).raw("</p>\n");
        self.head(&["public key", "id", "from segment", "named", "relied on"]);
        for key in &seals.keys {
            let relied = match (key.is_trusted, seals.is_key_given) {
                (true, true) => "given, or vouched for by one that was",
                (true, false) => "the first in the file, or vouched for by it",
                (false, _) => "NO",
            };
            self.row(&[
                &key.public_key,
                &key.id,
                &segment::name(key.segment),
                &utc_text(key.time_ns),
                relied,
            ]);
        }
        self.end();
        for cut in &seals.cuts {
            self.raw("<p>").text(&cut.text()).raw("</p>\n");
        }
        self.head(&[
            "segment",
            "BLAKE3 root",
            "seal hash",
            "signed by",
            "sealed",
            "verdict",
        ]);
        for root in &seals.roots {
            self.row(&[
                &segment::name(root.segment),
                &root.root,
                &root.hash,
                &root.signer,
                &utc_text(root.time_ns),
                &root.verdict,
            ]);
        }
        self.end();
    }

    fn epochs(&mut self, epochs: &[EpochLine]) {
        if epochs.is_empty() {
            return;
        }
        self.head(&[
            "epoch",
            "position",
            "first seq",
            "copies",
            "policy",
            "stop before",
        ]);
        for epoch in epochs {
            let stop = if epoch.follows_clean_stop {
                "in order"
            } else {
                "none, or not in order"
            };
            self.row(&[
                &epoch.epoch.to_string(),
                &epoch.start.to_string(),
                &epoch.first_seq.to_string(),
                &epoch.copies.to_string(),
                &epoch.policy,
                stop,
            ]);
        }
        self.end();
    }

    fn findings(&mut self, judgement: &Judgement) {
        self.raw("<h2>Findings</h2>\n");
        if judgement.findings.is_empty() {
            self.raw("<p>None.</p>\n");
            return;
        }
        let names = [
            "verdict", "journal", "position", "segment", "offset", "seq", "field", "what",
        ];
        self.head(&names);
        for finding in &judgement.findings {
            self.finding(finding);
        }
        self.end();
        let listed = judgement.findings.len() as u64;
        if judgement.finding_count > listed {
            let more = thousands(judgement.finding_count - listed);
            self.raw("<p>")
                .text(&more)
                .raw(" more are not listed.</p>\n");
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
        self.row(&[
            finding.status.word(),
            &finding.journal,
            &number(finding.position),
            finding.segment.as_deref().unwrap_or_default(),
            &number(finding.offset),
            &number(finding.seq),
            finding.field.as_deref().unwrap_or_default(),
            &finding.text,
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_read_as_html() {
        let mut page = Page(String::new());
        page.text("<script>\"a\" & 'b'\u{7}</script>");
        assert_eq!(
            page.0,
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\\u{7}&lt;/script&gt;"
        );
    }
}
