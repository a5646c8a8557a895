//! The secret key that signs seals: a file that only its owner can read, and its successor beside it.
//!
//! The file holds the secret as 64 hexadecimal digits. A key that is to replace it lies beside it, under the same name with
//! `.next` behind it, until whoever has the seals ([`crate::seal_file`]) has the old key vouch for it; then it takes the old
//! one's place. So there is no moment at which a crash leaves seals that nobody can go on with.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use relay_journal::seal::SigningKey;

use crate::storage::{StorageError, sync_directory};

/// Name of the file in a stream's directory, where the configuration names no other.
pub(crate) const FILE_NAME: &str = "seal-key";

fn at(stage: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io {
        stage,
        path,
        source,
    }
}

/// Where the successor of the key in `file` lies until it takes its place.
pub(crate) fn next_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// Reads the key; `None` where there is no such file.
pub(crate) fn load(path: &Path) -> Result<Option<SigningKey>, StorageError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(at("opening the key of the seals", path))?,
    };
    let reading = "reading the key of the seals";
    let mode = file.metadata().map_err(at(reading, path))?.permissions();
    if mode.mode() & 0o077 != 0 {
        let what = "others may read the key of the seals, so what it signs proves nothing: make a new one, or \
                    `chmod 600` it if nobody did";
        return Err(StorageError::Mismatch(path.to_owned(), what.to_owned()));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(at(reading, path))?;
    let key = parse(text.trim()).ok_or_else(|| {
        let what =
            "the key of the seals is 64 hexadecimal digits; `openssl rand -hex 32` makes one";
        StorageError::Mismatch(path.to_owned(), what.to_owned())
    })?;
    Ok(Some(key))
}

fn parse(text: &str) -> Option<SigningKey> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = [0; 32];
    for (byte, digits) in secret.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(SigningKey::from_secret(&secret))
}

/// Makes a key and its file, which is not there yet, durably.
pub(crate) fn make(path: &Path) -> Result<SigningKey, StorageError> {
    let making = "making the key of the seals";
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| at(making, path)(io::Error::other(error)))?;
    let mut text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(making, &fresh)(error)),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(at(making, &fresh))?;
    if path.exists() {
        // A key is never written over: what it signed could not be gone on with.
        return Err(at(making, path)(ErrorKind::AlreadyExists.into()));
    }
    std::fs::rename(&fresh, path).map_err(at(making, path))?;
    sync_directory(directory_of(path))?;
    Ok(SigningKey::from_secret(&secret))
}

/// Puts the successor in the place of the key in `path`, durably.
pub(crate) fn take_next(path: &Path) -> Result<(), StorageError> {
    let next = next_path(path);
    std::fs::rename(&next, path).map_err(at("replacing the key of the seals", &next))?;
    sync_directory(directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_for_its_owner_alone_and_read_back() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join(FILE_NAME);
        assert!(load(&path).expect("it is looked for").is_none());
        let made = make(&path).expect("it is made");
        let mode = std::fs::metadata(&path).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let read = load(&path).expect("it is read").expect("it is there");
        assert_eq!(read.public(), made.public());
        make(&path).expect_err("there is one");
        let read = load(&path).expect("it is read").expect("it is there");
        assert_eq!(read.public(), made.public());
    }

    #[test]
    fn what_is_no_key_or_no_secret_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join(FILE_NAME);
        let write = |text: &str, mode| {
            std::fs::write(&path, text).expect("it is written");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).expect("it is its owner");
        };
        let good = "ab".repeat(32);
        for text in [
            "",
            "ab",
            &"zz".repeat(32),
            &"+f".repeat(32),
            &"ab".repeat(33),
        ] {
            write(text, 0o600);
            let error = load(&path).expect_err(text).to_string();
            assert!(error.contains("hexadecimal"), "{error}");
        }
        write(&good, 0o644);
        let error = load(&path).expect_err("others read it").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        write(&good, 0o600);
        assert!(load(&path).expect("it is good").is_some());
    }

    #[test]
    fn a_successor_takes_its_place() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join(FILE_NAME);
        make(&path).expect("it is made");
        let next = make(&next_path(&path)).expect("it is made");
        take_next(&path).expect("it is renamed");
        let read = load(&path).expect("it is read").expect("it is there");
        assert_eq!(read.public(), next.public());
        assert!(!next_path(&path).exists());
    }
}
