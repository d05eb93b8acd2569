//! How fast pages are rewritten, beside the HTML rewriter that does nothing, and what memory a long page takes.
//!
//! `cargo run --release -p website --example rewriting -- speed [SECONDS]` or `memory MIB`; bench/rewrite.sh runs both.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lol_html::{HtmlRewriter, Settings, element, text};
use model::rewrite::Rewrite;
use rustix::time::{ClockId, clock_gettime};
use website::{Kind, Page, Rewriter};

/// Bytes that come from an origin at a time.
const PIECE: usize = 16 * 1024;

/// A list of products as shops have it, of about this many bytes.
fn page(bytes: usize) -> Vec<u8> {
    let mut page = String::from(concat!(
        "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>Lamps</title>",
        "<link rel=stylesheet href=\"/static/css/shop.3f2a9c1b.css\"><link rel=icon href=/static/icon.svg>",
        "<script src=\"/static/js/shop.7df0a4b3.js\" defer></script>",
        "<style>body{margin:0;background:#fff url(\"/static/img/paper.png\")}.card{display:grid;gap:1rem}</style></head><body>",
    ));
    let mut number = 0;
    while page.len() < bytes {
        number += 1;
        page.push_str(&format!(
            concat!(
                "<article class=\"card card--wide\" id=\"product-{n}\" data-product=\"{n}\">\n",
                "  <a class=\"card__link\" href=\"/lamps/lantern-{n}/\" title=\"Lantern {n}\">\n",
                "    <img class=\"card__image\" src=\"/media/cache/{n}/lantern-320.webp\" width=\"320\" height=\"240\" loading=\"lazy\"\n",
                "      srcset=\"/media/cache/{n}/lantern-320.webp 320w, /media/cache/{n}/lantern-640.webp 640w\" alt=\"Lantern {n}\">\n",
                "  </a>\n  <h3 class=\"card__title\">Lantern No. {n}</h3>\n",
                "  <p class=\"card__text\">Brass, hand made, with a wick of cotton that burns for eleven hours; ",
                "fits all our holders and comes with a year of guarantee.</p>\n",
                "  <p class=\"card__price\"><span class=\"price\">&pound;{n}.00</span> <span class=\"tax\">incl. tax</span></p>\n",
                "  <form method=\"post\" action=\"/basket/add/{n}/\"><input type=\"hidden\" name=\"quantity\" value=\"1\">",
                "<button type=\"submit\" class=\"button button--primary\">Add to basket</button></form>\n</article>\n",
            ),
            n = number
        ));
    }
    page.push_str("</body></html>\n");
    page.into_bytes()
}

fn site() -> (Arc<Rewrite>, Page) {
    let rewrite = Rewrite { host: "https://cdn.shop.example".into(), ..Rewrite::default() };
    let page = Page { secure: true, authority: "www.shop.example".into(), path: "/lamps/".into() };
    (Arc::new(rewrite), page)
}

fn rewritten(rewrite: &Arc<Rewrite>, at: &Page, page: &[u8], out: &mut Vec<u8>) -> u64 {
    let mut rewriter = Rewriter::new(rewrite, Kind::Html, at);
    for piece in page.chunks(PIECE) {
        rewriter.push(piece, out);
    }
    rewriter.finish(out).changed
}

/// The HTML rewriter with the same selectors and nothing done.
fn bare(page: &[u8], out: &mut Vec<u8>) {
    let settings = Settings::new()
        .append_element_content_handler(element!("*", |_| Ok(())))
        .append_element_content_handler(text!("style, script", |_| Ok(())));
    let mut rewriter = HtmlRewriter::new(settings, |piece: &[u8]| out.extend_from_slice(piece));
    for piece in page.chunks(PIECE) {
        rewriter.write(piece).expect("nothing fails");
    }
    rewriter.end().expect("nothing fails");
}

/// Bytes per second of this thread's CPU time, the best of the rounds: what else runs only takes time away.
fn speed(bytes: usize, duration: Duration, mut run: impl FnMut()) -> f64 {
    let (begun, mut best) = (Instant::now(), 0.0_f64);
    while begun.elapsed() < duration {
        let round = cpu_time();
        for _ in 0..20 {
            run();
        }
        best = best.max(20.0 * bytes as f64 / (cpu_time() - round).as_secs_f64());
    }
    best
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn main() {
    let mut words = std::env::args().skip(1);
    let word = words.next().unwrap_or_default();
    let number: usize = words.next().and_then(|word| word.parse().ok()).unwrap_or(5);
    let (rewrite, at) = site();
    match &*word {
        "speed" => {
            let page = page(50_000);
            let mut out = Vec::with_capacity(page.len() * 2);
            let duration = Duration::from_secs(number as u64);
            let ours = speed(page.len(), duration, || {
                out.clear();
                black_box(rewritten(&rewrite, &at, &page, &mut out));
            });
            let bare = speed(page.len(), duration, || {
                out.clear();
                bare(&page, &mut out);
                black_box(&out);
            });
            let changed = rewritten(&rewrite, &at, &page, &mut out);
            println!(
                "RESULT mb_per_s={:.0} bare_mb_per_s={:.0} over_lol_html={:.2} bytes={} changed={changed}",
                ours / 1e6,
                bare / 1e6,
                bare / ours,
                page.len(),
            );
        }
        "memory" => {
            let piece = page(PIECE);
            let mut rewriter = Rewriter::new(&rewrite, Kind::Html, &at);
            let mut out = Vec::new();
            let (mut bytes, mut written) = (0, 0);
            rewriter.push(&piece, &mut out);
            let before = peak();
            while bytes < number * 1024 * 1024 {
                rewriter.push(&piece, &mut out);
                bytes += piece.len();
                written += out.len();
                out.clear();
            }
            let report = rewriter.finish(&mut out);
            println!(
                "RESULT mib={number} grown_kib={} written={written} changed={} failed_open={}",
                peak() - before,
                report.changed,
                report.failed_open
            );
        }
        _ => {
            eprintln!("say speed [SECONDS], or memory MIB");
            std::process::exit(2);
        }
    }
}
