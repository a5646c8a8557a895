//! An operator's words to a running node: a socket in the journal's directory, one line each way.
//!
//! ```text
//! relay hand-over --> admin.sock --line--> this thread --Word--> hot thread: the node decides
//!                                              ^----Answer + wake----'
//! ```
//!
//! A request is `hand-over [NODE]`, `detach NODE`, `attach NODE`, `promote [accept-loss NODE]`, `roll-session NUMBER NAME` or
//! `status`; the answer is one line of JSON: `{"ok":true}`, or `{"ok":false,"error":"..."}`. One request at a time is served; the socket belongs to the
//! user relayd runs as.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use relay_core::command::SessionName;
use relay_core::group::WordRefused;
use relay_wire::id::NodeId;

use crate::link::Parking;
use crate::startup::StartError;

/// Name of the socket in a stream's directory.
const SOCKET_NAME: &str = "admin.sock";
/// Longest request.
const REQUEST_LENGTH_MAX: u64 = 256;
/// Whoever connects has this long to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most time the hot thread takes for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PAUSE: Duration = Duration::from_millis(1);
/// Words that may wait for the hot thread.
const WORDS_MAX: usize = 8;

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Another node is to lead: this one, or the one that has kept up best.
    HandOver(Option<NodeId>),
    /// A node is to be out of the set until it is let in again.
    Detach(NodeId),
    Attach(NodeId),
    /// This node is to lead.
    Promote {
        accepts_loss: bool,
    },
    /// The trading session is to be closed and this one opened.
    RollSession {
        number: u64,
        name: SessionName,
    },
}

/// What the node said to a word.
pub(crate) type Answer = Result<(), WordRefused>;

/// The hot thread's ends.
pub(crate) struct AdminLink {
    pub(crate) words: rtrb::Consumer<Word>,
    pub(crate) answers: rtrb::Producer<Answer>,
}

/// The other ends.
struct Ends {
    words: rtrb::Producer<Word>,
    answers: rtrb::Consumer<Answer>,
    hot: Parking,
}

/// Where the words of whichever life goes on at the moment come from.
#[derive(Clone, Default)]
pub(crate) struct Admin {
    ends: Arc<Mutex<Option<Ends>>>,
}

impl Admin {
    /// Listens in `directory`; a socket that is left there belonged to a process that is gone, since the journal is locked.
    pub(crate) fn start(directory: &Path, node: NodeId, stream: u32) -> Result<Self, StartError> {
        let path = directory.join(SOCKET_NAME);
        let admin = Self::default();
        let listener = match listen(&path) {
            Ok(listener) => listener,
            // The flow does not need an operator: some filesystems hold no sockets.
            Err(error) => {
                tracing::warn!(
                    path = %path.display(),
                    %error,
                    "no socket for an operator's words can be made here: hand-over, detach, promote and \
                     roll-session are not to be had on this node"
                );
                return Ok(admin);
            }
        };
        let server = Server {
            admin: admin.clone(),
            node,
            directory: directory.to_owned(),
        };
        std::thread::Builder::new()
            .name(format!("admin-{stream}"))
            .spawn(move || server.run(&listener))?;
        Ok(admin)
    }

    /// Links the thread that sleeps in `hot`, in place of the one before.
    pub(crate) fn link(&self, hot: Parking) -> AdminLink {
        let (words_in, words) = rtrb::RingBuffer::new(WORDS_MAX);
        let (answers_in, answers) = rtrb::RingBuffer::new(WORDS_MAX);
        *self.lock() = Some(Ends {
            words: words_in,
            answers,
            hot,
        });
        AdminLink {
            words,
            answers: answers_in,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Ends>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a word on and waits for what the node says.
    pub(crate) fn say(&self, word: Word) -> Result<(), String> {
        let busy =
            || "the node begins again from its disk just now: try again in a moment".to_owned();
        let mut ends = self.lock();
        let ends = ends.as_mut().ok_or_else(busy)?;
        while ends.answers.pop().is_ok() {}
        ends.words.push(word).map_err(|_| busy())?;
        ends.hot.wake();
        let begun = Instant::now();
        while begun.elapsed() < ANSWER_PATIENCE {
            match ends.answers.pop() {
                Ok(answer) => return answer.map_err(|refused| refused.to_string()),
                Err(_) if ends.answers.is_abandoned() => return Err(busy()),
                Err(_) => std::thread::sleep(ANSWER_PAUSE),
            }
        }
        Err("the node did not answer; see its log".to_owned())
    }
}

/// Listens where only this user may connect, from the first moment on.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(8)?;
    Ok(UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

/// Serves one operator after the other until the process ends.
struct Server {
    admin: Admin,
    node: NodeId,
    directory: PathBuf,
}

impl Server {
    fn run(&self, listener: &UnixListener) {
        for connection in listener.incoming() {
            match connection.and_then(|socket| self.serve(&socket)) {
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "an operator's connection ended early"),
            }
        }
    }

    fn serve(&self, socket: &UnixStream) -> std::io::Result<()> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut request = String::new();
        BufReader::new(socket.take(REQUEST_LENGTH_MAX)).read_line(&mut request)?;
        let request = request.trim();
        let answer = match request {
            "status" => self.status(),
            other => self
                .carry_out(other)
                .map(|()| serde_json::json!({ "ok": true })),
        };
        if request != "status" {
            let outcome = answer.as_ref().err().map_or("done", String::as_str);
            tracing::warn!(request, outcome, "an operator's word");
        }
        let answer =
            answer.unwrap_or_else(|error| serde_json::json!({ "ok": false, "error": error }));
        let mut socket = socket;
        writeln!(socket, "{answer}")
    }

    fn carry_out(&self, request: &str) -> Result<(), String> {
        let word = parse(request, self.node)?;
        self.admin.say(word)
    }

    /// The counters as they are.
    fn status(&self) -> Result<serde_json::Value, String> {
        let path = self.directory.join(relay_wire::counters::FILE_NAME);
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let view = relay_wire::counters::read(&bytes).map_err(|error| error.to_string())?;
        let counters: serde_json::Map<String, serde_json::Value> = view
            .counters()
            .filter(|(label, _)| !label.starts_with("hop."))
            .map(|(label, value)| (label.to_owned(), value.into()))
            .collect();
        Ok(serde_json::json!({ "ok": true, "node": self.node.get(), "counters": counters }))
    }
}

/// What a request asks of node `me`.
fn parse(request: &str, me: NodeId) -> Result<Word, String> {
    let node = |text: &str| match text.parse() {
        Ok(number) if number > 0 => Ok(NodeId(number)),
        _ => Err(format!("\"{text}\" is no node's number")),
    };
    let words: Vec<&str> = request.split_whitespace().collect();
    match words[..] {
        ["hand-over"] => Ok(Word::HandOver(None)),
        ["hand-over", to] => Ok(Word::HandOver(Some(node(to)?))),
        ["detach", which] => Ok(Word::Detach(node(which)?)),
        ["attach", which] => Ok(Word::Attach(node(which)?)),
        ["promote"] => Ok(Word::Promote {
            accepts_loss: false,
        }),
        ["promote", "accept-loss", which] if node(which)? == me => {
            Ok(Word::Promote { accepts_loss: true })
        }
        ["promote", "accept-loss", _] => Err(format!(
            "this is node {me}: a loss is accepted by naming the node that is to lead"
        )),
        ["roll-session", number, ..] => {
            let number = number.parse().ok().filter(|&number| number > 0);
            let number = number.ok_or("a trading session's number is a whole one above 0")?;
            // A name may hold blanks.
            let name = request.splitn(3, char::is_whitespace).nth(2).unwrap_or("");
            let name = SessionName::new(name.trim());
            let name = name.ok_or("a trading session's name has 1 to 64 bytes")?;
            Ok(Word::RollSession { number, name })
        }
        _ => Err(
            "hand-over [NODE], detach NODE, attach NODE, promote [accept-loss NODE], roll-session \
             NUMBER NAME or status is understood"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_refused() {
        let me = NodeId(2);
        assert_eq!(parse("hand-over", me), Ok(Word::HandOver(None)));
        assert_eq!(
            parse("hand-over 3", me),
            Ok(Word::HandOver(Some(NodeId(3))))
        );
        assert_eq!(parse("detach 1", me), Ok(Word::Detach(NodeId(1))));
        let lossy = Word::Promote { accepts_loss: true };
        assert_eq!(parse("promote accept-loss 2", me), Ok(lossy));
        let rolled = Word::RollSession {
            number: 20_261_130,
            name: SessionName::new("30 November").unwrap(),
        };
        assert_eq!(parse("roll-session 20261130 30 November", me), Ok(rolled));
        for wrong in [
            "",
            "roll-session",
            "roll-session 0 x",
            "roll-session 5",
            "roll-session x y",
            "hand-over x",
            "promote accept-loss 1",
            "detach",
            "detach 0",
        ] {
            assert!(parse(wrong, me).is_err(), "{wrong}");
        }
    }
}
