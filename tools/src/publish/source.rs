//! Where the messages of `relay pub` come from.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use crate::exit::Failure;
use crate::flow::{Flow, FlowKind};
use crate::pcap::{CaptureReader, transport};

/// Lines read ahead of the publisher.
const LINES_AHEAD: usize = 4096;
/// Longest line: the largest payload limit a relay can be given. A longer one is no message anyway.
const LINE_LENGTH_MAX: u64 = 1 << 20;

/// What a source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A message; its payload is in the buffer that was given.
    Message {
        /// The source's own time of it, ns; 0 where it has none.
        time_ns: u64,
        /// The port it was going to, where that makes its topic.
        port: Option<u16>,
    },
    /// Nothing now, but later perhaps.
    NotYet,
    /// Nothing any more.
    End,
}

/// A source of messages.
pub(super) struct Source {
    kind: Kind,
    length: Option<u64>,
}

enum Kind {
    /// Lines come through a thread of their own, since reading them may block while heartbeats are due.
    Lines(Receiver<Result<Vec<u8>, Failure>>),
    Whole(std::vec::IntoIter<PathBuf>),
    Capture {
        reader: CaptureReader<BufReader<File>>,
        path: PathBuf,
        is_per_port: bool,
    },
    Flow(Flow),
}

impl Source {
    pub(super) fn lines(mut files: Vec<PathBuf>) -> Result<Self, Failure> {
        if files.is_empty() {
            files.push("-".into());
        }
        let (sender, receiver) = sync_channel(LINES_AHEAD);
        let read = move || {
            for path in files {
                let sent = read_lines(&path, &mut |line| sender.send(Ok(line)).is_ok());
                match sent {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        // With the receiver gone nobody wants to know.
                        let _ = sender.send(Err(Failure::file("reading", &path, &error)));
                        return;
                    }
                }
            }
        };
        thread::Builder::new()
            .name("relay-lines".into())
            .spawn(read)
            .map_err(|error| Failure::Failed(format!("starting a thread: {error}")))?;
        Ok(Self {
            kind: Kind::Lines(receiver),
            length: None,
        })
    }

    pub(super) fn whole(files: Vec<PathBuf>) -> Self {
        let length = Some(files.len() as u64);
        Self {
            kind: Kind::Whole(files.into_iter()),
            length,
        }
    }

    pub(super) fn capture(path: &Path, is_per_port: bool) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::file("opening", path, &error))?;
        let reader = CaptureReader::new(BufReader::new(file))
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        let kind = Kind::Capture {
            reader,
            path: path.to_owned(),
            is_per_port,
        };
        Ok(Self { kind, length: None })
    }

    pub(super) fn flow(kind: FlowKind, count: u64, seed: u64) -> Self {
        Self {
            kind: Kind::Flow(Flow::new(kind, count, seed)),
            length: Some(count),
        }
    }

    /// How many messages there will be, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Puts the next message into `payload`.
    pub(super) fn next(&mut self, payload: &mut Vec<u8>) -> Result<Next, Failure> {
        match &mut self.kind {
            Kind::Lines(receiver) => match receiver.try_recv() {
                Ok(line) => {
                    *payload = line?;
                    Ok(Next::Message {
                        time_ns: 0,
                        port: None,
                    })
                }
                Err(TryRecvError::Empty) => Ok(Next::NotYet),
                Err(TryRecvError::Disconnected) => Ok(Next::End),
            },
            Kind::Whole(files) => {
                let Some(path) = files.next() else {
                    return Ok(Next::End);
                };
                *payload =
                    fs::read(&path).map_err(|error| Failure::file("reading", &path, &error))?;
                Ok(Next::Message {
                    time_ns: 0,
                    port: None,
                })
            }
            Kind::Capture {
                reader,
                path,
                is_per_port,
            } => loop {
                let frame = match reader.next_frame() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Ok(Next::End),
                    Err(error) => {
                        return Err(Failure::Damaged(format!("{}: {error}", path.display())));
                    }
                };
                if let Some(found) = transport(frame.link_type, frame.bytes) {
                    payload.clear();
                    payload.extend_from_slice(found.payload);
                    let port = is_per_port.then_some(found.port);
                    return Ok(Next::Message {
                        time_ns: frame.time_ns,
                        port,
                    });
                }
            },
            Kind::Flow(flow) => Ok(match flow.next(payload) {
                Some(time_ns) => Next::Message {
                    time_ns,
                    port: None,
                },
                None => Next::End,
            }),
        }
    }
}

/// Gives each line, without its end, to `take` until that says no; whether it never did.
fn read_lines(path: &Path, take: &mut dyn FnMut(Vec<u8>) -> bool) -> io::Result<bool> {
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path)?))
    };
    loop {
        let mut line = Vec::new();
        let read = (&mut input)
            .take(LINE_LENGTH_MAX + 1)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(true);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if read as u64 > LINE_LENGTH_MAX {
            let text = "a line of over 1 MiB is no message; send it as a file with --whole";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if !take(line) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_without_their_ends_and_the_last_needs_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lines");
        fs::write(&path, b"one\n\ntwo \r\nthree").expect("written");
        let mut lines = Vec::new();
        let all = read_lines(&path, &mut |line| {
            lines.push(line);
            true
        });
        assert!(all.expect("readable"));
        assert_eq!(lines, [&b"one"[..], b"", b"two \r", b"three"]);
    }

    #[test]
    fn an_endless_line_is_refused_and_not_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("long");
        fs::write(&path, vec![b'x'; LINE_LENGTH_MAX as usize + 2]).expect("written");
        let error = read_lines(&path, &mut |_| true).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
