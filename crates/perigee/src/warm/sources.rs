//! Where URLs come from: sitemaps by way of an edge or from a file, logs, lists.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::path::Path;

use insight::log::Lines;
use warm::{SITEMAP_BYTES_MAX, Url, inflated, read_sitemap, urls_of_list};

use super::Warm;
use super::fetch::{Edge, Fetcher};
use crate::failure::Failure;

/// Sitemaps that are read, at most: an index names others.
const SITEMAPS_MAX: usize = 1_000;

/// Bytes of a list.
const FILE_BYTES_MAX: usize = 1 << 30;

/// Different URLs of a log that are counted, at most: those that come first in it.
const COUNTED_MAX: usize = 1_000_000;

/// What is to be fetched.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order in which they are fetched, each once.
    pub(super) urls: Vec<Url>,
    /// What was read and is no URL, or not to be fetched.
    pub(super) bad: usize,
}

pub(super) async fn read(warm: &Warm, fetcher: &Fetcher, edge: &Edge) -> Result<Found, Failure> {
    let mut found = match (&warm.log, &warm.urls) {
        (Some(file), _) => read_log(warm, file)?,
        (None, Some(file)) => {
            let text = read_file(file, FILE_BYTES_MAX)?;
            let (urls, bad) = urls_of_list(&String::from_utf8_lossy(&text), warm.max);
            Found { urls, bad }
        }
        (None, None) => read_sitemaps(warm, fetcher, edge).await?,
    };
    let mut seen = HashSet::new();
    found.urls.retain(|url| seen.insert(url.clone()));
    match found.urls.is_empty() {
        true => {
            let files = warm.log.iter().chain(&warm.urls).map(|file| file.display().to_string());
            let named: Vec<String> = files.chain(warm.sitemap.iter().cloned()).collect();
            Err(Failure::new(
                format!("there is no URL in {}", named.join(", ")),
                "check what was named, and that it is of that kind",
            ))
        }
        false => Ok(found),
    }
}

/// What visitors have asked for with GET, and got: what was asked for most first.
fn read_log(warm: &Warm, path: &Path) -> Result<Found, Failure> {
    let wrong = |error: std::io::Error| unreadable(path, &error);
    let mut lines = Lines::new(File::open(path).map_err(wrong)?);
    let (mut counts, mut hostless) = (HashMap::<Url, u64>::new(), 0);
    while let Some((_, record)) = lines.next().map_err(wrong)? {
        let is_good = record.method == "GET" && matches!(record.status, 200 | 203 | 206 | 301..=308);
        if !is_good || !record.target.starts_with('/') {
            continue;
        }
        let host = Some(&*record.host).filter(|host| !host.is_empty()).or(warm.host.as_deref());
        let Some(host) = host else {
            hostless += 1;
            continue;
        };
        let is_https = record.secure.unwrap_or(!warm.http);
        let Ok(url) = Url::of(is_https, host, &record.target) else { continue };
        let has_room = counts.len() < COUNTED_MAX;
        match counts.get_mut(&url) {
            Some(count) => *count += 1,
            None if has_room => drop(counts.insert(url, 1)),
            None => {}
        }
    }
    if counts.is_empty() && hostless > 0 {
        let message = format!("{}: no line says which host was asked", path.display());
        return Err(Failure::new(message, "say it: --host www.shop.example"));
    }
    let mut counted: Vec<(Url, u64)> = counts.into_iter().collect();
    counted.sort_by(|(one, count), (other, more)| more.cmp(count).then_with(|| one.cmp(other)));
    let urls = counted.into_iter().map(|(url, _)| url).take(warm.max).collect();
    Ok(Found { urls, bad: usize::try_from(lines.malformed).unwrap_or(usize::MAX) })
}

fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    let text = inflated(&bytes, bytes_max);
    text.map(|text| text.into_owned()).map_err(|reason| {
        Failure::new(format!("{} {reason}", path.display()), "name a part of it, or another file")
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} cannot be read: {error}", path.display()), "name a file that this user can read")
}

/// Reads sitemaps, and those that they name, in order. Those of an index must lie on the host of the index (sitemaps.org,
/// "sitemaps and cross submits" apart): else a site could have any other fetched.
async fn read_sitemaps(warm: &Warm, fetcher: &Fetcher, edge: &Edge) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut waiting: VecDeque<String> = warm.sitemap.iter().cloned().collect();
    let mut seen: HashSet<String> = waiting.iter().cloned().collect();
    let mut count = 0;
    while let Some(name) = waiting.pop_front() {
        count += 1;
        if count > SITEMAPS_MAX {
            return Err(Failure::new(
                format!("there are more than {SITEMAPS_MAX} sitemaps"),
                "name some of them",
            ));
        }
        let url = name.contains("://").then(|| Url::parse(&name)).transpose();
        let url =
            url.map_err(|reason| Failure::new(format!("{name} {reason}"), "name a sitemap by its URL"))?;
        let bytes = match &url {
            Some(url) => fetcher.get(edge, url, SITEMAP_BYTES_MAX).await.map_err(|reason| {
                Failure::new(
                    format!("{url}: {reason}"),
                    "it is fetched through the first edge: does that serve the site?",
                )
            })?,
            None => read_file(Path::new(&name), SITEMAP_BYTES_MAX)?,
        };
        let text = inflated(&bytes, SITEMAP_BYTES_MAX);
        let text = text.map_err(|reason| Failure::new(format!("{name} {reason}"), "split it"))?;
        let sitemap = read_sitemap(&text).map_err(|reason| {
            Failure::new(format!("{name} {reason}"), "wanted is a sitemap as sitemaps.org describes them")
        })?;
        found.bad += sitemap.bad;
        for next in sitemap.sitemaps {
            match url.as_ref().is_none_or(|url| url.host() == next.host()) {
                true if seen.insert(next.to_string()) => waiting.push_back(next.to_string()),
                true => {}
                false => found.bad += 1,
            }
        }
        let room = warm.max.saturating_sub(found.urls.len());
        found.urls.extend(sitemap.urls.into_iter().take(room));
        if found.urls.len() >= warm.max {
            break;
        }
    }
    Ok(found)
}
