//! What the index of a full disk costs: memory per object while it runs, and time until a start has it back.
//!
//! `cargo run -p store --release --example index -- --objects 10000000 --dir DIR`, called by `bench/index.sh`. It fills one
//! disk in DIR with small values, ends in order, and is timed when it starts again; then the same after a `kill -9`. DIR is
//! made and its files are left there. Each part is a process of its own, so that none inherits memory from another.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::InFlight;
use store::disk::{Directory, DiskConfig, DiskStats, Disks, DisksConfig, Draft, EngineKind, Opened, Reader};

/// As in the product, whose memory this is about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY_BYTES: usize = 100;
const META_BYTES: usize = 60;

/// Values that are read back after a start.
const SAMPLE: u64 = 10_000;

/// Bytes of the volume per object: its record (240), its entry in a footer (40) and a fifth more, so that nothing is evicted.
const VOLUME_BYTES_PER_OBJECT: u64 = 340;

/// Longest time that a part may take.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Minutes since 1970: any time before the values' expiry.
const MINUTES: u32 = 29_700_000;

type Failure = Box<dyn Error>;

struct Arguments {
    objects: u64,
    dir: PathBuf,
    part: Option<String>,
}

fn main() -> Result<(), Failure> {
    let begun = Instant::now();
    let arguments = arguments()?;
    match arguments.part.as_deref() {
        None => measure(&arguments),
        Some("--fill") => fill(&arguments, true),
        Some("--fill-and-wait") => fill(&arguments, false),
        Some("--reopen") => reopen(&arguments, begun),
        Some(other) => Err(format!("{other} is no argument of this").into()),
    }
}

fn arguments() -> Result<Arguments, Failure> {
    let (mut objects, mut dir, mut part) = (10_000_000, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--objects" => objects = value()?.parse()?,
            "--dir" => dir = Some(PathBuf::from(value()?)),
            _ => part = Some(argument),
        }
    }
    Ok(Arguments { objects, dir: dir.ok_or("--dir DIR is missing")?, part })
}

/// Runs the parts and prints what they found.
fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let filled = part(arguments, "--fill")?;
    let clean = part(arguments, "--reopen")?;
    println!("after an orderly end: {clean}");
    std::fs::remove_dir_all(&arguments.dir)?;
    part(arguments, "--fill-and-wait")?;
    let killed = part(arguments, "--reopen")?;
    println!("after kill -9:        {killed}");
    println!("RESULT {filled} {clean}");
    Ok(())
}

/// Runs one part as a child; its last line.
fn part(arguments: &Arguments, part: &str) -> Result<String, Failure> {
    use std::io::BufRead;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--objects").arg(arguments.objects.to_string()).arg("--dir").arg(&arguments.dir);
    // Only what is held is to be measured, not what the allocator has not given back yet.
    command.env("MIMALLOC_PURGE_DELAY", "0");
    let mut child = command.arg(part).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("the child has no output")?;
    let mut last = String::new();
    for line in std::io::BufReader::new(output).lines() {
        let line = line?;
        if line == "FILLED" {
            child.kill()?;
            child.wait()?;
            return Ok(line);
        }
        last = line;
    }
    let status = child.wait()?;
    if status.success() { Ok(last) } else { Err(format!("{part} ended with {status}").into()) }
}

fn open(dir: &Path, objects: u64) -> Result<(Arc<Disks>, Opened), Failure> {
    let shelf = Arc::new(Directory::create(dir)?);
    let bytes = (objects * VOLUME_BYTES_PER_OBJECT).max(64 << 20);
    let config = DiskConfig { shelf, bytes, writes_per_day: 1000 };
    let chance = u128::from(std::process::id());
    let engine = EngineKind::probe();
    let common = DisksConfig {
        owner: 1,
        chance,
        minutes: Arc::new(|| MINUTES),
        engine,
        in_flight: InFlight::default(),
    };
    let (disks, mut reports) = Disks::open(vec![config], &common);
    let opened = reports.pop().ok_or("no disk")?.1?;
    Ok((Arc::new(disks), opened))
}

/// Uniform and reproducible: splitmix64, twice.
fn key(number: u64) -> u128 {
    let mix = |seed: u64| {
        let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    u128::from(mix(number * 2 + 1)) << 64 | u128::from(mix(number * 2 + 2))
}

fn bytes(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().repeat(len / 8 + 1);
    bytes.truncate(len);
    bytes
}

/// Memory of this process, in bytes, without what it shares with others.
fn memory_bytes() -> Result<u64, Failure> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).ok_or("no Pss in smaps_rollup")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no number after Pss")?.parse()?;
    Ok(kib * 1024)
}

fn only(disks: &Disks) -> DiskStats {
    disks.stats().pop().unwrap_or_default()
}

/// Fills the disk and prints the memory per object, what an empty one holds taken off. `ends`: in order; else it waits to be
/// killed.
fn fill(arguments: &Arguments, ends: bool) -> Result<(), Failure> {
    let (disks, _) = open(&arguments.dir, arguments.objects)?;
    let empty = memory_bytes()?;
    let begun = Instant::now();
    // In a thread of its own, so that its end gives back the memory of what it has put.
    std::thread::scope(|scope| {
        let filler =
            scope.spawn(|| put_all(&disks, arguments.objects, begun).map_err(|error| error.to_string()));
        filler.join().unwrap_or_else(|_| Err("the filler died".into()))
    })?;
    if !ends {
        println!("FILLED");
        std::thread::sleep(PATIENCE);
        return Err("nobody has killed this".into());
    }
    read_for_a_while(&disks, arguments.objects)?;
    let grown = memory_bytes()?.saturating_sub(empty);
    let objects = arguments.objects as f64;
    let index = only(&disks).index_bytes as f64 / objects;
    eprintln!("the index itself: {index:.2} bytes per object; empty, the process holds {empty} bytes");
    disks.close();
    println!("bytes_per_object={:.2}", grown as f64 / objects);
    Ok(())
}

/// Reads some values now and then, as a store that has settled does; allocators give memory back while they are used.
fn read_for_a_while(disks: &Arc<Disks>, objects: u64) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let reader = disks.reader();
        for number in 0..500 {
            for number in number * 20..number * 20 + 20 {
                verify(disks, &reader, number % objects).await?;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
}

fn put_all(disks: &Disks, objects: u64, begun: Instant) -> Result<(), Failure> {
    for number in 0..objects {
        if number % (objects / 10).max(1) == 0 {
            eprintln!("{number} objects after {:.1} s", begun.elapsed().as_secs_f64());
        }
        let draft = || Draft {
            key: key(number),
            meta: bytes(number, META_BYTES).into(),
            body: vec![bytes(number + 1, BODY_BYTES).into()],
            expiry: MINUTES + 1000,
            is_slice: false,
        };
        // Refused is what finds the queue full.
        while !disks.put(draft()) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("object {number} is refused: {:?}", only(disks)).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while only(disks).records < objects {
        if begun.elapsed() > PATIENCE {
            return Err(format!("not all is stored: {:?}", only(disks)).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("all {} objects after {:.1} s", objects, begun.elapsed().as_secs_f64());
    Ok(())
}

/// Opens the disk again and prints the times from the process's start on.
fn reopen(arguments: &Arguments, begun: Instant) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (disks, opened) = open(&arguments.dir, arguments.objects)?;
        let reader = disks.reader();
        verify(&disks, &reader, 0).await?;
        let first_hit_ms = begun.elapsed().as_millis();
        let mut chance = 1u64;
        for _ in 0..SAMPLE {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            verify(&disks, &reader, (chance >> 20) % arguments.objects).await?;
        }
        if only(&disks).records < arguments.objects {
            return Err(format!("{} records of {}", only(&disks).records, arguments.objects).into());
        }
        let full_ms = begun.elapsed().as_millis();
        eprintln!("{opened:?}");
        disks.close();
        println!("first_hit_ms={first_hit_ms} full_ms={full_ms}");
        Ok(())
    })
}

async fn verify(disks: &Disks, reader: &Reader, number: u64) -> Result<(), Failure> {
    let spot = disks.lookup(key(number)).ok_or(format!("object {number} is lost"))?;
    let record = reader.read(key(number), &spot, usize::MAX).await;
    let record = record.map_err(|unread| format!("object {number} is {unread:?}"))?;
    let is_it = record.meta == bytes(number, META_BYTES)
        && record.body().is_some_and(|body| *body == bytes(number + 1, BODY_BYTES));
    if is_it { Ok(()) } else { Err(format!("object {number} is another").into()) }
}
