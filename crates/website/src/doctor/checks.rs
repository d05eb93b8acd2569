//! What HTTP alone tells: answers in, findings out.

use std::time::{SystemTime, UNIX_EPOCH};

use model::rewrite::Rewrite;
use semantics::directives::{ResponseDirectives, Scope};

use super::client::Fetched;
use super::page::{Address, File, Found, Use};
use super::{FILES_MAX, Report, Verdict};
use crate::fingerprint::is_versioned;
use crate::rewrite::allows;

/// Days before its end from which a certificate is spoken of: half of what is left when it is usually renewed.
const CERTIFICATE_DAYS: i64 = 14;

/// Seconds for which a file that is named by its content should be kept: browsers and caches take a year for ever.
const YEAR_SECS: u64 = 365 * 24 * 3600;

/// Whether a path ends like that of a static file.
pub(super) fn is_static(at: &Address) -> bool {
    Rewrite::default().moves(at.path().as_bytes())
}

/// TLS, by what it has shown.
pub(super) fn of_connection(report: &mut Report, at: &Address, fetched: &Fetched) {
    let Some(ends) = fetched.certificate_ends else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    let days = (ends - now) / (24 * 3600);
    let verdict = if days < CERTIFICATE_DAYS { Verdict::Warning } else { Verdict::Good };
    let next = if days < CERTIFICATE_DAYS { "renew it; [acme] has it renewed by itself" } else { "" };
    report.add("certificate", verdict, at.origin(), format!("trusted, for {days} more days"), next);
}

/// Whether the site answers the edge as it answers visitors.
pub(super) fn of_host(
    report: &mut Report,
    at: &Address,
    through: &Fetched,
    direct: Result<&Fetched, &String>,
) {
    let direct = match direct {
        Ok(direct) => direct,
        Err(error) => {
            return report.add(
                "host",
                Verdict::Warning,
                at.to_string(),
                format!("directly: {error}"),
                "name where the site is with --direct",
            );
        }
    };
    if through.status == direct.status || through.status == 304 {
        let found = format!("{} through the edge and directly", through.status);
        return report.add("host", Verdict::Good, at.to_string(), found, "");
    }
    let found = format!("{} through the edge, and {} directly", through.status, direct.status);
    let next = match through.status {
        400 | 403 | 421 => {
            "the site refuses the Host that it is asked for: allow it there, or set origin_options = { host = \"…\" }"
        }
        502..=504 => "the edge does not reach the site: see the origin in its configuration",
        _ => "see Cache-Status, and perigee explain",
    };
    report.add("host", Verdict::Bad, at.to_string(), found, next);
}

/// The page itself.
pub(super) fn of_page(report: &mut Report, page: &Address, found: &Found, cdn: Option<&str>) {
    let about = page.to_string();
    if let Some(cdn) = cdn {
        of_asset_host(report, page, found, cdn);
    }
    let mut mixed: Vec<_> = found.files.iter().filter(|file| page.secure && !file.address.secure).collect();
    mixed.dedup();
    for file in &mixed {
        report.add(
            "mixed-content",
            Verdict::Bad,
            file.address.to_string(),
            format!("{page} is https, and this is not"),
            "name it by https",
        );
    }
    if mixed.is_empty() {
        report.add(
            "mixed-content",
            Verdict::Good,
            &*about,
            "every file is fetched as safely as the page",
            "",
        );
    }
    let foreign = |address: &Address| address.origin() != page.origin();
    let mut refused = false;
    for worker in found.workers.iter().filter(|worker| foreign(worker)) {
        refused = true;
        report.add(
            "workers",
            Verdict::Bad,
            worker.to_string(),
            "browsers refuse a worker from another host",
            "let it come from the page's own host",
        );
    }
    for file in found.files.iter().filter(|file| file.use_ == Use::SameOriginOnly && foreign(&file.address)) {
        refused = true;
        report.add(
            "workers",
            Verdict::Bad,
            file.address.to_string(),
            "browsers refuse <use> and <track> from another host",
            "let it come from the page's own host",
        );
    }
    if !refused {
        report.add(
            "workers",
            Verdict::Good,
            &*about,
            "nothing that has to come from the page's own host comes from elsewhere",
            "",
        );
    }
    let mut unchecked = false;
    for file in found
        .files
        .iter()
        .filter(|file| file.has_integrity && !file.has_crossorigin && foreign(&file.address))
    {
        unchecked = true;
        report.add(
            "integrity",
            Verdict::Bad,
            file.address.to_string(),
            "integrity without crossorigin: browsers block it",
            "add crossorigin=anonymous to the element",
        );
    }
    if !unchecked {
        report.add("integrity", Verdict::Good, &*about, "every hash can be checked", "");
    }
}

fn is_movable(file: &&File) -> bool {
    !matches!(file.use_, Use::Manifest | Use::SameOriginOnly) && is_static(&file.address)
}

/// Whether a policy of the page refuses those of its files that come from `cdn`, or are to come from there.
pub(super) fn of_policies(
    report: &mut Report,
    page: &Address,
    fetched: &Fetched,
    found: &Found,
    files: &[File],
    cdn: &str,
) {
    let header = fetched.field("content-security-policy");
    let is_refused = |(directive, path): &(&'static str, &str)| {
        let mut policies = found.policies.iter().chain([&header]);
        policies.any(|policy| !allows(policy, directive, cdn, path))
    };
    let mut refusing: Vec<_> = files
        .iter()
        .take(FILES_MAX)
        .filter(is_movable)
        .filter(|file| file.address.origin() == cdn || file.address.authority == page.authority)
        .map(|file| (directive_of(file.use_), file.address.path()))
        .filter(is_refused)
        .map(|(directive, _)| directive)
        .collect();
    refusing.sort_unstable();
    refusing.dedup();
    match refusing.is_empty() {
        true => report.add("csp", Verdict::Good, page.to_string(), "no policy is in the way", ""),
        false => report.add(
            "csp",
            Verdict::Bad,
            page.to_string(),
            format!("Content-Security-Policy does not allow {cdn}"),
            &format!("add it to {}", refusing.join(", ")),
        ),
    }
}

/// What governs a file in a policy (CSP 3 §6.8.1).
const fn directive_of(use_: Use) -> &'static str {
    match use_ {
        Use::Style => "style-src",
        Use::Script | Use::Module => "script-src",
        Use::Font => "font-src",
        Use::Media => "media-src",
        Use::Manifest => "manifest-src",
        Use::Other | Use::SameOriginOnly => "img-src",
    }
}

/// Whether the page names its files where they are to come from.
fn of_asset_host(report: &mut Report, page: &Address, found: &Found, cdn: &str) {
    let movable = found.files.iter().filter(is_movable);
    let (moved, others): (Vec<_>, Vec<_>) = movable.partition(|file| file.address.origin() == cdn);
    let left: Vec<_> = others.iter().filter(|file| file.address.authority == page.authority).collect();
    match left.first() {
        Some(first) => {
            let found = format!(
                "{} of {} files are named on the page's own host, like {}",
                left.len(),
                left.len() + moved.len(),
                first.address
            );
            report.add(
                "named",
                Verdict::Warning,
                page.to_string(),
                found,
                "perigee integrate says what to paste; rewrite in a rule has the edge do it",
            );
        }
        None => report.add(
            "named",
            Verdict::Good,
            page.to_string(),
            format!("{} files are named on {cdn}", moved.len()),
            "",
        ),
    }
}

/// A file of the page.
pub(super) fn of_file(report: &mut Report, page: &Address, file: &File, fetched: &Fetched) {
    let about = file.address.to_string();
    if fetched.status >= 400 {
        return report.add(
            "file",
            Verdict::Bad,
            about,
            format!("the answer is {}", fetched.status),
            "see whether it is there, and whether the site knows the Host that it is asked for",
        );
    }
    if (300..400).contains(&fetched.status) {
        let found = format!("it leads to {}", fetched.field("location"));
        return report.add(
            "file",
            Verdict::Warning,
            about,
            found,
            "name it by where it is: visitors wait for one after the other",
        );
    }
    if fetched.status != 200 || !is_static(&file.address) {
        return;
    }
    if fetched.fields.contains("set-cookie") {
        report.add(
            "cookies",
            Verdict::Bad,
            &*about,
            "a static file sets a cookie, so it is not shared",
            "keep sessions away from static files, or set_cookie = \"strip\" in their rule",
        );
    }
    let vary = fetched.field("vary").to_ascii_lowercase();
    let ruinous: Vec<_> = vary
        .split(',')
        .map(str::trim)
        .filter(|name| ["cookie", "user-agent", "accept-language", "*"].contains(name))
        .collect();
    if !ruinous.is_empty() {
        let found = format!("Vary: {} makes a copy for nearly each visitor", ruinous.join(", "));
        report.add(
            "vary",
            Verdict::Bad,
            &*about,
            found,
            "leave it out for static files, or normalise it with vary = { … }",
        );
    }
    of_lifetime(report, &about, &file.address, fetched);
    let foreign = file.address.origin() != page.origin();
    let needs_cors =
        matches!(file.use_, Use::Font | Use::Module) || file.has_integrity || file.has_crossorigin;
    let allowed = fetched.field("access-control-allow-origin");
    if foreign && needs_cors && allowed != "*" && allowed != page.origin() {
        report.add(
            "cors",
            Verdict::Bad,
            &*about,
            "fonts, modules and files with integrity need Access-Control-Allow-Origin",
            "cors = \"static\", the default, adds it",
        );
    }
    if foreign && fetched.field("timing-allow-origin").is_empty() {
        report.add(
            "timing",
            Verdict::Warning,
            &*about,
            "without Timing-Allow-Origin browsers hide how long it took",
            "cors = \"static\", the default, adds it",
        );
    }
}

fn of_lifetime(report: &mut Report, about: &str, at: &Address, fetched: &Fetched) {
    let directives = ResponseDirectives::of(&fetched.fields, &[]);
    let lifetime = directives.max_age;
    let versioned = is_versioned(at.path(), at.query());
    if directives.no_store || directives.private != Scope::Absent {
        let found =
            format!("Cache-Control: {} keeps a static file from being kept", fetched.field("cache-control"));
        return report.add(
            "lifetime",
            Verdict::Bad,
            about,
            found,
            "say max-age, or give its rule a ttl and a browser_ttl",
        );
    }
    match lifetime {
        None if !fetched.fields.contains("expires") => {
            report.add(
                "lifetime",
                Verdict::Warning,
                about,
                "nothing says how long it may be kept",
                "say Cache-Control: max-age, or give its rule a ttl and a browser_ttl",
            );
        }
        Some(secs) if versioned && u64::from(secs) < YEAR_SECS => {
            let found = format!("it is named by its content, and kept for {secs} s");
            report.add(
                "lifetime",
                Verdict::Warning,
                about,
                found,
                "Cache-Control: public, max-age=31536000, immutable; or ttl and browser_ttl = \"1y\"",
            );
        }
        Some(secs) if !versioned && u64::from(secs) >= YEAR_SECS => {
            let found = "it may change under its name, and browsers keep it for a year";
            report.add(
                "lifetime",
                Verdict::Warning,
                about,
                found,
                "name it by its content, or give it a shorter browser_ttl",
            );
        }
        _ => {}
    }
}

/// The second answer through the edge.
pub(super) fn of_caching(report: &mut Report, at: &Address, second: &Fetched) {
    let status = second.field("cache-status");
    if status.is_empty() {
        let next = "see whether --through names an edge of Perigee";
        return report.add(
            "cache",
            Verdict::Warning,
            at.to_string(),
            "the answer says nothing of a cache",
            next,
        );
    }
    if !status.contains("; hit") {
        let found = format!("no hit when asked again: {status}");
        report.add(
            "cache",
            Verdict::Bad,
            at.to_string(),
            found,
            "perigee explain says why; a ttl in its rule has it kept",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::found_in;
    use super::*;

    fn answer(status: u16, lines: &[(&str, &str)]) -> Fetched {
        let fields = lines.iter().map(|(name, value)| (*name, *value)).collect();
        Fetched { status, fields, body: Vec::new(), certificate_ends: None }
    }

    fn file(url: &str, use_: Use) -> File {
        File { address: Address::parse(url).unwrap(), use_, has_integrity: false, has_crossorigin: false }
    }

    /// What is not good, as `check verdict`.
    fn said(report: &Report) -> Vec<String> {
        let bad = report.findings.iter().filter(|finding| finding.verdict != Verdict::Good);
        bad.map(|finding| format!("{} {:?}", finding.check, finding.verdict)).collect()
    }

    #[test]
    fn what_keeps_a_file_from_being_cached_well_is_named() {
        let page = Address::parse("https://www.example/").unwrap();
        for (url, use_, status, lines, wanted) in [
            ("https://www.example/a.css", Use::Style, 200, vec![("Cache-Control", "max-age=600")], vec![]),
            ("https://www.example/a.css", Use::Style, 404, vec![], vec!["file Bad"]),
            (
                "https://www.example/a.css",
                Use::Style,
                301,
                vec![("Location", "/b.css")],
                vec!["file Warning"],
            ),
            ("https://www.example/a.css", Use::Style, 200, vec![], vec!["lifetime Warning"]),
            ("https://www.example/page", Use::Other, 200, vec![("Set-Cookie", "a=b")], vec![]),
            (
                "https://www.example/a.css",
                Use::Style,
                200,
                vec![("Set-Cookie", "a=b"), ("Vary", "Cookie"), ("Cache-Control", "no-store")],
                vec!["cookies Bad", "vary Bad", "lifetime Bad"],
            ),
            (
                "https://www.example/a.3f2a9c1b.css",
                Use::Style,
                200,
                vec![("Cache-Control", "max-age=600")],
                vec!["lifetime Warning"],
            ),
            (
                "https://www.example/a.css",
                Use::Style,
                200,
                vec![("Cache-Control", "max-age=31536000")],
                vec!["lifetime Warning"],
            ),
            (
                "https://cdn.example/a.woff2",
                Use::Font,
                200,
                vec![("Cache-Control", "max-age=600")],
                vec!["cors Bad", "timing Warning"],
            ),
            (
                "https://cdn.example/a.woff2",
                Use::Font,
                200,
                vec![
                    ("Cache-Control", "max-age=600"),
                    ("Access-Control-Allow-Origin", "*"),
                    ("Timing-Allow-Origin", "*"),
                ],
                vec![],
            ),
        ] {
            let mut report = Report::default();
            of_file(&mut report, &page, &file(url, use_), &answer(status, &lines));
            assert_eq!(said(&report), wanted, "{url} {lines:?}");
        }
    }

    #[test]
    fn what_browsers_would_refuse_on_a_page_is_named() {
        for (html, wanted) in [
            ("<img src=https://cdn.example/a.png>", vec![]),
            ("<img src=https://cdn.example/a.png><img src=/a.png>", vec!["named Warning"]),
            ("<link rel=manifest href=/a.webmanifest>", vec![]),
            ("<img src=http://www.example/a.png>", vec!["named Warning", "mixed-content Bad"]),
            ("<script>new Worker('https://cdn.example/w.js')</script>", vec!["workers Bad"]),
            ("<script>new Worker('/w.js')</script>", vec![]),
            ("<svg><use href='https://cdn.example/s.svg#a'/></svg>", vec!["workers Bad"]),
            ("<script src=https://cdn.example/a.js integrity=x></script>", vec!["integrity Bad"]),
            ("<script src=https://cdn.example/a.js integrity=x crossorigin></script>", vec![]),
        ] {
            let page = "https://www.example/";
            let mut report = Report::default();
            let at = Address::parse(page).unwrap();
            of_page(&mut report, &at, &found_in(page, html), Some("https://cdn.example"));
            assert_eq!(said(&report), wanted, "{html}");
        }
    }

    #[test]
    fn a_policy_is_in_the_way_only_of_what_the_page_has() {
        const IMAGE: &str = "<img src=https://cdn.example/static/a.png>";
        for (html, policy, next) in [
            (IMAGE, "", ""),
            (IMAGE, "default-src 'self'", "add it to img-src"),
            ("<img src=/a.png>", "default-src 'self'", "add it to img-src"),
            ("<img src=https://other.example/a.png>", "default-src 'self'", ""),
            ("", "default-src 'self'", ""),
            (IMAGE, "default-src 'self'; img-src cdn.example; connect-src 'self'", ""),
            (IMAGE, "default-src https: 'unsafe-inline'", ""),
            (IMAGE, "img-src *.example", ""),
            (IMAGE, "img-src cdn.example:443", ""),
            (IMAGE, "img-src https://cdn.example/static/", ""),
            (IMAGE, "img-src https://cdn.example/static/a.png", ""),
            (IMAGE, "img-src https://cdn.example/media/", "add it to img-src"),
            (IMAGE, "img-src *, img-src 'self'", "add it to img-src"),
            (IMAGE, "img-src 'none'", ""),
            (
                "<meta http-equiv=content-security-policy content=\"img-src 'self'\"><img src=/a.png>",
                "img-src *",
                "add it to img-src",
            ),
            (
                "<script src=/a.js></script><link rel=stylesheet href=/a.css><style>a{b:url(/c.woff2)}</style>",
                "default-src 'self'",
                "add it to font-src, script-src, style-src",
            ),
            ("<script src=/a.js></script>", "script-src 'self'; script-src-elem cdn.example", ""),
            (
                "<video src=/a.mp4 poster=/a.jpg></video>",
                "default-src *; media-src 'self'",
                "add it to media-src",
            ),
            (
                "<link rel=manifest href=/a.webmanifest><svg><use href=/a.svg#b /></svg>",
                "default-src 'self'",
                "",
            ),
        ] {
            let page = "https://www.example/";
            let (mut report, found) = (Report::default(), found_in(page, html));
            let answer = answer(200, &[("Content-Security-Policy", policy)]);
            let at = Address::parse(page).unwrap();
            of_policies(&mut report, &at, &answer, &found, &found.files, "https://cdn.example");
            assert_eq!(report.findings[0].next, next, "{html} {policy}");
        }
    }

    #[test]
    fn a_host_that_the_site_refuses_and_what_is_not_kept_are_named() {
        let at = Address::parse("https://www.example/a.css").unwrap();
        let mut report = Report::default();
        of_host(&mut report, &at, &answer(400, &[]), Ok(&answer(200, &[])));
        of_host(&mut report, &at, &answer(200, &[]), Ok(&answer(200, &[])));
        of_caching(&mut report, &at, &answer(200, &[("Cache-Status", "perigee; hit; ttl=5; detail=fresh")]));
        of_caching(&mut report, &at, &answer(200, &[("Cache-Status", "perigee; fwd=uri-miss")]));
        assert_eq!(said(&report), ["host Bad", "cache Bad"]);
        assert!(report.findings[0].next.contains("origin_options"));
        assert!(!report.is_good());
        assert_eq!(report.count(Verdict::Good), 1);
    }
}
