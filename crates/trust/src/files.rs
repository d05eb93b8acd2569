//! Files that only their owner may read: whole and safe from a loss of power, or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How old what is beside a file must be, to be left by a writer that was killed.
const LEFT_BEHIND: Duration = Duration::from_mins(10);

/// Makes a directory that only its owner may enter, and those above it, unless it exists.
///
/// # Errors
/// Of the file system.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that must not exist yet: of several writers, on whatever machines, one wins. When this returns, it is safe from a loss
/// of power. What writers that were killed have left beside it goes.
///
/// # Errors
/// `AlreadyExists` where there is one, otherwise of the file system, or of its random source. Nothing is left beside it then. After any
/// other error than the first, the file may be there, not safe from a loss of power.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link is there whole or not at all, also on network file systems, and fails where there is one already.
    write(path, bytes, |beside| fs::hard_link(beside, path))
}

/// Writes a file, or puts it in the place of another. When this returns, it is safe from a loss of power. What writers that were killed
/// have left beside it goes.
///
/// # Errors
/// Of the file system, or of its random source. Nothing is left beside it then. What was there before may be there still, or the new
/// file, not safe from a loss of power.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, |beside| fs::rename(beside, path))
}

/// A drawn name beside a file, which no other writer takes, on whatever machine. What is left there for long is taken away by the next
/// that writes the file.
///
/// # Errors
/// Of the random source.
pub fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut drawn = [0; 8];
    aws_lc_rs::rand::fill(&mut drawn)
        .map_err(|_| io::Error::other("the system's random source gives nothing"))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:016x}.new", u64::from_ne_bytes(drawn)));
    Ok(PathBuf::from(beside))
}

fn write(path: &Path, bytes: &[u8], put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path)?;
    let written = write_whole(&beside, bytes).and_then(|()| put(&beside));
    // What was renamed is gone already.
    let _ = fs::remove_file(&beside);
    written?;
    let directory = path.parent().filter(|directory| *directory != Path::new("")).unwrap_or(Path::new("."));
    remove_left_behind(directory, path);
    File::open(directory)?.sync_all()
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes what was begun beside a file long ago, as far as that can be done.
fn remove_left_behind(directory: &Path, path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        let found = file.file_name();
        let drawn = found
            .to_str()
            .and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".new"));
        let is_beside = drawn
            .is_some_and(|drawn| drawn.len() == 16 && drawn.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let is_old = || Some(file.metadata().ok()?.modified().ok()?.elapsed().ok()? > LEFT_BEHIND);
        if is_beside && is_old() == Some(true) {
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_replaced_whole_and_what_was_left_beside_it_long_ago_goes() {
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
        let left = |name: &str| File::create(directory.join(name)).unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * LEFT_BEHIND;
        for old in ["a.b.00112233445566ff.new", "a.b.new", "a.00112233445566ff.new"] {
            left(old).set_modified(long_ago).unwrap();
        }
        left("a.b.ff112233445566ff.new");
        write_private(&path, b"three").unwrap();
        fs::create_dir(directory.join("c")).unwrap();
        assert!(write_private(&directory.join("c"), b"").is_err(), "a directory is in its place");
        let mut names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        let not_ours_or_new = ["a.00112233445566ff.new", "a.b", "a.b.ff112233445566ff.new", "a.b.new", "c"];
        assert_eq!(names, not_ours_or_new);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn of_those_who_write_a_new_file_one_wins_and_nothing_is_left_beside_it() {
        let directory = std::env::temp_dir().join(format!("perigee-new-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        make_private_directory(&directory).unwrap();
        let path = directory.join("a");
        let left = File::create(directory.join("a.00112233445566ff.new")).unwrap();
        left.set_modified(std::time::SystemTime::now() - 2 * LEFT_BEHIND).unwrap();
        let texts = ["one", "two", "three", "four"];
        let written: Vec<_> = std::thread::scope(|scope| {
            let write = |text: &'static str| scope.spawn(|| write_new(&path, text.as_bytes()));
            texts.map(write).into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let winner = written.iter().position(Result::is_ok).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), texts[winner]);
        let lost = written.iter().filter_map(|written| written.as_ref().err()).map(io::Error::kind);
        assert_eq!(lost.collect::<Vec<_>>(), [io::ErrorKind::AlreadyExists; 3]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }
}
