//! The log of dm-log-writes, read from its device. The layout is that of the kernel's `drivers/md/dm-log-writes.c`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;
/// Bytes of an entry before what a mark says.
const ENTRY_LENGTH: usize = 32;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Offset on the disk, bytes.
    pub(crate) offset: u64,
    /// Where its bytes lie in the log, and how many there are.
    pub(crate) data: (u64, u64),
    /// Whether everything before it is on the disk once it is.
    pub(crate) is_barrier: bool,
    /// Whether its bytes are dropped rather than written.
    pub(crate) is_discard: bool,
    /// What was marked.
    pub(crate) mark: Option<String>,
}

/// Reads entries in order.
#[derive(Debug)]
pub(crate) struct WriteLog {
    file: File,
    sector: u64,
    entries: u64,
    taken: u64,
    at: u64,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl WriteLog {
    /// The log on a device or in a file.
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0)?;
        let sector = u64::from(u32::from_le_bytes(
            head[24..28].try_into().expect("four bytes"),
        ));
        if word(&head, 0) != MAGIC || word(&head, 8) != VERSION || !(512..=65_536).contains(&sector)
        {
            return Err(broken("no log of dm-log-writes"));
        }
        Ok(Self {
            entries: word(&head, 16),
            file,
            sector,
            taken: 0,
            at: sector,
        })
    }

    /// How many entries there are.
    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; nothing at the end.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        if self.taken == self.entries {
            return Ok(None);
        }
        let mut block = vec![0; self.sector as usize];
        self.file.read_exact_at(&mut block, self.at)?;
        let (sector, sectors) = (word(&block, 0), word(&block, 8));
        let (flags, length) = (word(&block, 16), word(&block, 24));
        let mark = if flags & MARK == 0 {
            None
        } else {
            let said = block.get(ENTRY_LENGTH..ENTRY_LENGTH + length as usize);
            let said = said.ok_or_else(|| broken("a mark is longer than a sector"))?;
            Some(
                String::from_utf8_lossy(said)
                    .trim_end_matches('\0')
                    .to_owned(),
            )
        };
        let is_discard = flags & DISCARD != 0;
        let data_at = self.at + self.sector;
        let bytes = sectors * self.sector;
        self.taken += 1;
        self.at = data_at + if is_discard { 0 } else { bytes };
        Ok(Some(Entry {
            offset: sector * self.sector,
            data: (data_at, bytes),
            is_barrier: flags & (FLUSH | FUA) != 0,
            is_discard,
            mark,
        }))
    }

    /// Writes an entry's bytes where they belong on `disk`. A discard leaves what is there: it may stay.
    pub(crate) fn apply(&self, entry: &Entry, disk: &File) -> io::Result<()> {
        let (at, length) = entry.data;
        if entry.is_discard || length == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        disk.write_all_at(&bytes, entry.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entry(sector: u64, sectors: u64, flags: u64, said: &[u8]) -> Vec<u8> {
        let mut block: Vec<u8> = [sector, sectors, flags, said.len() as u64]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        block.extend(said);
        block.resize(512, 0);
        block
    }

    fn log(blocks: &[Vec<u8>], entries: u64) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        let mut head: Vec<u8> = [MAGIC, VERSION, entries]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        head.extend(512_u32.to_le_bytes());
        head.resize(512, 0);
        file.write_all(&head).expect("written");
        file.write_all(&blocks.concat()).expect("written");
        file
    }

    #[test]
    fn writes_marks_and_barriers_come_back_in_order() {
        let blocks = [
            entry(2, 1, 0, b""),
            vec![7; 512],
            entry(0, 0, FLUSH, b""),
            entry(0, 0, MARK, b"acknowledged 3"),
            entry(8, 4, DISCARD, b""),
            entry(1, 1, FUA, b""),
            vec![9; 512],
        ];
        let mut log = WriteLog::open(log(&blocks, 5)).expect("a log");
        let disk = tempfile::tempfile().expect("a file");
        let mut marks = Vec::new();
        let mut barriers = 0;
        while let Some(entry) = log.next_entry().expect("readable") {
            log.apply(&entry, &disk).expect("written");
            barriers += u64::from(entry.is_barrier);
            marks.extend(entry.mark);
        }
        assert_eq!(marks, ["acknowledged 3"]);
        assert_eq!(barriers, 2);
        let mut bytes = vec![0; 1536];
        disk.read_exact_at(&mut bytes, 0).expect("written");
        let expected = [vec![0; 512], vec![9; 512], vec![7; 512]].concat();
        assert!(bytes == expected, "the writes lie where they belong");
    }

    #[test]
    fn something_else_is_refused() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[1; 512], 0).expect("written");
        WriteLog::open(file).expect_err("no log");
    }
}
