//! Disks that fill up or fail.

use std::io::Write;

/// A small ext4 in memory on a loop device, which can be made to fail.
pub struct SmallDisk {
    memory: std::fs::File,
    device: String,
    pub mounted: std::path::PathBuf,
    home: tempfile::TempDir,
}

impl SmallDisk {
    pub fn new(bytes: u64) -> Self {
        use std::os::fd::{AsRawFd, FromRawFd};
        // SAFETY: a C string is passed; the descriptor is ours alone.
        let memory = unsafe {
            let flags = libc::MFD_ALLOW_SEALING;
            std::fs::File::from_raw_fd(libc::memfd_create(c"small-disk".as_ptr(), flags))
        };
        memory.set_len(bytes).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        let sh = |program: &str, arguments: &[&str]| {
            let output = super::run(std::process::Command::new(program).args(arguments));
            assert!(
                output.status.success(),
                "{program} {arguments:?}: {}",
                super::text(&output)
            );
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let device = sh("losetup", &["--find", "--show", &path]);
        sh(
            "mkfs.ext4",
            &[
                "-q",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
                &device,
            ],
        );
        let home = super::scratch();
        let mounted = home.path().join("disk");
        std::fs::create_dir(&mounted).unwrap();
        sh("mount", &[&device, mounted.to_str().unwrap()]);
        Self {
            memory,
            device,
            mounted,
            home,
        }
    }

    /// A place that is not on it, and goes with it.
    pub fn beside(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    /// From now on the kernel refuses every write to the device, which its users see as an input/output error.
    pub fn fail(&self) {
        use std::os::fd::AsRawFd;
        // SAFETY: plain numbers are passed.
        let sealed = unsafe {
            libc::fcntl(
                self.memory.as_raw_fd(),
                libc::F_ADD_SEALS,
                libc::F_SEAL_WRITE,
            )
        };
        assert_eq!(sealed, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = super::run(
            std::process::Command::new("umount")
                .arg("-l")
                .arg(&self.mounted),
        );
        let detach = ["-d", &self.device];
        let _ = super::run(std::process::Command::new("losetup").args(detach));
    }
}

/// Writes until the disk is full.
pub fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 1 << 12] {
        let chunk = vec![1; size];
        while file.write_all(&chunk).is_ok() {}
    }
    let _ = file.sync_all();
}
