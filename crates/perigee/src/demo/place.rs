//! What the demo takes of the machine: a directory that goes away with it, and ports.
//!
//! ```text
//! $TMPDIR/perigee-demo-PID/    0700   lock: held while the demo runs; who finds it free takes the directory away
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};

use super::map;
use crate::failure::Failure;

/// What the edges' disks, the journal and the logs take.
pub(super) const BYTES_MIN: u64 = 400 * 1024 * 1024;

/// How a demo's directory is called, before its process's number.
const PREFIX: &str = "perigee-demo-";

/// A directory of the demo's own; it is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes one, and takes those away that were left behind by demos which were killed.
    pub(super) fn make() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        let cannot = |error: io::Error| {
            Failure::new(
                format!("{}: cannot be made: {error}", path.display()),
                "name a directory that this user may write to: TMPDIR=/var/tmp",
            )
        };
        clear(&base);
        DirBuilder::new().mode(0o700).create(&path).map_err(cannot)?;
        // Under its real name only once it is held, so that nobody finds it free.
        let (new, lock) = (path.join("lock.new"), path.join("lock"));
        let file = File::create(&new).map_err(cannot)?;
        let held = flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from);
        held.and_then(|()| fs::rename(&new, &lock)).map_err(cannot)?;
        let place = Place { path, _lock: file };
        place.check_room(BYTES_MIN)?;
        Ok(place)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn check_room(&self, bytes_min: u64) -> Result<(), Failure> {
        let Ok(system) = statvfs(&self.path) else { return Ok(()) };
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        if free >= bytes_min {
            return Ok(());
        }
        Err(Failure::new(
            format!(
                "{}: {} MiB are free there; the demo wants {} MiB for its edges' disks",
                self.path.display(),
                free / 1024 / 1024,
                bytes_min / 1024 / 1024
            ),
            "name a directory with more room: TMPDIR=/var/tmp",
        ))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("perigee: {}: cannot be removed: {error}", self.path.display());
        }
    }
}

/// Takes away what demos of this user have left that no longer run.
fn clear(base: &Path) {
    let user = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == user);
        let lock = File::open(entry.path().join("lock"));
        let is_free = |lock: File| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_ours && lock.is_ok_and(is_free) {
            // What cannot be removed now is tried again by the next demo.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

// --- Ports ---

/// Where everything listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// Visitors: of each edge, and of the door for a browser.
    pub(super) visitors: u16,
    /// The shop without the CDN, behind a long line.
    pub(super) straight: u16,
    /// The shop's back office.
    pub(super) office: u16,
    /// Control.
    pub(super) control: u16,
    /// Control without TLS, for a browser on this machine.
    pub(super) dashboard: u16,
    /// The router.
    pub(super) dns: u16,
    /// The admin API of each edge.
    pub(super) admin: u16,
    /// Where edges come in at others, and the lines that lead there.
    pub(super) tier: u16,
    /// The router's own.
    pub(super) router_admin: u16,
    /// The shop itself.
    pub(super) shop: u16,
}

impl Ports {
    /// From `base` on, or those that are free.
    pub(super) fn choose(base: Option<u16>) -> Result<Self, Failure> {
        let local = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let edges = || map::edges().map(|(pop, edge)| map::edge_address(pop, edge));
        let doors = || map::edges().map(|(pop, edge)| map::tier_door(pop, edge));
        let with_edges = || local().into_iter().chain(edges()).collect::<Vec<_>>();
        let mut next = base;
        let mut taken = Vec::new();
        let mut port = |addresses: Vec<IpAddr>| {
            let port = match next {
                Some(port) => {
                    next = port.checked_add(1);
                    check_free(port, &addresses)?;
                    port
                }
                None => find_free(&addresses, &taken)?,
            };
            taken.push(port);
            Ok::<u16, Failure>(port)
        };
        Ok(Ports {
            visitors: port(with_edges())?,
            straight: port(local())?,
            office: port(local())?,
            control: port(local())?,
            dashboard: port(local())?,
            dns: port(local())?,
            admin: port(edges().collect())?,
            tier: port(edges().chain(doors()).collect())?,
            router_admin: port(local())?,
            shop: port(local())?,
        })
    }
}

fn is_free(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address)?;
    UdpSocket::bind(address).map(|_| ())
}

fn check_free(port: u16, addresses: &[IpAddr]) -> Result<(), Failure> {
    for address in addresses.iter().map(|address| SocketAddr::new(*address, port)) {
        is_free(address).map_err(|error| {
            Failure::new(
                format!("{address} cannot be listened on: {error}"),
                "choose another --port-base, or leave it out: then ports are taken that are free",
            )
        })?;
    }
    Ok(())
}

/// Tries before it is given up: a port must be free at each address.
const TRIES: usize = 100;

fn find_free(addresses: &[IpAddr], taken: &[u16]) -> Result<u16, Failure> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let found = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = match found {
            Ok(address) => address.port(),
            Err(error) => {
                last = error;
                continue;
            }
        };
        let free = addresses.iter().try_for_each(|address| is_free(SocketAddr::new(*address, port)));
        match free {
            Ok(()) if !taken.contains(&port) => return Ok(port),
            Ok(()) => {}
            Err(error) => last = error,
        }
    }
    Err(Failure::new(
        format!(
            "no port is free on {}: {last}",
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
        ),
        "the demo needs the addresses 127.0.0.1, 127.83.0.0/16 and 127.84.0.0/16 of this machine; end what listens on all ports",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_behind_is_taken_away_and_what_is_held_stays() {
        let base = std::env::temp_dir().join(format!("perigee-places-{}", std::process::id()));
        let (left, held, other) =
            (base.join("perigee-demo-1"), base.join("perigee-demo-2"), base.join("other"));
        for directory in [&left, &held, &other] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join("lock"), "").unwrap();
        }
        let lock = File::open(held.join("lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        clear(&base);
        assert_eq!((left.exists(), held.exists(), other.exists()), (false, true, true));
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_place_without_room_is_refused_and_leaves_nothing() {
        let place = Place::make().unwrap();
        let path = place.path().to_owned();
        let refused = place.check_room(u64::MAX).unwrap_err().to_string();
        assert!(refused.contains("MiB are free there") && refused.contains("TMPDIR"), "{refused}");
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn a_port_in_use_is_named() {
        let used = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = used.local_addr().unwrap().port();
        let refused = Ports::choose(Some(port)).unwrap_err().to_string();
        assert!(refused.contains(&format!("127.0.0.1:{port} cannot be listened on")), "{refused}");
        let free = Ports::choose(None).unwrap();
        assert!(free.visitors != free.straight && free.straight != free.control);
    }
}
