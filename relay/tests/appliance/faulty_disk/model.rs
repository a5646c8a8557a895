//! What a disk keeps: the files of a [`FaultyDisk`](super::FaultyDisk), and what of them a power cut leaves.
//!
//! Fault model: a write is there for readers at once, and durable only with a sync of its file, or at once where it was made
//! with `O_DSYNC`. A power cut keeps any subset of the sectors (512 bytes) written since, each in any of the versions it had.
//! A name made, replaced or removed is durable only with a sync of its directory; a power cut takes back any number of the
//! newest changes of names that are not. A disk that lies answers every sync and makes nothing durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use super::super::Random;

pub const SECTOR: usize = 512;
pub const ROOT: u64 = 1;

type Sector = [u8; SECTOR];

/// A file's bytes, and what its sectors were since they were last durable.
#[derive(Default)]
pub struct Contents {
    bytes: Vec<u8>,
    /// Older versions of sectors that are not durable, the durable one first.
    before: BTreeMap<usize, Vec<Sector>>,
    durable_length: usize,
}

impl Contents {
    pub const fn length(&self) -> usize {
        self.bytes.len()
    }

    pub fn read(&self, offset: usize, length: usize) -> &[u8] {
        let from = offset.min(self.bytes.len());
        &self.bytes[from..(from + length).min(self.bytes.len())]
    }

    fn write(&mut self, offset: usize, data: &[u8], is_durable: bool) {
        let end = offset + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            if is_durable {
                self.before.remove(&sector);
            } else {
                self.remember(sector);
            }
        }
        self.bytes[offset..end].copy_from_slice(data);
        if is_durable {
            self.durable_length = self.durable_length.max(end);
        }
    }

    fn truncate(&mut self, length: usize) {
        for sector in length / SECTOR..self.bytes.len().div_ceil(SECTOR) {
            self.remember(sector);
        }
        self.bytes.resize(length, 0);
    }

    fn remember(&mut self, sector: usize) {
        let mut version = [0; SECTOR];
        let there = self.read(sector * SECTOR, SECTOR);
        version[..there.len()].copy_from_slice(there);
        self.before.entry(sector).or_default().push(version);
    }

    fn sync(&mut self) {
        self.before.clear();
        self.durable_length = self.bytes.len();
    }

    /// Leaves one of the states that a power cut may leave.
    fn cut(&mut self, random: &mut Random) {
        if random.below(2) == 0 {
            self.bytes.resize(self.durable_length, 0);
        }
        for (sector, versions) in std::mem::take(&mut self.before) {
            let chosen = random.below(versions.len() as u64 + 1) as usize;
            let from = sector * SECTOR;
            let Some(version) = versions.get(chosen).filter(|_| from < self.bytes.len()) else {
                continue;
            };
            let to = (from + SECTOR).min(self.bytes.len());
            self.bytes[from..to].copy_from_slice(&version[..to - from]);
        }
        self.durable_length = self.bytes.len();
    }
}

pub enum Node {
    File(Contents),
    Directory(BTreeMap<OsString, u64>),
}

/// A change of names that is not durable: what was there before.
struct NameChange {
    /// Directory, name, and the node it named before.
    before: Vec<(u64, OsString, Option<u64>)>,
}

/// All files of a disk.
pub struct Model {
    nodes: BTreeMap<u64, Node>,
    changes: Vec<NameChange>,
    next: u64,
    /// Syncs are answered and change nothing.
    pub lies: bool,
}

impl Model {
    pub fn new() -> Self {
        let root = Node::Directory(BTreeMap::new());
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            changes: Vec::new(),
            next: ROOT + 1,
            lies: false,
        }
    }

    pub fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number)
    }

    pub fn contents(&mut self, number: u64) -> Option<&mut Contents> {
        match self.nodes.get_mut(&number) {
            Some(Node::File(contents)) => Some(contents),
            _ => None,
        }
    }

    pub fn names(&mut self, directory: u64) -> Option<&mut BTreeMap<OsString, u64>> {
        match self.nodes.get_mut(&directory) {
            Some(Node::Directory(names)) => Some(names),
            _ => None,
        }
    }

    pub fn find(&self, directory: u64, name: &OsStr) -> Option<u64> {
        match self.nodes.get(&directory) {
            Some(Node::Directory(names)) => names.get(name).copied(),
            _ => None,
        }
    }

    /// A name of the node, if it has one.
    pub fn find_name(&self, number: u64) -> Option<&OsStr> {
        self.nodes.values().find_map(|node| match node {
            Node::Directory(names) => {
                let found = names.iter().find(|(_, named)| **named == number);
                found.map(|(name, _)| name.as_os_str())
            }
            Node::File(_) => None,
        })
    }

    /// Makes a file or directory, in place of nothing.
    pub fn make(&mut self, directory: u64, name: &OsStr, node: Node) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.change(vec![(directory, name.to_owned(), Some(number))]);
        number
    }

    pub fn remove(&mut self, directory: u64, name: &OsStr) {
        self.change(vec![(directory, name.to_owned(), None)]);
    }

    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) {
        let number = self.find(from.0, from.1);
        self.change(vec![
            (from.0, from.1.to_owned(), None),
            (to.0, to.1.to_owned(), number),
        ]);
    }

    fn change(&mut self, after: Vec<(u64, OsString, Option<u64>)>) {
        let mut before = Vec::new();
        for (directory, name, number) in after {
            let old = self.put(directory, &name, number);
            before.push((directory, name, old));
        }
        self.changes.push(NameChange { before });
    }

    fn put(&mut self, directory: u64, name: &OsStr, number: Option<u64>) -> Option<u64> {
        let names = self.names(directory).expect("a directory");
        match number {
            Some(number) => names.insert(name.to_owned(), number),
            None => names.remove(name),
        }
    }

    /// `is_durable`: the write was made with `O_DSYNC`.
    pub fn write(&mut self, number: u64, offset: usize, data: &[u8], is_durable: bool) -> bool {
        let is_durable = is_durable && !self.lies;
        let Some(contents) = self.contents(number) else {
            return false;
        };
        contents.write(offset, data, is_durable);
        true
    }

    pub fn truncate(&mut self, number: u64, length: usize) -> bool {
        let Some(contents) = self.contents(number) else {
            return false;
        };
        contents.truncate(length);
        true
    }

    /// Makes a file's bytes durable, or a directory's names.
    pub fn sync(&mut self, number: u64) {
        if self.lies {
            return;
        }
        match self.nodes.get_mut(&number) {
            Some(Node::File(contents)) => contents.sync(),
            Some(Node::Directory(_)) => {
                let is_of = |change: &NameChange| change.before.iter().any(|b| b.0 == number);
                self.changes.retain(|change| !is_of(change));
            }
            None => {}
        }
    }

    /// The power goes: what is left is what there is from now on, and all of it durable.
    pub fn cut(&mut self, random: &mut Random) {
        let kept = random.below(self.changes.len() as u64 + 1) as usize;
        while self.changes.len() > kept {
            let change = self.changes.pop().expect("there are more than are kept");
            for (directory, name, number) in change.before.into_iter().rev() {
                self.put(directory, &name, number);
            }
        }
        self.changes.clear();
        for node in self.nodes.values_mut() {
            if let Node::File(contents) = node {
                contents.cut(random);
            }
        }
        self.forget_the_nameless();
    }

    fn forget_the_nameless(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(directory) = open.pop() {
            let numbers: Vec<u64> = match self.nodes.get(&directory) {
                Some(Node::Directory(names)) => names.values().copied().collect(),
                _ => Vec::new(),
            };
            open.extend(numbers.iter().filter(|number| named.insert(**number)));
        }
        self.nodes.retain(|number, _| named.contains(number));
    }
}
