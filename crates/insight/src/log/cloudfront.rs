//! CloudFront's standard log: columns between tabs, named by a `#Fields:` line. Values are percent-encoded, some of them
//! twice; absent ones are `-`. Its host is that of the visitor (`x-host-header`) where it is there.

use semantics::Outcome;

use super::{Fetch, Record, Unreadable, clip, time, unreadable};

/// The columns since December 2019, for a log without its first lines.
const COLUMNS: &str = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) \
    cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken \
    x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields \
    c-port time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end";

/// Most columns that a log may name; there are 33 today.
const COLUMNS_MAX: usize = 100;

/// Which column is what.
#[derive(Clone, Debug)]
pub(super) struct Columns(Vec<String>);

impl Default for Columns {
    fn default() -> Self {
        Columns(COLUMNS.split_whitespace().map(str::to_owned).collect())
    }
}

impl Columns {
    /// Takes note of a line that begins with `#`.
    pub(super) fn learn(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let Some(names) = line.strip_prefix("#Fields:") else { return };
        self.0 = names.split_whitespace().take(COLUMNS_MAX).map(str::to_owned).collect();
    }

    pub(super) fn read(&self, line: &[u8]) -> Result<Record, Unreadable> {
        let line = String::from_utf8_lossy(line);
        let values: Vec<&str> = line.split('\t').collect();
        let get = |name: &str| {
            let column = self.0.iter().position(|known| known == name)?;
            values.get(column).copied().filter(|value| !value.is_empty() && *value != "-")
        };
        let need =
            |name: &'static str| get(name).ok_or_else(|| unreadable(format!("the column {name} is missing")));
        let (date, clock) = (need("date")?, need("time")?);
        let time = time::date_and_time(date, clock).ok_or_else(|| {
            unreadable(format!("{:?} is no date and time", clip(&format!("{date} {clock}"))))
        })?;
        let mut target = need("cs-uri-stem")?.to_owned();
        if let Some(query) = get("cs-uri-query") {
            target.push('?');
            target.push_str(query);
        }
        let status = need("sc-status")?;
        let number = |name| get(name).and_then(|text| text.parse::<u64>().ok());
        let mut record = Record {
            time,
            method: need("cs-method")?.to_owned(),
            target,
            secure: get("cs-protocol")
                .map(|protocol| protocol.starts_with("https") || protocol.starts_with("wss")),
            client: get("c-ip").unwrap_or_default().to_owned(),
            // 000 is a visitor who went away.
            status: status
                .parse()
                .map_err(|_| unreadable(format!("the status {:?} is no number", clip(status))))?,
            body_bytes: number("sc-content-len").or(number("sc-bytes")).unwrap_or(0),
            first_byte_us: get("time-to-first-byte")
                .and_then(|secs| secs.parse::<f64>().ok())
                .map(|secs| (secs.clamp(0.0, 1e6) * 1e6) as u64),
            content_type: get("sc-content-type").map(|kind| decode(kind, 1)),
            ..Record::default()
        };
        record.set_host(get("x-host-header").or(get("cs(Host)")).unwrap_or_default());
        for (column, name) in [("cs(Referer)", "Referer"), ("cs(User-Agent)", "User-Agent")] {
            if let Some(value) = get(column) {
                // Blanks come as %2520.
                record.add_field(name, decode(value, 2).as_bytes());
            }
        }
        let result = get("x-edge-result-type").unwrap_or_default();
        (record.outcome, record.why) = match result {
            "Hit" => (Some(Outcome::Hit), Some("fresh")),
            "RefreshHit" => (Some(Outcome::Miss), Some("revalidated")),
            "Miss" | "OriginShieldHit" => (Some(Outcome::Miss), None),
            "Redirect" => (Some(Outcome::Local), Some("redirect")),
            "LimitExceeded" | "CapacityExceeded" => (Some(Outcome::Error), Some("limit")),
            "Error" => (Some(Outcome::Error), None),
            _ => (None, None),
        };
        if record.outcome == Some(Outcome::Miss) {
            let status = if result == "RefreshHit" { 304 } else { record.status };
            record.fetch = Some(Fetch { status, us: record.first_byte_us.unwrap_or(0), answer: None });
        }
        Ok(record)
    }
}

/// Percent-decodes so many times. What is no encoding stays.
fn decode(text: &str, times: u32) -> String {
    let mut text = text.to_owned();
    for _ in 0..times {
        let bytes = text.as_bytes();
        let mut decoded = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
            let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
            decoded.push(byte.unwrap_or(bytes[at]));
            at += if byte.is_some() { 3 } else { 1 };
        }
        text = String::from_utf8_lossy(&decoded).into_owned();
    }
    text
}
