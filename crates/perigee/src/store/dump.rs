//! `perigee store dump`: one line for each record.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use clap::Args;
use edge::inspect::{self, Item};
use serde_json::json;

use super::{Finding, Place, json_line, open};
use crate::failure::Failure;
use crate::visible;

const EXAMPLES: &str = "\
Examples:
  perigee store dump | head
  perigee store dump --grep /media/ | cut -f3,7 | sort -n    body bytes and URL, the largest last
  perigee store dump --json | jq -r 'select(.status == 404) | .url'

Columns, with tabs between them: form, status, bytes of the body, purge position, when it is of no more use, place on
the disk (segment:offset), URL. A dash stands where there is nothing to say. Bodies over 1 MiB lie in slices, which are
records of their own and know no URL. The whole disk is read and verified on the way.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Dump {
    #[command(flatten)]
    pub(super) place: Place,
    /// Only records whose URL has this in it
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Print JSON, one line for each record
    #[arg(long)]
    json: bool,
}

impl Dump {
    pub(super) fn run(&self, directory: &Path) -> Result<Finding, Failure> {
        let disk = open(directory)?;
        let mut out = BufWriter::new(io::stdout().lock());
        let mut written = Ok(());
        let looked = inspect::for_each(&disk, |item| {
            if self.grep.as_ref().is_none_or(|text| item.url.contains(text)) {
                let line = if self.json { as_json(&item) } else { as_text(&item) };
                written = out.write_all(line.as_bytes());
            }
            written.is_ok()
        });
        match written.and_then(|()| out.flush()) {
            // A reader that has seen enough (`| head`).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Finding::Unwanted),
            Err(error) => {
                return Err(Failure::new(format!("standard output cannot be written: {error}"), ""));
            }
            Ok(()) => {}
        }
        looked.map_err(|error| {
            Failure::new(
                format!("{}: cannot be read to the end: {error}", directory.display()),
                "the disk gives errors: look at the kernel's messages, and at smartctl",
            )
        })?;
        Ok(Finding::Sound)
    }
}

fn as_text(item: &Item) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}:{}\t{}\n",
        item.form,
        or_dash(item.status.map(|status| status.to_string())),
        or_dash((item.form != "damaged").then(|| item.body_bytes.to_string())),
        or_dash(item.position.map(|position| position.to_string())),
        date(item.expiry),
        item.place.0,
        item.place.1,
        or_dash((!item.url.is_empty()).then(|| visible(&item.url))),
    )
}

fn as_json(item: &Item) -> String {
    json_line(&json!({
        "form": item.form,
        "url": (!item.url.is_empty()).then_some(&item.url),
        "status": item.status,
        "body_bytes": (item.form != "damaged").then_some(item.body_bytes),
        "record_bytes": item.record_bytes,
        "position": item.position,
        "useful_until": date(item.expiry),
        "segment": item.place.0,
        "offset": item.place.1,
        "key": format!("{:032x}", item.key),
    }))
}

/// Minutes since 1970 in UTC (RFC 3339).
fn date(minutes: u32) -> String {
    let (year, month, day) = semantics::date::civil_of(i64::from(minutes / 1440));
    let minute = minutes % 1440;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}Z", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        Item {
            key: 15,
            form: "response",
            url: "http://a/\u{1b}[2J\tb".into(),
            status: Some(200),
            body_bytes: 70_000,
            record_bytes: 71_008,
            position: Some(3),
            expiry: 29_453_760,
            place: (2, 4096),
        }
    }

    #[test]
    fn a_record_is_one_line_that_no_url_can_break() {
        let wanted = "response\t200\t70000\t3\t2026-01-01T00:00Z\t2:4096\thttp://a/\u{fffd}[2J\u{fffd}b\n";
        assert_eq!(as_text(&item()), wanted);
        let slice = Item { form: "slice", url: String::new(), status: None, position: None, ..item() };
        assert_eq!(as_text(&slice), "slice\t-\t70000\t-\t2026-01-01T00:00Z\t2:4096\t-\n");
        let json: serde_json::Value = serde_json::from_str(&as_json(&item())).unwrap();
        assert_eq!((&json["url"], &json["offset"]), (&json!("http://a/\u{1b}[2J\tb"), &json!(4096)));
        assert_eq!(json["useful_until"], "2026-01-01T00:00Z");
    }

    #[test]
    fn minutes_are_said_as_dates() {
        let check = |minutes: u32, wanted: &str| assert_eq!(date(minutes), wanted);
        check(0, "1970-01-01T00:00Z");
        check(30_000_000, "2027-01-15T08:00Z");
        check(1440 * (365 * 2 + 59) - 1, "1972-02-28T23:59Z");
        check(1440 * (365 * 2 + 59), "1972-02-29T00:00Z");
        check(u32::MAX, "10136-02-16T04:15Z");
    }
}
