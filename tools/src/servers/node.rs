//! One node: its configuration file, its journal, its process.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::daemon::Daemon;
use super::port::KeptPort;
use super::{Background, Idle, Mode, Policy, Size, WriteMethod, word};
use crate::exit::Failure;
use crate::output::{hex, spinner};

/// Id of a node's first stream; most have no other.
pub(super) const STREAM: u32 = 1;
/// Segments of several streams are this small, so that they share the space that one would have.
const SEGMENT_OF_SEVERAL: Size = Size(16 << 20);
/// Publishers and connections that the configuration allows if it says nothing.
const PUBLISHERS_USUAL: u64 = 64;
const CONNECTIONS_USUAL: u64 = 1024;
/// Name of the credential of whoever only reads.
pub(super) const SUBSCRIBER_NAME: &str = "subscriber";

/// What every node of a cluster is to be.
#[derive(Debug, Clone)]
pub(crate) struct NodeSettings {
    pub(crate) mode: Mode,
    pub(crate) idle: Idle,
    pub(crate) policy: Policy,
    pub(crate) write_method: WriteMethod,
    /// Of each stream.
    pub(crate) prepared: Size,
    pub(crate) background: Background,
    /// Publisher ids 1 to this one get a credential each, in every stream.
    pub(crate) publishers: u64,
}

/// A node's part in its group, as the configuration writes it.
#[derive(Debug)]
pub(super) struct GroupPart {
    pub(super) mirror_port: KeptPort,
    /// Number and address of each other node.
    pub(super) peers: Vec<(u64, String)>,
    pub(super) witness: String,
    pub(super) secret: Vec<u8>,
}

/// What streams of a node do not share.
#[derive(Debug)]
pub(super) struct StreamPart {
    /// Where it listens for clients.
    pub(super) port: KeptPort,
    /// Empty for no pinning.
    pub(super) cpus: Vec<usize>,
}

/// A node that is not the same for all.
#[derive(Debug)]
pub(super) struct NodePart {
    /// Its number, from 1.
    pub(super) number: u64,
    /// By place; their ids begin at [`STREAM`]. One alone where there is a group.
    pub(super) streams: Vec<StreamPart>,
    pub(super) group: Option<GroupPart>,
    /// The clients' secret, the same on every node.
    pub(super) secret: Vec<u8>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Node {
    directory: PathBuf,
    settings: NodeSettings,
    part: NodePart,
    pub(super) daemon: Daemon,
}

/// Name of the credential of publisher `id`.
pub(super) fn publisher_name(id: u64) -> String {
    format!("publisher-{id}")
}

impl Node {
    /// Writes the configuration into `directory` and formats the journal there.
    pub(super) fn prepare(
        relayd: PathBuf,
        directory: &Path,
        settings: NodeSettings,
        part: NodePart,
    ) -> Result<Self, Failure> {
        let config = directory.join("relayd.toml");
        let log = directory.join("relayd.log");
        let node = Self {
            directory: directory.to_owned(),
            settings,
            part,
            daemon: Daemon::new(relayd, config, log),
        };
        node.write_config()?;
        let bar = spinner("preparing the journal");
        let formatted = node
            .daemon
            .command("format")
            .and_then(|command| node.daemon.complete("format", command));
        bar.finish_and_clear();
        formatted?;
        Ok(node)
    }

    /// Starts it and waits until it accepts clients.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        // Each says so once all have started.
        let ready = format!("ready stream={STREAM} listen=");
        self.daemon.start("run", &ready).map(|_| ())
    }

    /// Where the stream at `place` listens.
    pub(super) fn address(&self, place: usize) -> SocketAddr {
        self.part.streams[place].port.address()
    }

    /// Directory of the stream at `place`: journal and counters.
    pub(super) fn stream_directory(&self, place: usize) -> PathBuf {
        self.directory_of(STREAM + place as u32)
    }

    fn directory_of(&self, id: u32) -> PathBuf {
        let number = if id == STREAM {
            String::new()
        } else {
            id.to_string()
        };
        self.directory.join(format!("stream{number}"))
    }

    fn write_config(&self) -> Result<(), Failure> {
        let path = self.daemon.config();
        fs::write(path, self.config()).map_err(|error| Failure::file("writing", path, &error))
    }

    fn config(&self) -> String {
        let streams = (STREAM..).zip(&self.part.streams);
        let sections: String = streams
            .map(|(id, stream)| self.section(id, stream))
            .collect();
        format!("node = {}\n{sections}", self.part.number)
    }

    fn section(&self, id: u32, stream: &StreamPart) -> String {
        let (settings, part) = (&self.settings, &self.part);
        let directory = toml::Value::from(self.directory_of(id).to_string_lossy().into_owned());
        let mut text = format!(
            "\n[[stream]]\nid = {id}\nname = \"main-{id}\"\nlisten = \"{}\"\n\
             directory = {directory}\npolicy = \"{}\"\n\n[stream.threads]\nmode = \"{}\"\nidle = \"{}\"\n",
            stream.port.address(),
            word(&settings.policy),
            word(&settings.mode),
            word(&settings.idle)
        );
        let mut add = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("a string takes all");
        };
        if !stream.cpus.is_empty() {
            add(format_args!("cpus = {:?}\n", stream.cpus));
        }
        add(format_args!(
            "\n[stream.journal]\nprepared = \"{}\"\nwrite_method = \"{}\"\n",
            settings.prepared.text(),
            word(&settings.write_method)
        ));
        let is_busy = settings.background == Background::Busy;
        if part.streams.len() > 1 && !is_busy {
            let size = SEGMENT_OF_SEVERAL.text();
            add(format_args!("segment_size = \"{size}\"\n"));
        }
        match settings.background {
            Background::Off => {
                add(format_args!(
                    "scrub_every_s = 0\n\n[stream.evidence]\nseals = false\n"
                ));
            }
            Background::Usual => {}
            Background::Busy => {
                add(format_args!("segment_size = \"4MiB\"\nscrub_every_s = 1\n"));
            }
        }
        if let Some(group) = &part.group {
            add(format_args!("{}", group.section()));
        }
        if settings.publishers > PUBLISHERS_USUAL {
            add(format_args!(
                "\n[stream.limits]\npublishers = {0}\nconnections = {1}\nunauthenticated = {0}\n",
                settings.publishers,
                settings.publishers + CONNECTIONS_USUAL
            ));
        }
        let secret = hex(&part.secret);
        for id in 1..=settings.publishers {
            add(format_args!(
                "\n[[stream.credential]]\nname = \"{}\"\nsecret = \"{secret}\"\npublisher = {id}\n\
                 publish = [\">\"]\n",
                publisher_name(id)
            ));
        }
        add(format_args!(
            "\n[[stream.credential]]\nname = \"{SUBSCRIBER_NAME}\"\nsecret = \"{secret}\"\n\
             subscribe = [\">\"]\n"
        ));
        text
    }
}

impl GroupPart {
    fn section(&self) -> String {
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|(node, address)| format!("{{ node = {node}, address = \"{address}\" }}"))
            .collect();
        format!(
            "\n[stream.group]\nmirror_listen = \"{}\"\nsecret = \"{}\"\npeers = [{}]\n\n\
             [stream.group.arbiter]\nkind = \"witness\"\naddress = \"{}\"\n",
            self.mirror_port.address(),
            hex(&self.secret),
            peers.join(", "),
            self.witness
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(streams: usize, group: Option<GroupPart>) -> Node {
        Node {
            directory: "/tmp/a \"b\"".into(),
            settings: NodeSettings {
                mode: Mode::Split,
                idle: Idle::Park,
                policy: Policy::Local,
                write_method: WriteMethod::Auto,
                prepared: Size(64 << 20),
                background: Background::Usual,
                publishers: 2,
            },
            part: NodePart {
                number: 2,
                streams: (0..streams)
                    .map(|_| StreamPart {
                        port: KeptPort::any().expect("a port"),
                        cpus: vec![0, 2, 3],
                    })
                    .collect(),
                group,
                secret: vec![1, 2],
            },
            daemon: Daemon::new("relayd".into(), "config".into(), "log".into()),
        }
    }

    #[test]
    fn the_configuration_is_toml_and_says_what_was_asked() {
        let config: toml::Table = node(1, None).config().parse().expect("TOML");
        assert_eq!(config["node"].as_integer(), Some(2));
        let stream = &config["stream"][0];
        assert_eq!(stream["directory"].as_str(), Some("/tmp/a \"b\"/stream"));
        assert_eq!(stream["threads"]["mode"].as_str(), Some("split"));
        assert_eq!(stream["threads"]["cpus"].as_array().map(Vec::len), Some(3));
        assert_eq!(stream["journal"]["prepared"].as_str(), Some("64MiB"));
        assert_eq!(stream["credential"].as_array().map(Vec::len), Some(3));
        assert_eq!(stream["credential"][1]["publisher"].as_integer(), Some(2));
        assert!(stream.get("group").is_none());
    }

    #[test]
    fn several_streams_have_a_section_each_and_share_nothing() {
        let config: toml::Table = node(2, None).config().parse().expect("TOML");
        let streams = config["stream"].as_array().expect("sections");
        let [first, second] = streams.as_slice() else {
            panic!("{streams:?}")
        };
        assert_eq!(second["id"].as_integer(), Some(2));
        assert_eq!(second["journal"]["segment_size"].as_str(), Some("16MiB"));
        for key in ["listen", "directory", "name"] {
            assert_ne!(first[key], second[key]);
        }
        assert_eq!(first["credential"], second["credential"]);
        for (place, stream) in streams.iter().enumerate() {
            let directory = node(2, None).stream_directory(place);
            assert_eq!(stream["directory"].as_str(), directory.to_str());
        }
    }

    #[test]
    fn a_group_has_its_peers_and_its_witness() {
        let group = GroupPart {
            mirror_port: KeptPort::any().expect("a port"),
            peers: vec![(1, "127.0.0.1:1".into()), (3, "127.0.0.1:3".into())],
            witness: "127.0.0.1:9".into(),
            secret: vec![255],
        };
        let config: toml::Table = node(1, Some(group)).config().parse().expect("TOML");
        let group = &config["stream"][0]["group"];
        assert_eq!(group["secret"].as_str(), Some("ff"));
        assert_eq!(group["peers"][1]["node"].as_integer(), Some(3));
        assert_eq!(group["arbiter"]["address"].as_str(), Some("127.0.0.1:9"));
    }
}
