//! A file that is there whole or not at all.
//!
//! It is written as `NAME.partial` beside its place and named when it is finished; when the command fails, on a full disk
//! say, what was written is removed. A device or a pipe can't be replaced, so it is written to as it is.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// Bytes written at once.
const BUFFER: usize = 256 << 10;

/// The file; see the module.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    /// Where it is until it is finished; nothing for a device or a pipe.
    partial: Option<PathBuf>,
    out: BufWriter<File>,
}

impl OutputFile {
    /// Begins the file that is to be at `path`. A finished one that is there already stays until this one is finished.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let partial = (!is_special).then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(".partial");
            PathBuf::from(name)
        });
        let place = partial.as_deref().unwrap_or(path);
        let file = if is_special {
            File::options().write(true).open(place)
        } else {
            File::create(place)
        };
        let file = file.map_err(|error| Failure::file("creating", place, &error))?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            out: BufWriter::with_capacity(BUFFER, file),
        })
    }

    /// What a failed write means.
    pub(crate) fn failed(&self, error: &io::Error) -> Failure {
        let is_pipe = self.partial.is_none() && error.kind() == io::ErrorKind::BrokenPipe;
        if is_pipe {
            return Failure::OutputClosed;
        }
        let fate = match self.partial {
            Some(_) => "; what was written is removed, make room and try again",
            None => "",
        };
        Failure::Failed(format!("writing {}: {error}{fate}", self.path.display()))
    }

    /// Puts the finished file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let result = self.out.flush().and_then(|()| match &self.partial {
            None => Ok(()),
            Some(partial) => {
                self.out.get_ref().sync_all()?;
                fs::rename(partial, &self.path)
            }
        });
        result.map_err(|error| self.failed(&error))?;
        self.partial = None;
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // The first error is the one that is told.
            let _ = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_leaves_what_was_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("day.csv");
        let count = || fs::read_dir(directory.path()).expect("listed").count();
        let mut file = OutputFile::create(&path).expect("made");
        file.write_all(b"first").expect("written");
        file.finish().expect("named");
        let mut file = OutputFile::create(&path).expect("made");
        file.write_all(b"second").expect("written");
        assert_eq!(count(), 2);
        drop(file);
        assert_eq!(count(), 1);
        assert_eq!(fs::read(&path).expect("readable"), b"first");
    }

    #[test]
    fn a_device_is_written_to_as_it_is() {
        let path = Path::new("/dev/full");
        let mut file = OutputFile::create(path).expect("opened");
        file.write_all(b"x").expect("buffered");
        let error = file.finish().expect_err("it is full");
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert!(path.exists());
    }
}
