//! A disk that errs, stalls, loses what was not synced when the power goes, and lies about syncs: a filesystem in this
//! process's memory, served through FUSE, direct I/O included.
//!
//! Files opened for direct I/O bypass the page cache, so every write and sync of the journal arrives here and is answered
//! only when the disk says so. The mount goes with this process, and lies in a mount namespace that only the thread that made
//! the disk, its children and the processes these start can see.

mod model;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};

use self::model::{Contents, Model, Node};
use super::Random;

/// Nothing but this process changes the files, so the kernel may remember what it was told.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// The file that every node maps into memory: the kernel keeps its pages while it is open elsewhere.
const MAPPED: &str = "counters";
const GIB: u64 = 1 << 30;

/// What goes wrong at present.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    writes_err: bool,
    /// Name of the one file whose writes err.
    failing: Option<&'static str>,
    syncs_err: bool,
    reads_err: bool,
    is_stalled: bool,
}

/// An operation that waits for the disk to move again.
type Held = Box<dyn FnOnce(&mut State) + Send>;

struct State {
    model: Model,
    faults: Faults,
    held: Vec<Held>,
    /// Reads, writes and syncs that came.
    operations: u64,
}

impl State {
    /// Does it now, or once the disk moves again.
    fn when_moving(&mut self, operation: impl FnOnce(&mut Self) + Send + 'static) {
        self.operations += 1;
        if self.faults.is_stalled {
            self.held.push(Box::new(operation));
        } else {
            operation(self);
        }
    }

    fn resume(&mut self) {
        self.faults.is_stalled = false;
        for operation in std::mem::take(&mut self.held) {
            operation(self);
        }
    }

    fn attributes(&self, number: u64) -> Option<FileAttr> {
        let (kind, size) = match self.model.node(number)? {
            Node::File(contents) => (FileType::RegularFile, contents.length() as u64),
            Node::Directory(_) => (FileType::Directory, 4096),
        };
        Some(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn entry(&self, number: Option<u64>, reply: ReplyEntry) {
        match number.and_then(|number| self.attributes(number)) {
            Some(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }
}

/// See the module's description.
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    home: tempfile::TempDir,
    timers: Vec<std::thread::JoinHandle<()>>,
}

impl FaultyDisk {
    /// An empty disk that works.
    pub fn mounted() -> Self {
        private_mounts();
        let state = State {
            model: Model::new(),
            faults: Faults::default(),
            held: Vec::new(),
            operations: 0,
        };
        let mut disk = Self {
            state: Arc::new(Mutex::new(state)),
            session: None,
            home: super::scratch(),
            timers: Vec::new(),
        };
        disk.mount();
        disk
    }

    fn mount(&mut self) {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty".to_owned())];
        let served = Served(Arc::clone(&self.state));
        let session = Session::new(served, self.home.path(), &config).expect("FUSE can be mounted");
        self.session = Some(session.spawn().expect("a thread can be started"));
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if std::thread::panicking() {
            // Somebody may still have files open; the kernel lets go when they end.
            let lazily = ["-l", self.path().to_str().unwrap()];
            let _ = super::run(std::process::Command::new("umount").args(lazily));
            return;
        }
        // The kernel lets a killed process's files go only when nothing of its ring is under way any more.
        let path = std::ffi::CString::new(self.path().to_str().unwrap()).unwrap();
        super::eventually("nobody has a file open on the disk any more", || {
            // SAFETY: a C string that outlives the call is passed.
            unsafe { libc::umount2(path.as_ptr(), 0) == 0 }
        });
        let _ = session.join();
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.home.path()
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Every write errs from now on.
    pub fn fail_writes(&self) {
        self.faults().faults.writes_err = true;
    }

    /// Every write to the file of that name errs from now on.
    pub fn fail_writes_of(&self, name: &'static str) {
        self.faults().faults.failing = Some(name);
    }

    /// Every sync errs from now on, durable writes included.
    pub fn fail_syncs(&self) {
        self.faults().faults.syncs_err = true;
    }

    /// Every direct read errs from now on: of the journal, not of the counters.
    pub fn fail_reads(&self) {
        self.faults().faults.reads_err = true;
    }

    /// Nothing errs any more.
    pub fn heal(&self) {
        self.faults().faults = Faults::default();
    }

    /// Nothing is answered until [`FaultyDisk::resume`].
    pub fn stall(&self) {
        self.faults().faults.is_stalled = true;
    }

    /// What waited is done now, in the order in which it came.
    pub fn resume(&self) {
        self.faults().resume();
    }

    /// Nothing is answered for so long; returns at once.
    pub fn stall_for(&mut self, duration: Duration) {
        self.stall();
        let state = Arc::clone(&self.state);
        self.timers.push(std::thread::spawn(move || {
            std::thread::sleep(duration);
            state.lock().unwrap().resume();
        }));
    }

    /// Waits until a stall for a while is over.
    pub fn await_moving(&mut self) {
        for timer in self.timers.drain(..) {
            timer.join().expect("the timer went well");
        }
    }

    /// From now on a sync is answered and makes nothing durable.
    pub fn lie(&self) {
        self.faults().model.lies = true;
    }

    /// The power goes and comes back: what was not durable is there or not. Nobody may have a file open.
    pub fn cut_power(&mut self, random: &mut Random) {
        self.resume();
        self.unmount();
        self.faults().model.cut(random);
        self.faults().model.lies = false;
        self.mount();
    }

    /// Reads, writes and syncs that reached the disk so far.
    pub fn operations(&self) -> u64 {
        self.faults().operations
    }

    /// Whether something waits for a stalled disk.
    pub fn is_waited_for(&self) -> bool {
        !self.faults().held.is_empty()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.resume();
        self.unmount();
    }
}

/// From now on what this thread mounts is seen by it and by what it starts, and goes with them.
fn private_mounts() {
    std::thread_local! {
        static IS_PRIVATE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if IS_PRIVATE.replace(true) {
        return;
    }
    // SAFETY: flags, and C strings that outlive the calls, are passed.
    let is_done = unsafe {
        libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
    };
    assert!(is_done, "{}", std::io::Error::last_os_error());
}

struct Served(Arc<Mutex<State>>);

impl Served {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn open_flags(is_direct: bool, is_mapped: bool) -> FopenFlags {
    if is_direct {
        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
    } else if is_mapped {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::empty()
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(64);
        // With them a write through a ring comes back to the program at once, as on a real disk, and not when it is done.
        let asynchronous = InitFlags::FUSE_ASYNC_DIO | InitFlags::FUSE_ASYNC_READ;
        let large = InitFlags::FUSE_BIG_WRITES | InitFlags::FUSE_MAX_PAGES;
        config
            .add_capabilities(asynchronous | large)
            .expect("every kernel with io_uring has these");
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        state.entry(state.model.find(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attributes(number.0) {
            Some(attributes) => reply.attr(&REMEMBERED, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        if let Some(size) = size {
            state.model.truncate(number.0, size as usize);
        }
        match state.attributes(number.0) {
            Some(attributes) => reply.attr(&REMEMBERED, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut state = self.state();
        if state.model.find(parent.0, name).is_some() {
            reply.error(Errno::EEXIST);
            return;
        }
        let made = Node::Directory(std::collections::BTreeMap::new());
        let number = state.model.make(parent.0, name, made);
        state.entry(Some(number), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.state();
        let number = match state.model.find(parent.0, name) {
            Some(_) if flags & libc::O_EXCL != 0 => {
                reply.error(Errno::EEXIST);
                return;
            }
            Some(number) => number,
            None => state
                .model
                .make(parent.0, name, Node::File(Contents::default())),
        };
        let attributes = state.attributes(number).expect("it was made");
        let flags = open_flags(flags & libc::O_DIRECT != 0, name == MAPPED);
        let handle = FileHandle(number);
        reply.created(&REMEMBERED, &attributes, Generation(0), handle, flags);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let state = self.state();
        let is_mapped = state.model.find_name(number.0) == Some(OsStr::new(MAPPED));
        let flags = open_flags(flags.0 & libc::O_DIRECT != 0, is_mapped);
        reply.opened(FileHandle(number.0), flags);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.state().model.remove(parent.0, name);
        reply.ok();
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.state().model.remove(parent.0, name);
        reply.ok();
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            reply.error(Errno::EINVAL);
            return;
        }
        let from = (parent.0, name);
        self.state().model.rename(from, (new_parent.0, new_name));
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.state().when_moving(move |state| {
            if state.faults.reads_err && flags.0 & libc::O_DIRECT != 0 {
                return reply.error(Errno::EIO);
            }
            match state.model.contents(number.0) {
                Some(contents) => reply.data(contents.read(offset as usize, size as usize)),
                None => reply.error(Errno::ENOENT),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.state().when_moving(move |state| {
            let is_durable = flags.0 & (libc::O_DSYNC | libc::O_SYNC) != 0;
            let is_failing = state.faults.failing.is_some_and(|failing| {
                let name = state.model.find_name(number.0);
                name.is_some_and(|name| name == failing)
            });
            if state.faults.writes_err || is_failing || (is_durable && state.faults.syncs_err) {
                return reply.error(Errno::EIO);
            }
            if state
                .model
                .write(number.0, offset as usize, &data, is_durable)
            {
                reply.written(data.len() as u32);
            } else {
                reply.error(Errno::ENOENT);
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.state().when_moving(move |state| {
            if state.faults.syncs_err {
                return reply.error(Errno::EIO);
            }
            state.model.sync(number.0);
            reply.ok();
        });
    }

    fn fsyncdir(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        is_data: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(request, number, handle, is_data, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.state();
        let Some(names) = state.model.names(number.0) else {
            reply.error(Errno::ENOTDIR);
            return;
        };
        let mut entries = vec![
            (number.0, ".".into()),
            (model::ROOT, std::ffi::OsString::from("..")),
        ];
        entries.extend(names.iter().map(|(name, number)| (*number, name.clone())));
        for (at, (number, name)) in entries.iter().enumerate().skip(offset as usize) {
            let kind = state.attributes(*number).expect("it has a name").kind;
            if reply.add(INodeNo(*number), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = GIB / 4096;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
