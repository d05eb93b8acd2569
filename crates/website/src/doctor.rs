//! Looks at a live site, directly and through an edge, and says what stands in the way of either: first by HTTP alone, then in
//! headless Chromium. Reads, and changes nothing.

mod checks;
mod chromium;
mod client;
mod compare;
mod page;
mod report;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

pub use report::{as_html, as_text};

use client::{Client, Fetched};
use page::Address;

/// Files of a page that are looked at by HTTP; of a longer list, those that come first: a finding says how many are left out.
pub const FILES_MAX: usize = 60;

/// Links that are followed for each page that is wanted: some lead to what is none.
const LINKS_PER_PAGE: usize = 4;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The page.
    pub url: String,
    /// The edge, if it is not where the site's name leads to.
    pub through: Option<SocketAddr>,
    /// The site itself, if its name leads elsewhere.
    pub direct: Option<SocketAddr>,
    /// Where static files are to come from, if not from the site's own host.
    pub cdn: Option<String>,
    /// Pages that are looked at.
    pub pages: usize,
    /// Whether the browser is left out.
    pub without_browser: bool,
    /// The browser, if it is not where it is looked for.
    pub chromium: Option<PathBuf>,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Something is broken, or will be.
    Bad,
    /// It works, and could be better.
    Warning,
    /// Not looked at, and why.
    Skipped,
    /// As it should be.
    Good,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is looked at: `cors`, `cookies`, `pixels`.
    pub check: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// The URL, or what else it is about.
    pub about: String,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing is.
    pub next: String,
}

/// A picture that shows a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// What it shows.
    pub title: String,
    /// PNG in base64.
    pub png: String,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The page that was asked for.
    pub url: String,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What pages look like that do not look the same.
    pub pictures: Vec<Picture>,
}

impl Report {
    /// Whether nothing is broken.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Bad)
    }

    /// How many findings have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        about: impl Into<String>,
        found: impl Into<String>,
        next: &str,
    ) {
        let (about, found) = (about.into(), found.into());
        self.findings.push(Finding { check, verdict, about, found, next: next.into() });
    }
}

/// Looks at the site. `Err`: there is nothing to look at, and why.
pub async fn examine(options: &Options) -> Result<Report, String> {
    let address =
        Address::parse(&options.url).ok_or_else(|| format!("{:?} is no URL of a page", options.url))?;
    let cdn = options.cdn.as_deref().map(|cdn| {
        model::rewrite::origin_of(cdn)
            .ok_or_else(|| format!("{cdn:?} is no host that files can be fetched from"))
    });
    let cdn = cdn.transpose()?;
    let client = Client::new()?;
    let mut site = Site { client, address, cdn, options: options.clone(), report: Report::default() };
    site.report.url = options.url.clone();
    let pages_max = options.pages.max(1);
    let mut links = vec![site.address.clone()];
    let mut pages: Vec<Address> = Vec::new();
    let mut at = 0;
    while pages.len() < pages_max
        && let Some(link) = links.get(at).cloned()
    {
        at += 1;
        let Some((page, more)) = site.by_http(link).await else { continue };
        if !pages.contains(&page) {
            pages.push(page);
        }
        for link in more {
            if links.len() < pages_max.saturating_mul(LINKS_PER_PAGE)
                && !links.contains(&link)
                && !pages.contains(&link)
            {
                links.push(link);
            }
        }
    }
    match pages.is_empty() {
        true => site.report.add(
            "reach",
            Verdict::Bad,
            &*options.url,
            "it is no page, by its Content-Type",
            "name a page of the site",
        ),
        false => site.in_browser(&pages).await,
    }
    let mut report = site.report;
    report.findings.sort_by_key(|finding| finding.verdict);
    report.findings.dedup();
    Ok(report)
}

/// A site that is being looked at.
struct Site {
    client: Client,
    address: Address,
    cdn: Option<Box<str>>,
    options: Options,
    report: Report,
}

impl Site {
    /// Where a host is reached: by its name, or where we are told to.
    fn route(&self, to: &Address, way: Option<SocketAddr>) -> Option<SocketAddr> {
        way.filter(|_| to.authority == self.address.authority || self.is_cdn(to))
    }

    fn is_cdn(&self, to: &Address) -> bool {
        self.cdn.as_deref() == Some(&*to.origin())
    }

    /// Whether a file of the page comes from the site or its asset host: what others send is not looked at.
    fn is_ours(&self, file: &page::File, page: &Address) -> bool {
        file.address.authority == page.authority || self.is_cdn(&file.address)
    }

    /// What visitors get, or will: through the edge, if one is named.
    async fn fetch(&self, to: &Address, fields: &[(&str, &str)]) -> Result<Fetched, String> {
        let way = self.options.through.or(self.options.direct.filter(|_| !self.is_cdn(to)));
        self.client.get(to, self.route(to, way), fields).await
    }

    /// What the site itself says.
    async fn fetch_direct(&self, to: &Address, fields: &[(&str, &str)]) -> Result<Fetched, String> {
        self.client.get(to, self.route(to, self.options.direct), fields).await
    }

    /// Looks at the page that a link leads to, and its files; where it is, and its own links. `None`: it is no page.
    async fn by_http(&mut self, link: Address) -> Option<(Address, Vec<Address>)> {
        let Some((place, fetched)) = self.reach(&link).await else { return Some((link, Vec::new())) };
        let page = &place;
        if !fetched.is_page() {
            return None;
        }
        self.address.secure = page.secure;
        let found_before = self.report.findings.len();
        let found = page::scan(page, &fetched.body);
        checks::of_page(&mut self.report, page, &found, self.cdn.as_deref());
        let mut files = found.files.clone();
        let mut known: HashSet<_> = files.iter().map(|file| file.address.clone()).collect();
        let (mut at, mut looked_at) = (0, 0);
        while at < files.len().min(FILES_MAX) {
            let file = files[at].clone();
            at += 1;
            if !self.is_ours(&file, page) {
                continue;
            }
            let fetched = match self.fetch(&file.address, &[("Origin", &page.origin())]).await {
                Ok(fetched) => fetched,
                Err(error) => {
                    self.report.add(
                        "file",
                        Verdict::Bad,
                        file.address.to_string(),
                        error,
                        "see whether its host leads to the edge, and has a certificate",
                    );
                    continue;
                }
            };
            checks::of_file(&mut self.report, page, &file, &fetched);
            looked_at += usize::from(fetched.status == 200 && checks::is_static(&file.address));
            if fetched.is("text/css") {
                let more = page::scan_css(&file.address, &fetched.body);
                files.extend(more.into_iter().filter(|file| known.insert(file.address.clone())));
            }
            self.compression(&file.address, &fetched).await;
            self.ranges(&file.address, &fetched).await;
            self.through_the_edge(&file.address, &fetched).await;
        }
        if let Some(cdn) = self.cdn.as_deref() {
            checks::of_policies(&mut self.report, page, &fetched, &found, &files, cdn);
        }
        let mut checks = vec!["file", "cookies", "vary", "lifetime", "cors", "compression"];
        if self.options.through.is_some() {
            checks.extend(["cache", "content"]);
        }
        // One good word for those that have found nothing.
        for check in checks {
            if !self.report.findings[found_before..].iter().any(|finding| finding.check == check) {
                self.report.add(
                    check,
                    Verdict::Good,
                    page.to_string(),
                    format!(
                        "nothing is wrong with {looked_at} file{}",
                        if looked_at == 1 { "" } else { "s" }
                    ),
                    "",
                );
            }
        }
        let left_out = files.iter().skip(FILES_MAX).filter(|file| self.is_ours(file, page)).count();
        if left_out > 0 {
            let found = format!("its first {FILES_MAX} files are looked at; left out: {left_out}");
            self.report.add("file", Verdict::Skipped, page.to_string(), found, "");
        }
        let links = found.links.into_iter().filter(|link| link.authority == page.authority).collect();
        Some((place, links))
    }

    /// Follows redirects to the page, and sees whether the edge is let in by the site; where it is.
    async fn reach(&mut self, page: &Address) -> Option<(Address, Fetched)> {
        let mut seen = vec![page.clone()];
        let mut at = page.clone();
        loop {
            let fetched = match self.fetch(&at, &[]).await {
                Ok(fetched) => fetched,
                Err(error) => {
                    self.report.add(
                        "reach",
                        Verdict::Bad,
                        at.to_string(),
                        error,
                        "see whether the name leads to the edge, and whether it listens",
                    );
                    return None;
                }
            };
            checks::of_connection(&mut self.report, &at, &fetched);
            let next = fetched.location(&at).filter(|_| (300..400).contains(&fetched.status));
            if let Some(next) = next {
                if seen.contains(&next) || seen.len() > 10 {
                    let found = format!("redirects go round: {} leads to {next} again", at);
                    self.report.add("redirects", Verdict::Bad, page.to_string(), found, "tell the site what its visitors speak: X-Forwarded-Proto and X-Forwarded-Host say it");
                    return None;
                }
                if next.authority != page.authority {
                    self.report.add(
                        "redirects",
                        Verdict::Warning,
                        page.to_string(),
                        format!("it leads to another host: {next}"),
                        "look at that one, or let the site know its name",
                    );
                    return None;
                }
                seen.push(next.clone());
                at = next;
                continue;
            }
            if self.options.through.is_some() {
                let direct = self.fetch_direct(&at, &[]).await;
                checks::of_host(&mut self.report, &at, &fetched, direct.as_ref());
            }
            if fetched.status >= 400 {
                self.report.add(
                    "reach",
                    Verdict::Bad,
                    at.to_string(),
                    format!("the answer is {}", fetched.status),
                    "name a page that is there",
                );
                return None;
            }
            self.report.add(
                "reach",
                Verdict::Good,
                at.to_string(),
                format!("{} after {} redirects", fetched.status, seen.len() - 1),
                "",
            );
            return Some((at, fetched));
        }
    }

    /// Text is sent encoded. Copies are made behind the first requests, so it is asked for several times.
    async fn compression(&mut self, file: &Address, plain: &Fetched) {
        if plain.status != 200 || plain.body.len() < 1024 || !plain.is_text() {
            return;
        }
        for _ in 0..10 {
            let Ok(fetched) = self.fetch(file, &[("Accept-Encoding", "gzip, br, zstd")]).await else {
                return;
            };
            if fetched.fields.contains("content-encoding") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        let found = format!("{} bytes of text are sent as they are", plain.body.len());
        self.report.add(
            "compression",
            Verdict::Warning,
            file.to_string(),
            found,
            "let it be stored: the edge compresses what it keeps",
        );
    }

    /// Films and sound are asked for in parts.
    async fn ranges(&mut self, file: &Address, whole: &Fetched) {
        let is_media = whole.is_of(&["video/", "audio/"]);
        if whole.status != 200 || !is_media {
            return;
        }
        match self.fetch(file, &[("Range", "bytes=0-99")]).await {
            Ok(part) if part.status == 206 && part.body.len() <= 100 => {
                self.report.add("ranges", Verdict::Good, file.to_string(), "a part is sent as a part", "");
            }
            Ok(part) => {
                let found = format!("a part is answered with {} and {} bytes", part.status, part.body.len());
                self.report.add(
                    "ranges",
                    Verdict::Warning,
                    file.to_string(),
                    found,
                    "let it be stored: the edge sends parts of what it keeps",
                );
            }
            Err(error) => self.report.add("ranges", Verdict::Bad, file.to_string(), error, ""),
        }
    }

    /// What comes through the edge is what the site sends, and the edge keeps it.
    async fn through_the_edge(&mut self, file: &Address, first: &Fetched) {
        // What is made for each visitor is no hit, and not the same twice.
        if self.options.through.is_none() || first.status != 200 || !checks::is_static(file) {
            return;
        }
        let Ok(second) = self.fetch(file, &[]).await else { return };
        checks::of_caching(&mut self.report, file, &second);
        let own = Address {
            authority: self.address.authority.clone(),
            secure: self.address.secure,
            ..file.clone()
        };
        if let Ok(direct) = self.fetch_direct(&own, &[]).await
            && direct.status == 200
            && direct.body != second.body
        {
            let found = format!(
                "{} bytes through the edge, and {} others directly",
                second.body.len(),
                direct.body.len()
            );
            // A style sheet that is rewritten is another on purpose.
            let verdict =
                if self.cdn.is_some() && second.is("text/css") { Verdict::Warning } else { Verdict::Bad };
            self.report.add(
                "content",
                verdict,
                file.to_string(),
                found,
                "purge it, if it has just been changed",
            );
        }
    }

    async fn in_browser(&mut self, pages: &[Address]) {
        if self.options.without_browser {
            return self.report.add(
                "browser",
                Verdict::Skipped,
                self.options.url.clone(),
                "left out, as you asked",
                "",
            );
        }
        let named = self.options.chromium.clone();
        let found = named.map_or_else(browser::find, |named| Some(named).filter(|named| named.exists()));
        let Some(program) = found else {
            let found = "Chromium is not installed: nothing is known of what pages look like, their consoles and scripts";
            return self.report.add(
                "browser",
                Verdict::Skipped,
                self.options.url.clone(),
                found,
                "install chromium, or name it with --chromium",
            );
        };
        if let Err(error) = self.compare_in(program, pages).await {
            self.report.add(
                "browser",
                Verdict::Bad,
                self.options.url.clone(),
                error,
                "see whether the browser starts by itself",
            );
        }
    }

    async fn compare_in(&mut self, program: PathBuf, pages: &[Address]) -> Result<(), String> {
        let mut hosts = vec![(self.address.clone(), self.options.direct)];
        let direct = chromium::start(program.clone(), routes(&hosts)).await?;
        let Some(edge) = self.options.through else {
            for page in pages {
                let visit = chromium::visit(&direct, &page.to_string()).await?;
                compare::alone(&mut self.report, page, &visit);
            }
            direct.close().await;
            return Ok(());
        };
        hosts[0].1 = Some(edge);
        if let Some(cdn) = self.cdn.as_deref().and_then(Address::parse) {
            hosts.push((cdn, Some(edge)));
        }
        let through = chromium::start(program, routes(&hosts)).await?;
        for page in pages {
            let url = page.to_string();
            let first = chromium::visit(&direct, &url).await?;
            let second = chromium::visit(&direct, &url).await?;
            chromium::visit(&through, &url).await?;
            let mut seen = chromium::visit(&through, &url).await?;
            // From one load to the next, the edge of a letter may be smoothed differently: what stays different counts.
            let mut looks = vec![first.pixels.clone(), second.pixels.clone()];
            for _ in 0..3 {
                if looks.contains(&seen.pixels) {
                    break;
                }
                looks.push(chromium::visit(&direct, &url).await?.pixels);
                seen.pixels = chromium::visit(&through, &url).await?.pixels;
            }
            let pair = compare::Pair {
                page,
                cdn: self.cdn.as_deref(),
                direct: [&first, &second],
                looks: &looks,
                through: &seen,
            };
            pair.compare(&mut self.report);
        }
        direct.close().await;
        through.close().await;
        Ok(())
    }
}

fn routes(hosts: &[(Address, Option<SocketAddr>)]) -> Vec<(String, SocketAddr)> {
    hosts.iter().filter_map(|(address, to)| Some((address.host_and_port(), (*to)?))).collect()
}

/// What stands in a page: used by the tests of this module's parts.
#[cfg(test)]
fn found_in(page: &str, html: &str) -> page::Found {
    page::scan(&Address::parse(page).expect("a URL"), html.as_bytes())
}
