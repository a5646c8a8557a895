//! A node's data file: preallocated, *written* with zeroes, opened for direct writes.
//!
//! Written and not merely allocated, because a first write into an unwritten extent also changes
//! the extent tree and costs about twice as much. The file is removed when dropped.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::Buffer;
use crate::error::FloorError;

/// Bytes written at a time while zeroing.
const ZERO_CHUNK_BYTES: usize = 1 << 20;
/// Left free on the file system, in bytes: a measurement must not fill a disk.
const SPARE_BYTES: u64 = 64 << 20;
/// File systems in memory, by their magic numbers.
const IN_MEMORY: [(u32, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// Tells files of one process apart.
static FILES_MADE: AtomicU64 = AtomicU64::new(0);

/// An open data file.
pub(crate) struct DataFile {
    file: File,
    path: PathBuf,
    len: u64,
}

impl DataFile {
    /// Makes a file of `mib` MiB in `dir`, zeroed and synced.
    pub(crate) fn create(dir: &Path, mib: u64) -> Result<DataFile, FloorError> {
        let number = FILES_MADE.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("relay-floor-{}-{number}.dat", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|source| open_error(&path, source))?;
        let made = DataFile {
            file,
            path,
            len: mib << 20,
        };
        made.zero()?;
        Ok(made)
    }

    /// The descriptor, for registration.
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn zero(&self) -> Result<(), FloorError> {
        // Allocated in one piece first: fewer extents, and a full disk is found out now.
        // SAFETY: plain system call on an open descriptor.
        let allocated = unsafe { libc::fallocate(self.fd(), 0, 0, self.len as libc::off_t) };
        if allocated != 0 {
            let source = io::Error::last_os_error();
            if source.raw_os_error() != Some(libc::EOPNOTSUPP) {
                return Err(self.fault("preallocate", source));
            }
        }
        let zeroes = Buffer::new(ZERO_CHUNK_BYTES)?;
        for offset in (0..self.len).step_by(ZERO_CHUNK_BYTES) {
            self.file
                .write_all_at(zeroes.slice(0..ZERO_CHUNK_BYTES), offset)
                .map_err(|source| self.fault("write zeroes", source))?;
        }
        self.file
            .sync_all()
            .map_err(|source| self.fault("sync", source))
    }

    fn fault(&self, stage: &'static str, source: io::Error) -> FloorError {
        FloorError::Disk {
            stage,
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        // A file that cannot be removed is the operator's to see; there is no one to tell here.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Refuses a directory on which `count` files of `mib` MiB cannot be made durable.
pub(crate) fn check_dir(dir: &Path, count: u64, mib: u64) -> Result<(), FloorError> {
    let fault = |stage, source| FloorError::Disk {
        stage,
        path: dir.to_path_buf(),
        source,
    };
    let name = CString::new(dir.as_os_str().as_bytes())
        .map_err(|_| fault("name", io::Error::from(io::ErrorKind::InvalidInput)))?;
    // SAFETY: statfs is plain data, for which all zeroes is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated name and a struct of the right type, both alive through the call.
    if unsafe { libc::statfs(name.as_ptr(), &mut stat) } != 0 {
        return Err(fault("statfs", io::Error::last_os_error()));
    }
    let magic = stat.f_type as u32;
    if let Some((_, file_system)) = IN_MEMORY.iter().find(|(known, _)| *known == magic) {
        return Err(FloorError::NotDurable {
            path: dir.to_path_buf(),
            file_system,
        });
    }
    let needed_bytes = count * (mib << 20) + SPARE_BYTES;
    let available_bytes = stat.f_bavail.saturating_mul(stat.f_bsize as u64);
    if available_bytes < needed_bytes {
        let path = dir.to_path_buf();
        return Err(FloorError::TooLittleSpace {
            path,
            needed_bytes,
            available_bytes,
        });
    }
    Ok(())
}

fn open_error(path: &Path, source: io::Error) -> FloorError {
    let path = path.to_path_buf();
    if source.raw_os_error() == Some(libc::EINVAL) {
        // The kernel has made the file by the time it refuses the flag.
        let _ = std::fs::remove_file(&path);
        return FloorError::NoDirectIo { path, source };
    }
    FloorError::Disk {
        stage: "create",
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        let error = check_dir(Path::new("/nonexistent/floor"), 1, 1).expect_err("no such place");
        assert!(error.to_string().contains("/nonexistent/floor"), "{error}");
    }

    #[test]
    fn too_little_space_is_found_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        match check_dir(dir.path(), 1, 1 << 40) {
            Err(FloorError::TooLittleSpace { .. } | FloorError::NotDurable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn memory_file_systems_are_refused() {
        let shm = Path::new("/dev/shm");
        match check_dir(shm, 1, 1) {
            Err(FloorError::NotDurable { file_system, .. }) => assert_eq!(file_system, "tmpfs"),
            Err(FloorError::Disk { .. }) => {} // a machine without /dev/shm
            other => panic!("{other:?}"),
        }
    }
}
