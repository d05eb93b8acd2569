//! Files that people ask for, written whole or not at all: on a full disk the old configuration or report stays.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Writes a file that must not be there; no part of it stays when that fails.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make(path, bytes, None)
}

/// Writes a file, or puts it in the place of another, of which it keeps owner and mode: beside it first. It is written in place where nothing
/// can be put beside it or the owner cannot be kept, and where it is no file of a disk, as a pipe or a terminal. What is open already, as
/// `/dev/stdout`, is written to where it stands: `>> file` keeps what it has.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a link leads to is replaced or made, and not the link.
    let path = match follow(path) {
        Target::File(path) => path,
        Target::Open(path) => return write_to_open(&path, bytes),
    };
    let old = fs::metadata(&path).ok();
    // Links that lead in a circle are an error.
    if old.as_ref().is_some_and(|old| !old.is_file()) || path.is_symlink() {
        return fs::write(&path, bytes);
    }
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = Path::new(&beside);
    // Of a process that had the same id and was killed.
    let _ = fs::remove_file(beside);
    let written = make(beside, bytes, old.as_ref()).and_then(|()| {
        fs::rename(beside, &path).inspect_err(|_| {
            let _ = fs::remove_file(beside);
        })
    });
    match written.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::ResourceBusy)
            if old.is_some() =>
        {
            fs::write(&path, bytes)
        }
        _ => written,
    }
}

/// What a path leads to.
enum Target {
    /// There may be none yet.
    File(PathBuf),
    /// What this process has open, by its number in `/proc/self/fd`.
    Open(PathBuf),
}

/// Links that lead to each other, at most: as many as the kernel follows.
const LINKS_MAX: usize = 40;

fn follow(path: &Path) -> Target {
    let open = fs::canonicalize("/proc/self/fd").ok();
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        if open.is_some() && fs::canonicalize(directory).ok() == open {
            return Target::Open(path);
        }
        let Ok(to) = fs::read_link(&path) else { break };
        path = directory.join(to);
    }
    Target::File(path)
}

/// Opening it again would begin at its beginning.
fn write_to_open(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = |mut out: Box<dyn Write>| out.write_all(bytes).and_then(|()| out.flush());
    match path.file_name().and_then(|number| number.to_str()) {
        Some("1") => write(Box::new(io::stdout())),
        Some("2") => write(Box::new(io::stderr())),
        _ => write(Box::new(OpenOptions::new().append(true).open(path)?)),
    }
}

/// Makes a file, like an old one if there is one, and removes it again if it does not come to its end.
fn make(path: &Path, bytes: &[u8], old: Option<&Metadata>) -> io::Result<()> {
    // Never open to more than the old one is.
    let mode = old.map_or(0o666, |old| old.mode() & 0o777);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let mut fill = || {
        if let Some(old) = old {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()
    };
    fill().inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use world::scratch::Scratch;

    use super::*;

    #[test]
    fn what_is_there_is_replaced_with_owner_and_mode_through_links_and_a_pipe_is_written_to() {
        let scratch = Scratch::new("whole");
        let path = scratch.file("a", "old, and longer");
        let (path, link, pipe) = (Path::new(&path), scratch.0.join("link"), scratch.0.join("pipe"));
        fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap();
        // As root alone.
        let _ = chown(path, Some(1), Some(1));
        symlink("a", &link).unwrap();
        let before = fs::metadata(path).unwrap();
        write(&link, b"new").unwrap();
        let after = fs::metadata(path).unwrap();
        assert_eq!(fs::read(&link).unwrap(), b"new");
        let kept = |it: &Metadata| (it.uid(), it.gid(), it.mode());
        assert_eq!(kept(&after), kept(&before));
        assert_ne!(after.ino(), before.ino(), "it is another file");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        let fresh = scratch.0.join("b");
        write(&fresh, b"made").unwrap();
        assert_eq!(write_new(&fresh, b"again").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&fresh).unwrap(), b"made");
        assert!(write(&scratch.0.join("none/a"), b"").is_err() && write(&scratch.0, b"").is_err());
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 4, "nothing is left beside them");
    }

    #[test]
    fn what_a_link_leads_to_is_made_where_it_is_not_there_yet() {
        let scratch = Scratch::new("whole-links");
        let [first, second, round] = ["first", "second", "round"].map(|name| scratch.0.join(name));
        fs::create_dir(scratch.0.join("in")).unwrap();
        symlink("in/second", &first).unwrap();
        symlink("../to", scratch.0.join("in/second")).unwrap();
        symlink(&second, &second).unwrap();
        write(&first, b"made").unwrap();
        assert!(first.is_symlink() && scratch.0.join("in/second").is_symlink());
        assert_eq!(fs::read(scratch.0.join("to")).unwrap(), b"made");
        symlink("none/to", &round).unwrap();
        assert!(write(&round, b"").is_err() && round.is_symlink());
        assert!(write(&second, b"").is_err() && second.is_symlink());
    }

    #[test]
    fn what_is_open_is_written_to_where_it_stands() {
        let scratch = Scratch::new("whole-open");
        let path = scratch.file("log", "before, ");
        let log = OpenOptions::new().append(true).open(&path).unwrap();
        for path in ["/dev/fd", "/proc/self/fd"] {
            write(&Path::new(path).join(log.as_raw_fd().to_string()), b"after, ").unwrap();
        }
        (&log).write_all(b"end").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "before, after, after, end");
    }
}
