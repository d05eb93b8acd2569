//! Tables, explanations and the last line of the bench, from what was measured. Measures nothing itself.

/// The rows of a table by their place among the policies.
const NAMES: [&str; 6] = ["LRU", "SIEVE", "S3-FIFO", "LGDSF e=1", "LGDSF e=0.5", "LGDSF e=0"];
const LRU: usize = 0;
const S3FIFO: usize = 2;
const LGDSF: usize = 3;
const LGDSF_HALF: usize = 4;
const LGDSF_ZERO: usize = 5;

/// The share of the footprint that the last line tells of.
const SHARE_OF_RESULT: f64 = 0.01;

/// A quotient that counts as a gain: less is within what another seed moves it by in web and image.
const GAIN_MIN: f64 = 1.01;

/// What one policy did at one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratios {
    /// Requests that hit, of all.
    pub(crate) objects: f64,
    /// Their bytes, of all bytes asked for.
    pub(crate) bytes: f64,
    /// Mean size of the objects held.
    pub(crate) held_bytes_mean: f64,
    /// Bytes of held objects that are never asked for again, of all held.
    pub(crate) dead: f64,
    /// Requests whose object was too large to be held, of all.
    pub(crate) refused: f64,
}

/// All policies at one size.
pub(crate) struct Column {
    /// Capacity ÷ footprint.
    pub(crate) share: f64,
    pub(crate) policies: [Ratios; 6],
    /// PFOO-L by objects and by bytes.
    pub(crate) bound: (f64, f64),
    /// The exact clairvoyant object hit ratio, where all objects weigh the same.
    pub(crate) belady: Option<f64>,
}

/// One trace.
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) requests: u64,
    /// Bytes asked for, and of all objects once.
    pub(crate) request_bytes: u64,
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
    /// Objects asked for once.
    pub(crate) once: u64,
    pub(crate) is_sized: bool,
    pub(crate) columns: Vec<Column>,
}

/// Prints as it goes and keeps the last line.
#[derive(Default)]
pub(crate) struct Report {
    result: Vec<String>,
}

impl Report {
    /// Prints one trace's tables and explanations. `without_once` is the same trace without the objects that are
    /// asked for once.
    pub(crate) fn print(&mut self, figures: &Figures, without_once: &Figures) {
        describe(figures);
        table(figures);
        figures.columns.iter().for_each(|column| explain(figures, column));
        without_once.columns.iter().for_each(|column| compare(without_once, column));
        let at_share = figures.columns.iter().find(|column| column.share == SHARE_OF_RESULT);
        self.result.extend(at_share.into_iter().flat_map(|column| keys(figures, column)));
    }

    /// Prints the last line.
    pub(crate) fn end(self) {
        println!("\nRESULT {}", self.result.join(" "));
    }
}

fn describe(figures: &Figures) {
    let per = |bytes: u64, count: u64| bytes as f64 / count as f64 / 1e3;
    print!(
        "\n{}: {} requests for {} objects, {:.0} % of which are asked for once",
        figures.name,
        figures.requests,
        figures.objects,
        100.0 * figures.once as f64 / figures.objects as f64,
    );
    match figures.is_sized {
        true => println!(
            "; {:.1} GB, {:.1} KB per object and {:.1} KB per request",
            figures.object_bytes as f64 / 1e9,
            per(figures.object_bytes, figures.objects),
            per(figures.request_bytes, figures.requests),
        ),
        false => println!("; a real trace without sizes"),
    }
}

fn table(figures: &Figures) {
    let cells = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        println!("{name:<18}{}", cells.map(|cell| format!("{cell:>16}")).collect::<String>());
    };
    let of = if figures.is_sized { "object / byte hit ratio at" } else { "object hit ratio at" };
    println!("{of}");
    let pair = |objects: f64, bytes: f64| match figures.is_sized {
        true => format!("{objects:.3} / {bytes:.3}"),
        false => format!("{objects:.3}"),
    };
    cells("", &mut figures.columns.iter().map(|column| format!("{} %", 100.0 * column.share)));
    for (place, name) in NAMES.iter().enumerate() {
        let row = figures.columns.iter().map(|column| column.policies[place]);
        cells(name, &mut row.map(|ratios| pair(ratios.objects, ratios.bytes)));
    }
    if !figures.is_sized {
        cells(
            "clairvoyant",
            &mut figures.columns.iter().filter_map(|column| Some(pair(column.belady?, 0.0))),
        );
    }
    cells("bound (PFOO-L)", &mut figures.columns.iter().map(|column| pair(column.bound.0, column.bound.1)));
}

/// Says where LGDSF with e = 1 does not gain, with what was measured there.
fn explain(figures: &Figures, column: &Column) {
    let lgdsf = column.policies[LGDSF];
    for rival in [LRU, S3FIFO] {
        let theirs = column.policies[rival];
        let (objects, bytes) = (lgdsf.objects / theirs.objects, lgdsf.bytes / theirs.bytes);
        let (no_objects, no_bytes) = (objects < GAIN_MIN, figures.is_sized && bytes < GAIN_MIN);
        if !no_objects && !no_bytes {
            continue;
        }
        print!("No gain over {} at {} %", NAMES[rival], 100.0 * column.share);
        if no_objects {
            print!(" in objects ({objects:.3} times)");
        }
        if no_bytes {
            print!("{} in bytes ({bytes:.3} times)", if no_objects { " and" } else { "" });
        }
        print!(
            ": never asked for again are {:.0} % of the bytes held, there {:.0} %",
            100.0 * lgdsf.dead,
            100.0 * theirs.dead
        );
        if figures.is_sized {
            let [half, zero] =
                [LGDSF_HALF, LGDSF_ZERO].map(|place| column.policies[place].bytes / theirs.bytes);
            print!(
                "; a held object has {:.0} KB, there {:.0}; by bytes, e = 0.5 has {half:.3}, e = 0 {zero:.3} times",
                lgdsf.held_bytes_mean / 1e3,
                theirs.held_bytes_mean / 1e3,
            );
        }
        if lgdsf.refused >= 0.005 {
            print!(
                "; {:.0} % of the requests are for objects over 2 % of the capacity",
                100.0 * lgdsf.refused
            );
        }
        println!(".");
    }
}

/// Sets LGDSF, by each e, beside S3-FIFO on what is left without the objects asked for once.
fn compare(figures: &Figures, column: &Column) {
    let theirs = column.policies[S3FIFO];
    print!("Over S3-FIFO at {} % without the objects asked for once:", 100.0 * column.share);
    for (place, end) in [(LGDSF, ","), (LGDSF_HALF, ","), (LGDSF_ZERO, ".\n")] {
        let ours = column.policies[place];
        print!(" {} has {:.3} times the objects", NAMES[place], ours.objects / theirs.objects);
        if figures.is_sized {
            print!(" and {:.3} times the bytes", ours.bytes / theirs.bytes);
        }
        print!("{end}");
    }
}

/// The trace's part of the last line.
fn keys(figures: &Figures, column: &Column) -> Vec<String> {
    let [lru, _, s3fifo, lgdsf, half, zero] = column.policies;
    let mut keys = vec![
        ("bound", column.belady.unwrap_or(column.bound.0)),
        ("lgdsf", lgdsf.objects),
        ("lgdsf_over_lru", lgdsf.objects / lru.objects),
        ("lgdsf_over_s3fifo", lgdsf.objects / s3fifo.objects),
    ];
    if figures.is_sized {
        keys.extend([
            ("bytes_bound", column.bound.1),
            ("bytes_lgdsf", lgdsf.bytes),
            ("bytes_lgdsf_over_lru", lgdsf.bytes / lru.bytes),
            ("bytes_lgdsf_over_s3fifo", lgdsf.bytes / s3fifo.bytes),
            ("bytes_lgdsf_e05_over_s3fifo", half.bytes / s3fifo.bytes),
            ("bytes_lgdsf_e0_over_s3fifo", zero.bytes / s3fifo.bytes),
        ]);
    }
    keys.into_iter().map(|(key, value)| format!("{}_{key}={value:.3}", figures.name)).collect()
}
