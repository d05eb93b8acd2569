//! The state directory: what one edge keeps between starts beside its cache, and how the other commands find a running
//! edge. `serve` creates it; `purge` and `explain` read it, and `store` finds the disk in it.
//!
//! ```text
//! DIR/               0700
//!   admin-token      0600   64 hex digits; whoever can read it may purge and reload
//!   key-seed         0600   32 hex digits; seeds the hash of cache keys, so that nobody can aim at collisions
//!   ticket-secret    0600   64 hex digits; what session tickets are made from, unless a file is named
//!   acme/            0700   certificates that were ordered, with their keys
//!   admin-address    0600   host:port of the admin API of the edge that started last
//!   purges           0600   purges that what is on disk must not outlive; only with disks
//!   cluster/         0700   what a node of a cluster has been told: see `member::keep`
//!   zone-key         0600   the key of a signed DNS zone, as hex digits of PKCS #8; `router` alone
//!   cookie-secret    0600   32 hex digits; what DNS cookies are made from; `router` alone
//!   store/           0700   the disk that names no directory of its own
//!   lock             0600   empty; locked (flock) by the edge that runs
//! ```
//!
//! Secrets come from the operating system's random source, once; a damaged file is an error, never replaced silently.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use trust::{make_private_directory, write_new, write_private};

use crate::failure::Failure;

const TOKEN_BYTES: usize = 32;
const SEED_BYTES: usize = 16;
const TICKET_BYTES: usize = 32;
/// Bytes of a secret that are read.
const SECRET_BYTES_MAX: u64 = 4096;
const TOKEN_FILE: &str = "admin-token";
const SEED_FILE: &str = "key-seed";
const TICKET_FILE: &str = "ticket-secret";
const ZONE_KEY_FILE: &str = "zone-key";
const COOKIE_FILE: &str = "cookie-secret";
const ADDRESS_FILE: &str = "admin-address";
const LOCK_FILE: &str = "lock";
/// How long a process may take to end after it was killed: its memory and what it has asked of disks is cleared up first.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A state directory; nothing is read or created before a method asks for it.
#[derive(Clone, Debug)]
pub(crate) struct StateDir(PathBuf);

/// A state directory that no other edge may use meanwhile.
#[derive(Debug)]
pub(crate) struct Lock {
    /// The lock is the open file's, whichever processes have it open.
    file: File,
}

impl Lock {
    /// The lock that another process has taken, and shares.
    pub(crate) fn passed_on(file: OwnedFd) -> Self {
        Lock { file: file.into() }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl StateDir {
    /// `chosen`, else `$XDG_STATE_HOME/perigee`, else `$HOME/.local/state/perigee`. `environment` looks a variable up.
    /// A relative `XDG_STATE_HOME` does not count (XDG Base Directory Specification).
    pub(crate) fn find(
        chosen: Option<PathBuf>,
        environment: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let xdg = || {
            environment("XDG_STATE_HOME").filter(|path| path.is_absolute()).map(|base| base.join("perigee"))
        };
        let home = || {
            environment("HOME")
                .filter(|path| path.is_absolute())
                .map(|home| home.join(".local/state/perigee"))
        };
        chosen.or_else(xdg).or_else(home).map(StateDir).ok_or_else(|| {
            Failure::new(
                "no state directory: neither XDG_STATE_HOME nor HOME names an absolute path",
                "give one, e.g. --state /var/lib/perigee",
            )
        })
    }

    /// As [`StateDir::find`], from this process's environment.
    pub(crate) fn find_here(chosen: Option<PathBuf>) -> Result<Self, Failure> {
        Self::find(chosen, |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory with mode 0700, with its parents, unless it exists.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        make_private_directory(&self.0).map_err(|error| {
            Failure::new(
                format!("{}: the state directory cannot be created: {error}", self.0.display()),
                "choose a place that this user may write to with --state DIR",
            )
        })
    }

    /// Takes the directory for this process, until the lock is dropped or the process ends, however it ends. Two edges
    /// with one directory would each send the commands to the other. One that was killed a moment ago is waited for.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        let path = self.0.join(LOCK_FILE);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|error| cannot_write(&path, &error))?;
        let until = Instant::now() + LOCK_PATIENCE;
        let locked = loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOCK_PATIENCE / 40),
                locked => break locked,
            }
        };
        match locked {
            Ok(()) => Ok(Lock { file }),
            Err(Errno::WOULDBLOCK) => Err(Failure::new(
                format!("{}: another edge runs with this state directory", self.0.display()),
                "stop that one, or give this one a directory of its own with --state DIR",
            )),
            Err(error) => Err(Failure::new(
                format!("{}: cannot be locked: {error}", path.display()),
                "choose a place on a local file system with --state DIR",
            )),
        }
    }

    /// Where the token is.
    pub(crate) fn token_path(&self) -> PathBuf {
        self.0.join(TOKEN_FILE)
    }

    /// The admin token, made on first use.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        self.secret(TOKEN_FILE, TOKEN_BYTES)
    }

    /// What session tickets are made from: the bytes of `file`, or a secret of the directory's own, made on first use.
    pub(crate) fn ticket_secret(&self, file: Option<&Path>) -> Result<Vec<u8>, Failure> {
        let Some(path) = file else { return Ok(self.secret(TICKET_FILE, TICKET_BYTES)?.into_bytes()) };
        let secret = read_private(path)?;
        match secret.len() {
            TICKET_BYTES.. => Ok(secret),
            length => Err(Failure::new(
                format!(
                    "ticket_secret_file {}: has {length} bytes; wanted {TICKET_BYTES} or more",
                    path.display()
                ),
                "make one with: head -c 32 /dev/urandom, and give the same to all edges of a place",
            )),
        }
    }

    /// The seed of the cache keys, made on first use.
    pub(crate) fn key_seed(&self) -> Result<[u8; SEED_BYTES], Failure> {
        self.bytes(SEED_FILE)
    }

    /// What DNS cookies are made from, made on first use. Servers of one zone may share the file.
    pub(crate) fn cookie_secret(&self) -> Result<[u8; SEED_BYTES], Failure> {
        self.bytes(COOKIE_FILE)
    }

    /// The key of a signed zone; `make` makes one on first use. Servers of one zone must share the file.
    pub(crate) fn zone_key(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let path = self.0.join(ZONE_KEY_FILE);
        if !path.exists() {
            let text: String = make()?.iter().map(|byte| format!("{byte:02x}")).collect();
            put_secret(&path, &text)?;
        }
        let read = read_private(&path)?;
        Ok(from_hex(read.trim_ascii_end()))
    }

    fn bytes(&self, name: &str) -> Result<[u8; SEED_BYTES], Failure> {
        let text = self.secret(name, SEED_BYTES)?;
        let mut bytes = [0; SEED_BYTES];
        bytes.copy_from_slice(&from_hex(text.as_bytes()));
        Ok(bytes)
    }

    /// The admin token of an edge that has started before.
    pub(crate) fn existing_token(&self) -> Result<String, Failure> {
        match fs::metadata(self.token_path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::new(
                format!("{}: there is no admin token", self.token_path().display()),
                "start `perigee serve` first, or give the state directory that it uses with --state DIR",
            )),
            _ => self.read_secret(&self.token_path(), TOKEN_BYTES),
        }
    }

    /// Notes where the admin API listens, for the other commands.
    pub(crate) fn note_admin_address(&self, address: SocketAddr) -> Result<(), Failure> {
        if self.admin_address() == Some(address) {
            return Ok(());
        }
        let path = self.0.join(ADDRESS_FILE);
        write_private(&path, format!("{address}\n").as_bytes()).map_err(|error| cannot_write(&path, &error))
    }

    /// Where the admin API of the edge that started last listens; `None` when it was never noted or can't be read.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.0.join(ADDRESS_FILE)).ok()?.trim().parse().ok()
    }

    fn secret(&self, name: &str, bytes: usize) -> Result<String, Failure> {
        let path = self.0.join(name);
        if !path.exists() {
            put_secret(&path, &random_hex(bytes)?)?;
        }
        self.read_secret(&path, bytes)
    }

    fn read_secret(&self, path: &Path, bytes: usize) -> Result<String, Failure> {
        let read = read_private(path)?;
        let text = String::from_utf8_lossy(&read);
        let text = text.trim_end();
        if text.len() != 2 * bytes || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Failure::new(
                format!(
                    "{}: holds {} characters; wanted {} hex digits",
                    path.display(),
                    text.len(),
                    2 * bytes
                ),
                "delete the file; the next start of `perigee serve` makes a new one",
            ));
        }
        Ok(text.to_owned())
    }
}

/// Of two processes that start now and make one, one wins.
fn put_secret(path: &Path, text: &str) -> Result<(), Failure> {
    match write_new(path, format!("{text}\n").as_bytes()) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(cannot_write(path, &error)),
        _ => Ok(()),
    }
}

/// The bytes of hex digits; what is none counts as 0, and is found out by who uses the bytes.
fn from_hex(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    text.as_chunks::<2>().0.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
}

/// The bytes of a file that nobody else may read.
fn read_private(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: io::Error| {
        Failure::new(
            format!("{}: cannot be read: {error}", path.display()),
            "run as the user that runs `perigee serve`",
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::new(
            format!("{}: has mode {mode:04o}, so others may read it; wanted 0600", path.display()),
            format!(
                "if nobody else has read it: chmod 600 {path}; else replace it, or delete it if it is the state \
                 directory's own, and the next start makes a new one",
                path = path.display()
            ),
        ));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("{}: cannot be written: {error}", path.display()),
        "choose a place that this user may write to with --state DIR",
    )
}

fn random_hex(bytes: usize) -> Result<String, Failure> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random)).map_err(|error| {
        Failure::new(
            format!("/dev/urandom: no random bytes: {error}"),
            "mount /dev in the container or chroot that perigee runs in",
        )
    })?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
