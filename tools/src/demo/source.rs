//! What the demonstration publishes: a capture, or a generated flow, at the pace that fills its time.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::exit::Failure;
use crate::output::thousands;
use crate::pcap::{CaptureReader, transport};

/// What is published.
pub(super) struct Source {
    pub(super) messages: u64,
    pub(super) text: String,
    /// For `relay pub`.
    pub(super) arguments: Vec<String>,
}

impl Source {
    /// A capture, or else so many generated messages; published within `seconds`.
    pub(super) fn of(
        capture: Option<&Path>,
        messages: u64,
        seed: u64,
        seconds: f64,
    ) -> Result<Self, Failure> {
        let Some(path) = capture else {
            let messages = messages.max(1);
            // A generated flow makes 2,000 messages a second by its own clock.
            let speed = messages as f64 / 2_000.0 / seconds;
            let mut arguments = vec!["--topic".into(), "demo.flow".into()];
            arguments.extend(["--generate".into(), "capture-like".into()]);
            arguments.extend(["--count".into(), messages.to_string()]);
            arguments.extend(["--seed".into(), seed.to_string()]);
            arguments.extend(["--pace".into(), format!("x{speed}")]);
            let text = format!("{} generated messages", thousands(messages));
            return Ok(Self {
                messages,
                text,
                arguments,
            });
        };
        let (messages, span_ns) = measure(path)?;
        if messages == 0 {
            return Err(Failure::Failed(format!(
                "{} holds no UDP or TCP payload; give another capture",
                path.display()
            )));
        }
        let mut arguments = vec!["--pcap".into(), path.to_string_lossy().into_owned()];
        arguments.extend([
            "--topic".into(),
            "demo.feed".into(),
            "--topic-per-port".into(),
        ]);
        let speed = span_ns as f64 / 1e9 / seconds;
        if speed > 1e-6 {
            arguments.extend(["--pace".into(), format!("x{speed}")]);
        } else {
            arguments.extend(["--rate".into(), format!("{}", messages as f64 / seconds)]);
        }
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let text = format!("{} messages of {name}", thousands(messages));
        Ok(Self {
            messages,
            text,
            arguments,
        })
    }
}

/// Messages of a capture and the time from its first to its latest, ns.
fn measure(path: &Path) -> Result<(u64, u64), Failure> {
    let file = File::open(path).map_err(|error| Failure::file("opening", path, &error))?;
    let damaged = |error| Failure::Damaged(format!("{}: {error}", path.display()));
    let mut reader = CaptureReader::new(BufReader::new(file)).map_err(damaged)?;
    let (mut messages, mut first_ns, mut last_ns) = (0, u64::MAX, 0);
    while let Some(frame) = reader.next_frame().map_err(damaged)? {
        if transport(frame.link_type, frame.bytes).is_some() {
            messages += 1;
            if first_ns == u64::MAX {
                first_ns = frame.time_ns;
            }
            last_ns = last_ns.max(frame.time_ns);
        }
    }
    Ok((messages, last_ns.saturating_sub(first_ns)))
}
