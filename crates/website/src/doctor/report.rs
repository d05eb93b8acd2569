//! What was found, for people.

use std::fmt::Write;

use super::{Report, Verdict};
use crate::html::escape;

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Verdict::Bad => "bad",
            Verdict::Warning => "warning",
            Verdict::Skipped => "skipped",
            Verdict::Good => "good",
        }
    }
}

/// A line for each finding, the worst first, and a last one that says how it stands.
pub fn as_text(report: &Report, coloured: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let colour = match finding.verdict {
            Verdict::Bad => "31",
            Verdict::Warning => "33",
            Verdict::Skipped => "36",
            Verdict::Good => "32",
        };
        let word = format!("{:<8}", finding.verdict.word());
        let word = if coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
        // Writing into memory cannot fail.
        let _ = writeln!(text, "{word}{:<15}{}", finding.check, visible(&finding.about));
        let _ = writeln!(text, "        {}", visible(&finding.found));
        if !finding.next.is_empty() {
            let _ = writeln!(text, "        next: {}", finding.next);
        }
    }
    text + &format!("{}\n", summary(report))
}

fn summary(report: &Report) -> String {
    let count = |verdict| report.count(verdict);
    format!(
        "{} bad, {} warning{}, {} skipped, {} good: {}",
        count(Verdict::Bad),
        count(Verdict::Warning),
        if count(Verdict::Warning) == 1 { "" } else { "s" },
        count(Verdict::Skipped),
        count(Verdict::Good),
        visible(&report.url)
    )
}

/// Without what could move a terminal's cursor.
fn visible(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// One page that needs nothing beside it.
pub fn as_html(report: &Report) -> String {
    let mut html = String::from(concat!(
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">",
        "<title>Perigee doctor</title><style>",
        "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}",
        "table{border-collapse:collapse;width:100%}td{border-top:1px solid #ccc;padding:.4rem;vertical-align:top;overflow-wrap:anywhere}",
        ".bad{color:#b00}.warning{color:#960}.good{color:#070}.skipped{color:#067}img{max-width:100%;border:1px solid #ccc}",
        "</style>",
    ));
    let _ = write!(html, "<h1>{}</h1><p>{}</p><table>", escape(&report.url), escape(&summary(report)));
    for finding in &report.findings {
        let word = finding.verdict.word();
        let _ = write!(
            html,
            "<tr><td class={word}><b>{word}</b><td>{}<td>{}<td>{}<br><i>{}</i>",
            finding.check,
            escape(&finding.about),
            escape(&finding.found),
            escape(&finding.next)
        );
    }
    html.push_str("</table>");
    for picture in &report.pictures {
        let title = escape(&picture.title);
        let _ = write!(
            html,
            "<h2>{title}</h2><img alt=\"{title}\" src=\"data:image/png;base64,{}\">",
            escape(&picture.png)
        );
    }
    html.push_str("</html>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::super::Picture;
    use super::*;

    #[test]
    fn a_report_reads_as_text_and_as_html() {
        let mut report = Report { url: "https://www.example/".into(), ..Report::default() };
        report.add("cors", Verdict::Bad, "https://www.example/<a>", "no \x1b[2J", "open it");
        report.pictures.push(Picture { title: "x".into(), png: "AAAA".into() });
        let text = as_text(&report, false);
        assert_eq!(
            text,
            "bad     cors           https://www.example/<a>\n        no \u{fffd}[2J\n        next: open it\n1 bad, 0 warnings, 0 skipped, 0 good: https://www.example/\n"
        );
        report.add("cookies", Verdict::Warning, "https://www.example/", "one", "");
        assert!(as_text(&report, false).contains("1 bad, 1 warning, 0 skipped"));
        let html = as_html(&report);
        assert!(
            html.contains("https://www.example/&lt;a&gt;") && html.contains("data:image/png;base64,AAAA")
        );
    }
}
