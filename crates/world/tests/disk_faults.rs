//! Disks in trouble: damaged, cut short, full, lost. No wrong and no short body, hits where they are possible, and nothing that
//! was purged comes back.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use world::play;
use world::play::{Play, content, wait_until};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One of each way in which a body is stored.
const SIZES: [(&str, usize); 5] =
    [("/small", 100), ("/paged", 300 * KIB), ("/slice", MIB), ("/slices", 2 * MIB), ("/long", 3 * MIB + 5)];

/// Everything on disk, nothing in memory; the origin answers for whatever is asked again.
fn play_with_everything_on_disk() -> Play {
    let mut play = play();
    play.disk("64MiB");
    for (path, len) in SIZES {
        play.origin(|o| {
            o.get(path).always().header(FRESH.0, FRESH.1).header("ETag", "\"1\"").file(content(1, len))
        });
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
    play.written().restart();
    play
}

#[track_caller]
fn all_are_right(play: &mut Play) {
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
}

fn volume(play: &mut Play) -> File {
    let path = play.state().join("store/volume");
    OpenOptions::new().read(true).write(true).open(path).expect("the volume is there")
}

/// Where the volume holds these bytes.
fn places_of(volume: &File, bytes: &[u8]) -> Vec<u64> {
    let len = volume.metadata().expect("a file has a length").len() as usize;
    let mut all = vec![0; len];
    volume.read_exact_at(&mut all, 0).expect("the volume can be read");
    let first = bytes[0];
    let starts = all.windows(bytes.len()).enumerate();
    starts.filter(|(_, window)| window[0] == first && *window == bytes).map(|(at, _)| at as u64).collect()
}

// --- Damage ---

#[test]
fn bytes_that_changed_on_disk_are_never_delivered() {
    let mut play = play_with_everything_on_disk();
    let volume = volume(&mut play);
    // One bit in each body, away from its beginning where it has one.
    for (_, len) in SIZES {
        let at = len * 2 / 3;
        let places = places_of(&volume, &content(1, len)[at..(at + 16).min(len)]);
        assert!(!places.is_empty(), "the body is in the file");
        for place in places {
            let mut byte = [0];
            volume.read_exact_at(&mut byte, place).expect("the volume can be read");
            volume.write_all_at(&[byte[0] ^ 4], place).expect("the volume can be written");
        }
    }
    volume.sync_all().expect("the volume can be written");
    all_are_right(&mut play);
    // `content` is the same wherever it begins anew, so the damage may be in more than one body.
    assert!(play.disk_stats().damaged >= 3, "{:?}", play.disk_stats());
    // What was fetched in place of it is good.
    let asked = asked(&mut play);
    play.written();
    all_are_right(&mut play);
    play.restart();
    all_are_right(&mut play);
    play.origin_saw(asked);
}

#[test]
fn heads_that_changed_on_disk_are_never_believed() {
    let mut play = play_with_everything_on_disk();
    let volume = volume(&mut play);
    let places = places_of(&volume, b"max-age=3600");
    assert!(places.len() >= SIZES.len());
    for place in places {
        volume.write_all_at(b"max-age=9999", place).expect("the volume can be written");
    }
    volume.sync_all().expect("the volume can be written");
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(1, len)).header(FRESH.0, FRESH.1));
    }
    // The last block is written once more with what comes next, which mends what lies in it.
    assert!(play.disk_stats().damaged > 0, "{:?}", play.disk_stats());
}

#[test]
fn a_volume_that_was_cut_short_costs_what_it_held() {
    for len in [0, 8 * MIB as u64, 10 * MIB as u64 + 12345] {
        let mut play = play_with_everything_on_disk();
        volume(&mut play).set_len(len).expect("a file can be cut short");
        all_are_right(&mut play);
        play.written();
        all_are_right(&mut play);
        play.restart();
        all_are_right(&mut play);
    }
}

#[test]
fn a_volume_of_noise_is_begun_anew_or_refused_and_never_believed() {
    let mut play = play_with_everything_on_disk();
    play.stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
    let file = volume(&mut play);
    let noise = content(7, MIB);
    for at in 0..128 {
        file.write_all_at(&noise, at * MIB as u64).expect("the volume can be written");
    }
    let started = play.try_start();
    match started {
        Ok(()) => all_are_right(&mut play),
        Err(reason) => assert!(reason.contains("store"), "{reason}"),
    }
}

fn asked(play: &mut Play) -> usize {
    let mut asked = 0;
    play.origin(|o| asked = o.seen().len());
    asked
}

// --- A full disk, and one that gives errors ---

/// A file system of its own; `None` where this user may not mount one.
struct Mounted {
    path: PathBuf,
    /// The file that a loop device makes a disk of.
    image: Option<PathBuf>,
}

impl Mounted {
    /// In memory, of so many bytes.
    fn in_memory(name: &str, bytes: usize) -> Option<Mounted> {
        let options = format!("size={bytes}");
        Mounted::new(name, None, &["-t", "tmpfs", "-o", &options, "tmpfs"])
    }

    /// In a file of so many bytes, as on a disk that can be cut short: see [`Mounted::cut`].
    fn in_file(name: &str, bytes: usize) -> Option<Mounted> {
        let image = Mounted::place(name).with_extension("image");
        let file = File::create(&image).expect("a temporary file can be made");
        file.set_len(bytes as u64).expect("a file can be made longer");
        // Without a journal nothing but the volume is written, so that it alone meets the cut.
        let options = ["-q", "-F", "-b", "4096", "-O", "^has_journal"];
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let made = Command::new("mkfs.ext4").env("PATH", path).args(options).arg(&image).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: mkfs.ext4 makes no file system here");
            let _ = fs::remove_file(image);
            return None;
        }
        let source = image.display().to_string();
        Mounted::new(name, Some(image), &["-o", "loop", &source])
    }

    fn new(name: &str, image: Option<PathBuf>, mount: &[&str]) -> Option<Mounted> {
        let mounted = Mounted { path: Mounted::place(name), image };
        fs::create_dir_all(&mounted.path).expect("a temporary directory can be made");
        let done =
            Command::new("mount").args(mount).arg(&mounted.path).stderr(std::process::Stdio::null()).status();
        if done.is_ok_and(|status| status.success()) {
            return Some(mounted);
        }
        eprintln!("skipped: a file system can only be mounted by root, and one in a file with loop devices");
        None
    }

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("perigee-play-mount-{}-{name}", std::process::id()))
    }

    fn resize(&self, bytes: usize) {
        let mounted =
            Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&self.path).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs can be resized");
    }

    /// From here on, reads and writes of what lies behind the first `bytes` fail.
    fn cut(&self, bytes: usize) {
        let image = self.image.as_ref().expect("it is in a file");
        let file = OpenOptions::new().write(true).open(image).expect("the file is there");
        file.set_len(bytes as u64).expect("a file can be cut short");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).stderr(std::process::Stdio::null()).status();
        let _ = fs::remove_dir(&self.path);
        self.image.iter().for_each(|image| drop(fs::remove_file(image)));
    }
}

#[test]
fn a_full_disk_goes_on_serving_and_stores_again_when_there_is_room() {
    let Some(mount) = Mounted::in_memory("full", 96 * MIB) else { return };
    let mut play = play();
    play.disks("1MiB", &[&mount.path]);
    let file = |play: &mut Play, number: usize| {
        let path = format!("/{number}");
        let body = content(number as u64, 2 * MIB + number);
        play.origin(|o| {
            o.get(&path).always().header(FRESH.0, FRESH.1).header("ETag", "\"1\"").file(&body);
        });
        play.client(|c| c.get(&path).expect(200).body(&body));
    };
    file(&mut play, 0);
    file(&mut play, 1);
    play.written();
    // Punches out of the file what is not written yet, and gives the room to somebody else.
    let volume = OpenOptions::new().write(true).open(mount.path.join("volume")).expect("the volume is there");
    let used = 24 * MIB as u64;
    let punched = Command::new("fallocate")
        .args([
            "--punch-hole",
            "--offset",
            &used.to_string(),
            "--length",
            &(64 * MIB as u64 - used).to_string(),
        ])
        .arg(mount.path.join("volume"))
        .status();
    assert!(punched.is_ok_and(|status| status.success()), "a hole can be made");
    drop(volume);
    mount.resize(28 * MIB);
    (2..20).for_each(|number| file(&mut play, number));
    let stats = play.disk_stats();
    assert!(stats.refused_write_failed > 0, "{stats:?}");
    // Nothing is wrong with what was not stored, and what is new takes the place of the oldest.
    (0..20).for_each(|number| file(&mut play, number));
    let mut number = 20;
    let mut store_one = |play: &mut Play| {
        wait_until("something new to be stored whole", || {
            let refused = play.disk_stats().refused_write_failed;
            file(play, number);
            play.written();
            number += 1;
            play.disk_stats().refused_write_failed == refused
        });
        // The budget of writes is low by now: what is asked for a second time is written.
        file(play, number - 1);
        play.written();
        let before = asked(play);
        file(play, number - 1);
        play.origin_saw(before);
    };
    store_one(&mut play);
    assert_eq!(play.disk_stats().health, store::disk::Health::Full);
    mount.resize(96 * MIB);
    let begin = std::time::Instant::now();
    store_one(&mut play);
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
    assert_eq!(play.disk_stats().health, store::disk::Health::Well);
}

/// The only medium here that really fails: the kernel answers reads of what was cut off with EIO.
#[test]
fn a_disk_whose_reads_fail_costs_misses_and_no_answer() {
    let Some(mount) = Mounted::in_file("cut", 128 * MIB) else { return };
    let mut play = play();
    play.disks("1MiB", &[&mount.path]);
    // What memory holds, what is one slice, and what is cut off in the middle of an answer.
    let in_memory: Vec<(String, Vec<u8>)> =
        (0..20).map(|number| (format!("/memory/{number}"), content(number, 100))).collect();
    let on_disk: Vec<(String, Vec<u8>)> = (0..80)
        .map(|number| {
            let len = if number % 10 == 0 { 3 * MIB + 5 } else { 50 * KIB + number };
            (format!("/disk/{number}"), content(100 + number as u64, len))
        })
        .collect();
    for (path, body) in in_memory.iter().chain(&on_disk) {
        play.origin(|o| o.get(path).always().header(FRESH.0, FRESH.1).header("ETag", "\"1\"").file(body));
        play.client(|c| c.get(path).expect(200).body(body));
    }
    play.written();
    let before = asked(&mut play);
    for (path, body) in in_memory.iter().chain(&on_disk) {
        play.client(|c| c.get(path).expect(200).body(body).why("fresh"));
    }
    play.origin_saw(before);
    assert_eq!(play.disk_stats().read_errors, 0);

    mount.cut(16 * MIB);
    for turn in 0..10 {
        for (path, body) in &on_disk {
            play.client(|c| c.get(path).expect(200).body(body));
        }
        let before = asked(&mut play);
        for (path, body) in &in_memory {
            play.client(|c| c.get(path).expect(200).body(body).why("fresh"));
        }
        assert_eq!(asked(&mut play), before, "memory answers in turn {turn}");
    }
    let stats = play.disk_stats();
    assert!(stats.read_errors > 0, "{stats:?}");
    // It was found to be failing, and is left alone until somebody has looked at it.
    assert_eq!(stats.health, store::disk::Health::Failed);
}

// --- The purge log ---

#[test]
fn a_purge_that_cannot_be_written_down_is_refused_and_purges_nothing() {
    let Some(mount) = Mounted::in_memory("log", MIB) else { return };
    let mut play = play_with_everything_on_disk();
    play.stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
    // The log alone moves to a file system that is soon full.
    let log = play.state().join("purges");
    fs::rename(&log, play.state().join("aside")).expect("the log can be moved");
    fs::copy(play.state().join("aside"), mount.path.join("purges")).expect("the log can be copied");
    std::os::unix::fs::symlink(mount.path.join("purges"), &log).expect("a link can be made");
    play.try_start().expect("the edge starts");
    play.purge("url http://site.example/none");
    let filler = vec![0; MIB];
    let _full = fs::write(mount.path.join("filler"), &filler);
    let refused = (0..200).find_map(|number| {
        let purged = play.try_purge(&format!("url http://site.example/{number}/{}", "x".repeat(1000)));
        purged.err()
    });
    assert!(refused.is_some_and(|error| error.contains("purge log")), "a full file system takes no purge");
    for purge in ["url http://site.example/small", "prefix http://site.example/", "site site", "everything"] {
        assert!(play.refused_purge(purge).contains("nothing was purged"));
    }
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(1, len)).why("fresh"));
    }
    // With room, it works again, and also after a restart.
    fs::remove_file(mount.path.join("filler")).expect("a file can be removed");
    play.purge("url http://site.example/small");
    play.client(|c| c.get("/small").expect(200).why("purged"));
    play.purge("url http://site.example/paged").restart();
    play.client(|c| {
        c.get("/paged").expect(200).why("purged");
        c.get("/slice").expect(200).why("fresh")
    });
}

#[test]
fn a_lost_purge_log_costs_what_is_on_disk() {
    let mut play = play_with_everything_on_disk();
    play.purge("url http://site.example/small");
    play.stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
    fs::remove_file(play.state().join("purges")).expect("the log can be removed");
    play.try_start().expect("the edge starts");
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(1, len)).why("absent"));
    }
}

#[test]
fn a_damaged_purge_log_costs_what_is_on_disk_and_is_kept() {
    let mut play = play_with_everything_on_disk();
    play.purge("url http://site.example/small").purge("url http://site.example/none");
    play.stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
    let log = play.state().join("purges");
    let mut text = fs::read(&log).expect("the log can be read");
    let at = text.iter().position(|byte| *byte == b'\n').expect("there are lines") + 30;
    text[at] ^= 1;
    fs::write(&log, &text).expect("the log can be written");
    play.try_start().expect("the edge starts");
    assert_eq!(fs::read(play.state().join("purges.damaged")).expect("it is kept"), text);
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(1, len)).why("absent"));
    }
}

// --- Several disks ---

#[test]
fn two_disks_share_what_is_stored() {
    let directories = Directories::new("two", 2);
    let mut play = play();
    play.disks("1MiB", &directories.paths());
    let bodies = |number: usize| content(number as u64, 50 * KIB + number);
    for number in 0..60 {
        let path = format!("/{number}");
        play.origin(|o| o.get(&path).header(FRESH.0, FRESH.1).body(bodies(number)));
        play.client(|c| c.get(&path).expect(200).body(bodies(number)));
    }
    play.written();
    let records: Vec<u64> = play.handle().status().disks.iter().map(|disk| disk.records).collect();
    assert!(records.iter().all(|records| *records > 10), "{records:?}");
    play.restart();
    for number in 0..60 {
        play.client(|c| c.get(&format!("/{number}")).expect(200).body(bodies(number)).why("fresh"));
    }
}

#[test]
fn a_disk_that_cannot_be_opened_is_left_out() {
    let directories = Directories::new("foreign", 2);
    let [first, second] = directories.paths()[..] else { panic!("two directories") };
    let foreign = b"this is somebody's diary".repeat(1000);
    fs::create_dir_all(first).expect("a directory can be made");
    fs::write(first.join("volume"), &foreign).expect("a file can be written");
    let mut play = play();
    play.disks("64MiB", &[first, second]);
    for _ in 0..2 {
        play.origin(|o| {
            o.get("/a").always().header(FRESH.0, FRESH.1).body(content(1, 2 * MIB));
        });
        play.client(|c| c.get("/a").expect(200).body(content(1, 2 * MIB)));
        let disks: Vec<String> = play.handle().status().disks.iter().map(|disk| disk.name.clone()).collect();
        assert_eq!(disks, [second.display().to_string()]);
        play.written().restart();
        play.client(|c| c.get("/a").expect(200).body(content(1, 2 * MIB)).why("fresh"));
    }
    assert_eq!(fs::read(first.join("volume")).expect("it is still there"), foreign);
}

#[test]
fn an_edge_none_of_whose_disks_can_be_opened_does_not_start() {
    let directories = Directories::new("none", 1);
    let [only] = directories.paths()[..] else { panic!("one directory") };
    fs::create_dir_all(only).expect("a directory can be made");
    fs::write(only.join("volume"), b"this is somebody's diary".repeat(1000)).expect("a file can be written");
    let mut play = play();
    play.disks("64MiB", &[only]);
    let reason = play.try_start().expect_err("the edge does not start");
    assert!(reason.contains(&only.display().to_string()), "{reason}");
}

#[test]
fn what_a_missing_disk_held_never_comes_back() {
    let directories = Directories::new("missing", 2);
    let mut play = play();
    play.disks("1MiB", &directories.paths());
    for number in 0..30 {
        let path = format!("/{number}");
        play.origin(|o| o.get(&path).header(FRESH.0, FRESH.1).body(content(1, 50 * KIB)));
        play.client(|c| c.get(&path).expect(200).body(content(1, 50 * KIB)));
    }
    play.written().stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
    let [lost, _] = directories.paths()[..] else { panic!("two directories") };
    let aside = lost.with_extension("aside");
    fs::rename(lost, &aside).expect("a directory can be moved");
    fs::write(lost, b"no directory").expect("a file can be written");
    play.try_start().expect("the edge starts with one disk");
    for number in 0..30 {
        let path = format!("/{number}");
        play.origin(|o| o.get(&path).header(FRESH.0, FRESH.1).body(content(2, 50 * KIB)));
        play.origin(|o| o.post(&path).reply(204));
        play.client(|c| c.post(&path).with_body("x").expect(204));
        play.client(|c| c.get(&path).expect(200).body(content(2, 50 * KIB)));
    }
    play.written();
    for number in 0..30 {
        play.client(|c| c.get(&format!("/{number}")).expect(200).body(content(2, 50 * KIB)).why("fresh"));
    }
    // It comes back with what it held then, and nobody knows what became of that meanwhile.
    play.stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
    fs::remove_file(lost).expect("a file can be removed");
    fs::rename(&aside, lost).expect("a directory can be moved");
    play.try_start().expect("the edge starts with both disks");
    for number in 0..30 {
        play.client(|c| c.get(&format!("/{number}")).expect(200).body(content(2, 50 * KIB)).why("fresh"));
    }
}

/// What is taken away then is not written down, so nothing of the disk is believed afterwards.
#[test]
fn what_was_taken_away_while_there_was_no_disk_never_comes_back() {
    let mut play = play_with_everything_on_disk();
    let with_disk = play.config_text();
    for _ in 0..2 {
        play.stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
        play.config("[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\n");
        play.purge("url http://site.example/small");
        play.origin(|o| o.post("/paged").reply(204));
        play.client(|c| c.post("/paged").with_body("x").expect(204));
        play.stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
        play.config(&with_disk);
        for (path, len) in SIZES {
            play.client(|c| c.get(path).expect(200).body(content(1, len)).why("absent"));
        }
        play.written();
    }
}

/// Directories for disks, removed at the end.
struct Directories(Vec<PathBuf>);

impl Directories {
    fn new(name: &str, count: usize) -> Directories {
        let base = std::env::temp_dir();
        let path = |number| base.join(format!("perigee-play-disk-{}-{name}-{number}", std::process::id()));
        Directories((0..count).map(path).collect())
    }

    fn paths(&self) -> Vec<&Path> {
        self.0.iter().map(PathBuf::as_path).collect()
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| {
            let _ = fs::remove_dir_all(path);
            let _ = fs::remove_file(path);
        });
    }
}
