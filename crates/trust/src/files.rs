//! Files that only their owner may read: whole and safe from a loss of power, or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a directory that only its owner may enter, and those above it, unless it exists.
///
/// # Errors
/// Of the file system.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that must not exist yet. Its name is not safe from a loss of power, its content is.
///
/// # Errors
/// Of the file system.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a file, or puts it in the place of another: beside it first, under a name that no other writer takes, whether of this
/// process or not. When this returns, it is safe from a loss of power.
///
/// # Errors
/// Of the file system. Nothing is left beside it then, and what was there before may be there still.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.{number}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        // Nothing is left of a process that had this number, and was killed.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => removed?,
    }
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    match path.parent() {
        Some(directory) if directory != Path::new("") => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = std::env::temp_dir().join(format!("perigee-private-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        make_private_directory(&directory).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = directory.join("a.b");
        fs::write(&path, "old, and longer").unwrap();
        std::thread::scope(|scope| {
            for text in ["one", "two"] {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| write_private(path, text.as_bytes()).unwrap()));
            }
        });
        assert!(["one", "two"].contains(&fs::read_to_string(&path).unwrap().as_str()));
        assert_eq!((mode(&directory), mode(&path)), (0o700, 0o600));
        assert!(write_private(&directory.join("none/a"), b"").is_err());
        fs::create_dir(directory.join("c")).unwrap();
        assert!(write_private(&directory.join("c"), b"").is_err(), "a directory is in its place");
        let mut names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.b", "c"]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
