//! What a volume lies on, as the few calls that it needs: so that tests can put something else in its place, which loses,
//! tears and flips.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;

/// One file. Offsets, lengths and addresses of a volume's reads and writes are multiples of 4 KiB.
pub trait Media: Send + Sync + 'static {
    /// Reads from `offset` on until `buffer` is full or the file ends; how many bytes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when all that was written before is safe from a loss of power.
    fn sync(&self) -> io::Result<()>;
    /// Makes the file long enough for `len` bytes from `offset` on, and has the file system promise room for them.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Lets others write it from now on.
    fn release(&self) {}
    /// The file, for engines that read it themselves.
    fn file(&self) -> Option<&File> {
        None
    }
}

/// A place for the files of one volume.
pub trait Shelf: Send + Sync + 'static {
    /// Opens a file, made if it isn't there. `direct`: past the page cache, where that can be had.
    fn open(&self, name: &str, direct: bool) -> io::Result<Arc<dyn Media>>;
    /// What people call the place.
    fn name(&self) -> String;
}

/// A directory of the file system. Its files are locked until they are released or closed.
pub struct Directory {
    path: PathBuf,
    write: bool,
}

impl Directory {
    /// Makes the directory, if need be, for this user alone.
    ///
    /// # Errors
    /// Those of making it.
    pub fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Directory { path: path.to_owned(), write: true })
    }

    /// A directory to be read only, also while an edge uses it: nothing is locked, made or written.
    pub fn read_only(path: &Path) -> Self {
        Directory { path: path.to_owned(), write: false }
    }
}

impl Shelf for Directory {
    fn open(&self, name: &str, direct: bool) -> io::Result<Arc<dyn Media>> {
        let path = self.path.join(name);
        let open = |flags: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(self.write)
                .create(self.write)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags.bits() as i32)
                .open(&path)
        };
        // Some file systems know no O_DIRECT and say so with EINVAL.
        let file = match direct {
            true => match open(OFlags::DIRECT) {
                Err(error) if error.kind() == ErrorKind::InvalidInput => open(OFlags::empty()),
                opened => opened,
            },
            false => open(OFlags::empty()),
        }?;
        if self.write {
            lock(&file)?;
        }
        Ok(Arc::new(OnDisk { file }))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// How long a lock is waited for, and how often it is tried. A process that was killed with reads under way in an io_uring
/// holds its files for a while after its death: mostly milliseconds, once in 200 kills three seconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

fn lock(file: &File) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if begin.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_INTERVAL),
            locked => return Ok(locked?),
        }
    }
}

struct OnDisk {
    file: File,
}

impl Media for OnDisk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.file.metadata()?.len() < offset + len {
            // So that the end is known even where no room can be promised.
            self.file.set_len(offset + len)?;
        }
        Ok(fallocate(&self.file, FallocateFlags::empty(), offset, len)?)
    }

    fn release(&self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}
