//! The combined format of web servers: `client - user [time] "GET /path HTTP/1.1" status bytes "referer" "user agent"`, with
//! whatever else behind it. A quote in a quoted part is escaped by a backslash, other bytes as `\xHH`.

use super::{Record, Unreadable, clip, time, unreadable};

pub(super) fn read(line: &[u8]) -> Result<Record, Unreadable> {
    let open = position(line, b'[').ok_or_else(|| unreadable("there is no [time]"))?;
    let close = open + position(&line[open..], b']').ok_or_else(|| unreadable("there is no [time]"))?;
    let stamp = &line[open + 1..close];
    let time = time::combined(stamp).ok_or_else(|| {
        let found = String::from_utf8_lossy(stamp);
        unreadable(format!("the time {:?} is not like 23/Nov/2026:20:44:33 +0000", clip(&found)))
    })?;
    let mut rest = &line[close + 1..];
    let request = quoted(&mut rest).ok_or_else(|| unreadable("there is no \"request line\""))?;
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut words = request.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(unreadable(format!("the request line {:?} has no target", clip(&request))));
    };
    let status = word(&mut rest);
    let status =
        status.parse().map_err(|_| unreadable(format!("the status {:?} is no number", clip(&status))))?;
    let bytes = word(&mut rest);
    let body_bytes = match &*bytes {
        "-" => 0,
        bytes => bytes.parse().map_err(|_| unreadable(format!("the size {:?} is no number", clip(bytes))))?,
    };
    let client = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let mut record = Record {
        time,
        method: method.to_owned(),
        target: path_of(target).to_owned(),
        client: String::from_utf8_lossy(client).into_owned(),
        status,
        body_bytes,
        ..Record::default()
    };
    for name in ["Referer", "User-Agent"] {
        if let Some(value) = quoted(&mut rest) {
            record.add_field(name, &value);
        }
    }
    Ok(record)
}

/// The target of a request to a proxy names the host too; caches that log so mean the path.
fn path_of(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) else {
        return target;
    };
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

/// The next word; empty at the end.
fn word(rest: &mut &[u8]) -> String {
    let trimmed = rest.trim_ascii_start();
    let end = position(trimmed, b' ').unwrap_or(trimmed.len());
    *rest = &trimmed[end..];
    String::from_utf8_lossy(&trimmed[..end]).into_owned()
}

/// The next quoted part, without its escapes; `None` where none follows or it has no end.
fn quoted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let inside = rest.trim_ascii_start().strip_prefix(b"\"")?;
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match inside.get(at)? {
            b'"' => break,
            b'\\' => {
                let hex = inside.get(at + 2..at + 4).filter(|_| inside.get(at + 1) == Some(&b'x'));
                let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
                value.push(byte.or_else(|| inside.get(at + 1).copied())?);
                at += if byte.is_some() { 4 } else { 2 };
            }
            byte => {
                value.push(*byte);
                at += 1;
            }
        }
    }
    *rest = &inside[at + 1..];
    Some(value)
}
