//! Two visits of one page, directly and through the edge: what a visitor would notice.

use model::rewrite::Rewrite;

use super::chromium::{Request, Visit};
use super::page::Address;
use super::{Picture, Report, Verdict};

/// Differences that are shown of one page.
const SHOWN: usize = 5;

/// What browsers fetch as static files.
const STATIC: &[&str] = &["Stylesheet", "Script", "Image", "Font", "Media"];

/// A page that was looked at alone.
pub(super) fn alone(report: &mut Report, page: &Address, visit: &Visit) {
    let about = page.to_string();
    for request in visit.requests.iter().filter(|request| request.failed.is_some() || request.status >= 400) {
        failed(report, page, request);
    }
    let errors: Vec<_> = visit.console.iter().filter(|line| line.starts_with("error:")).collect();
    for error in errors.iter().take(SHOWN) {
        report.add("console", Verdict::Warning, &*about, error.as_str(), "");
    }
    if errors.is_empty() {
        report.add("console", Verdict::Good, &*about, "no errors", "");
    }
}

fn failed(report: &mut Report, page: &Address, request: &Request) {
    let found = match &request.failed {
        Some(reason) => format!("{page} does not get it: {reason}"),
        None => format!("{page} is answered {} for it", request.status),
    };
    let next = match &request.failed {
        Some(reason) if reason.contains("csp") => "let Content-Security-Policy allow its host",
        Some(reason) if reason.contains("Origin") || reason.contains("ORB") => {
            "let it be read by other hosts: cors = \"static\", the default"
        }
        _ => "",
    };
    report.add("network", Verdict::Bad, &*request.url, found, next);
}

/// Visits of one page.
pub(super) struct Pair<'a> {
    pub(super) page: &'a Address,
    pub(super) cdn: Option<&'a str>,
    /// Twice directly: what differs between these says nothing.
    pub(super) direct: [&'a Visit; 2],
    /// What the page has looked like directly.
    pub(super) looks: &'a [String],
    pub(super) through: &'a Visit,
}

impl Pair<'_> {
    pub(super) fn compare(&self, report: &mut Report) {
        let about = self.page.to_string();
        if !self.through.at_rest {
            report.add(
                "browser",
                Verdict::Warning,
                &*about,
                "the page does not come to rest: it goes on fetching",
                "",
            );
        }
        self.compare_elements(report, &about);
        if self.looks.contains(&self.through.pixels) {
            report.add("pixels", Verdict::Good, &*about, "looks the same pixel by pixel", "");
        } else if self.direct[0].pixels != self.direct[1].pixels {
            let found = "does not look the same twice directly either, so nothing is known";
            report.add("pixels", Verdict::Skipped, &*about, found, "");
        } else {
            report.add(
                "pixels",
                Verdict::Bad,
                &*about,
                "does not look the same",
                "see the pictures in the report (--html)",
            );
            for (title, visit) in [("directly", self.direct[0]), ("through the edge", self.through)] {
                report
                    .pictures
                    .push(Picture { title: format!("{about} {title}"), png: visit.pixels.clone() });
            }
        }
        self.compare_console(report, &about);
        self.compare_network(report, &about);
        self.compare_hosts(report, &about);
    }

    /// Without what tells the hosts apart.
    fn neutral(&self, text: &str) -> String {
        let mut text = text.replace(&self.page.origin(), "");
        if let Some(cdn) = self.cdn {
            text = text.replace(cdn, "").replace(&cdn.replace('/', "\\/"), "");
        }
        text.replace(&self.page.origin().replace('/', "\\/"), "")
    }

    fn elements(&self, visit: &Visit) -> Vec<String> {
        let is_ours = |line: &&String| {
            self.cdn.is_some_and(|cdn| {
                line.starts_with("link|") && line.contains("rel=preconnect") && line.contains(cdn)
            })
        };
        visit.elements.iter().filter(|line| !is_ours(line)).map(|line| self.neutral(line)).collect()
    }

    fn compare_elements(&self, report: &mut Report, about: &str) {
        let [first, second] = self.direct.map(|visit| self.elements(visit));
        let through = self.elements(self.through);
        if first.len() != second.len() {
            let found = "has not the same elements twice directly either, so nothing is known";
            return report.add("dom", Verdict::Skipped, about, found, "");
        }
        if first.len() != through.len() {
            let found = format!("{} elements through the edge, {} directly", through.len(), first.len());
            return report.add("dom", Verdict::Bad, about, found, "compare the two pages' sources");
        }
        let stable = first.iter().zip(&second).map(|(first, second)| first == second);
        let differing: Vec<_> = first
            .iter()
            .zip(&through)
            .zip(stable)
            .filter(|((direct, through), stable)| *stable && direct != through)
            .map(|(lines, _)| lines)
            .collect();
        for (direct, through) in differing.iter().take(SHOWN) {
            let found = format!("directly {} — through the edge {}", short(direct), short(through));
            report.add("dom", Verdict::Bad, about, found, "compare the two pages' sources");
        }
        if differing.is_empty() {
            report.add("dom", Verdict::Good, about, format!("the same {} elements", through.len()), "");
        }
    }

    fn compare_console(&self, report: &mut Report, about: &str) {
        let lines =
            |visit: &Visit| -> Vec<String> { visit.console.iter().map(|line| self.neutral(line)).collect() };
        let [first, second] = self.direct.map(lines);
        let through = lines(self.through);
        let more: Vec<_> =
            through.iter().filter(|line| !first.contains(line) && !second.contains(line)).collect();
        let less: Vec<_> =
            first.iter().filter(|line| second.contains(line) && !through.contains(line)).collect();
        for (said, where_) in more
            .iter()
            .map(|line| (line, "through the edge alone"))
            .chain(less.iter().map(|line| (line, "directly alone")))
            .take(SHOWN)
        {
            report.add("console", Verdict::Bad, about, format!("{where_}: {}", short(said)), "");
        }
        if more.is_empty() && less.is_empty() {
            report.add(
                "console",
                Verdict::Good,
                about,
                format!("says the same, {} lines", through.len()),
                "",
            );
        }
    }

    fn compare_network(&self, report: &mut Report, about: &str) {
        let key = |request: &Request| (self.neutral(&request.url), request.status, request.failed.is_some());
        let direct: Vec<_> = self.direct.iter().flat_map(|visit| visit.requests.iter().map(key)).collect();
        let through: Vec<_> = self.through.requests.iter().map(key).collect();
        let mut same = true;
        for request in &self.through.requests {
            let is_known = direct.contains(&key(request));
            if !is_known && (request.failed.is_some() || request.status >= 400) {
                failed(report, self.page, request);
                same = false;
            }
        }
        let is_in_both =
            |request: &&Request| self.direct[1].requests.iter().any(|other| other.url == request.url);
        for request in self.direct[0].requests.iter().filter(is_in_both) {
            let (url, ..) = key(request);
            if !through.iter().any(|(other, ..)| *other == url) {
                same = false;
                report.add(
                    "network",
                    Verdict::Bad,
                    &*request.url,
                    format!("{about} fetches it directly alone"),
                    "",
                );
            }
        }
        if same {
            report.add(
                "network",
                Verdict::Good,
                about,
                format!("fetches the same, {} requests", through.len()),
                "",
            );
        }
    }

    /// With a host for static files: what comes from there, and what should.
    fn compare_hosts(&self, report: &mut Report, about: &str) {
        let Some(cdn) = self.cdn else { return };
        let moves = Rewrite::default();
        let (mut moved, mut stayed) = (0, 0);
        for request in &self.through.requests {
            let Some(address) = Address::parse(&request.url) else { continue };
            let is_static = STATIC.contains(&&*request.kind) && moves.moves(address.path().as_bytes());
            match (address.origin() == cdn, is_static) {
                (true, true) => moved += 1,
                (false, true) if address.authority == self.page.authority => {
                    stayed += 1;
                    report.add(
                        "asset-host",
                        Verdict::Warning,
                        &*request.url,
                        format!("{about} fetches it from its own host"),
                        "a script may have put its URL together: see rewrite = { inline_scripts = […] }",
                    );
                }
                (true, false)
                    if matches!(
                        &*request.kind,
                        "Document" | "XHR" | "Fetch" | "EventSource" | "WebSocket"
                    ) =>
                {
                    report.add(
                        "asset-host",
                        Verdict::Bad,
                        &*request.url,
                        format!("{about} fetches what is no file from {cdn}"),
                        "",
                    );
                }
                _ => {}
            }
        }
        if moved > 0 || stayed == 0 {
            report.add("asset-host", Verdict::Good, about, format!("{moved} files come from {cdn}"), "");
        }
    }
}

fn short(text: &str) -> String {
    const CHARS: usize = 200;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(elements: &[&str], console: &[&str], requests: &[(&str, &str, u64)]) -> Visit {
        Visit {
            elements: elements.iter().map(|line| (*line).to_owned()).collect(),
            pixels: "png".into(),
            console: console.iter().map(|line| (*line).to_owned()).collect(),
            requests: requests
                .iter()
                .map(|(url, kind, status)| Request {
                    url: (*url).into(),
                    kind: (*kind).into(),
                    status: *status,
                    failed: None,
                })
                .collect(),
            at_rest: true,
        }
    }

    fn said(direct: [&Visit; 2], through: &Visit) -> Vec<String> {
        let page = Address::parse("https://www.example/").unwrap();
        let mut report = Report::default();
        let looks = [direct[0].pixels.clone()];
        Pair { page: &page, cdn: Some("https://cdn.example"), direct, looks: &looks, through }
            .compare(&mut report);
        let bad = report.findings.iter().filter(|finding| finding.verdict != Verdict::Good);
        bad.map(|finding| format!("{} {:?}", finding.check, finding.verdict)).collect()
    }

    #[test]
    fn hosts_and_what_changes_by_itself_make_no_difference_and_all_else_does() {
        let direct = visit(
            &["img|src=https://www.example/a.png", "input|value=1"],
            &["info: ready https://www.example/"],
            &[("https://www.example/a.png", "Image", 200)],
        );
        let again =
            Visit { elements: vec![direct.elements[0].clone(), "input|value=2".into()], ..direct.clone() };
        let through = visit(
            &[
                "link|href=https://cdn.example/|rel=preconnect",
                "img|src=https://cdn.example/a.png",
                "input|value=3",
            ],
            &["info: ready https://www.example/"],
            &[("https://cdn.example/a.png", "Image", 200)],
        );
        assert_eq!(said([&direct, &again], &through), Vec::<String>::new());
        let broken = visit(
            &["img|src=https://cdn.example/b.png", "input|value=3"],
            &["error: x"],
            &[
                ("https://cdn.example/a.png", "Image", 404),
                ("https://cdn.example/api", "XHR", 200),
                ("https://www.example/c.js", "Script", 200),
            ],
        );
        let broken = Visit { pixels: "other".into(), ..broken };
        let wanted = [
            "dom Bad",
            "pixels Bad",
            "console Bad",
            "console Bad",
            "network Bad",
            "asset-host Bad",
            "asset-host Warning",
        ];
        assert_eq!(said([&direct, &again], &broken), wanted);
    }
}
