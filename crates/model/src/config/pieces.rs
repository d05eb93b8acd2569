//! Small values that stand in many places: header names and values, cookie names, methods, statuses.

use super::check::{Findings, Item, Name, Section, Span, Value};
use crate::diagnostic::did_you_mean;
use crate::glob::Glob;
use crate::origin::StatusRange;
use crate::rule::{HeaderOp, HeaderOps, ValueTest};

/// Changes to headers; a bad name or value is a finding and left out.
pub(super) fn header_ops(findings: &mut Findings<'_>, section: &Section) -> HeaderOps {
    let mut ops = Vec::new();
    for (name, span) in section.list("remove").iter().filter_map(Item::text) {
        let name = Name { span: span.clone(), text: name.to_owned() };
        if check_header_name(findings, &name, true).is_some() {
            ops.push(HeaderOp::Remove(name.text.into()));
        }
    }
    for (name, item) in section.map("set") {
        if check_header_name(findings, name, true).is_none() {
            continue;
        }
        let header: Box<str> = name.text.as_str().into();
        if let Some(value) = item.text().and_then(|(value, span)| check_header_value(findings, value, span)) {
            ops.push(HeaderOp::Set(header, value));
        }
    }
    for (name, item) in section.map("add") {
        if check_header_name(findings, name, true).is_none() {
            continue;
        }
        let header: Box<str> = name.text.as_str().into();
        for (value, span) in item.list().iter().filter_map(Item::text) {
            ops.extend(
                check_header_value(findings, value, span).map(|value| HeaderOp::Add(header.clone(), value)),
            );
        }
    }
    section.finish();
    HeaderOps { ops }
}

/// Fields that frame messages or guard against loops: changing them breaks more than the request.
const GUARDED: [&str; 12] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "host",
    "via",
    "cdn-loop",
    "age",
];

/// A header name in lower case.
pub(super) fn check_header_name(
    findings: &mut Findings<'_>,
    name: &Name,
    for_change: bool,
) -> Option<Box<str>> {
    if name.text.is_empty() || name.text.len() > 128 || !name.text.bytes().all(semantics::fields::is_tchar) {
        let help = match name.text.trim_end().strip_suffix(':') {
            Some(bare) => format!("leave out the colon: {bare:?}"),
            None => "a header name has letters, digits and \"-\", as in \"X-Device\"".to_owned(),
        };
        findings.error(&name.span, format!("{:?} is not a header name", name.text), help);
        return None;
    }
    let lower = name.text.to_ascii_lowercase();
    if for_change && GUARDED.contains(&lower.as_str()) {
        let help = match lower.as_str() {
            "host" => "for the Host that origins are asked for write origin_options = { host = \"…\" }",
            _ => "it belongs to the connection, not to the content",
        };
        findings.error(&name.span, format!("{} cannot be changed by a rule", name.text), help);
        return None;
    }
    Some(lower.into())
}

pub(super) fn check_header_value(findings: &mut Findings<'_>, value: &str, span: &Span) -> Option<Box<str>> {
    if value.len() > 4096 || value.bytes().any(semantics::fields::is_control) {
        let message =
            "the header value has a line break or another control character, or is over 4096 bytes long";
        findings.error(span, message, "write it in one line");
        return None;
    }
    Some(value.trim_matches([' ', '\t']).into())
}

pub(super) fn header_name_of(findings: &mut Findings<'_>, item: &Item) -> Option<String> {
    let (text, span) = item.text()?;
    let name = Name { span: span.clone(), text: text.to_owned() };
    check_header_name(findings, &name, false).map(|_| text.to_owned())
}

pub(super) fn header_name_or_star(findings: &mut Findings<'_>, item: &Item) -> Option<Box<str>> {
    match item.text() {
        Some(("*", _)) => Some("*".into()),
        _ => header_name_of(findings, item).map(Into::into),
    }
}

pub(super) fn check_cookie_name(findings: &mut Findings<'_>, name: &str, span: &Span) -> bool {
    let good = !name.is_empty() && name.len() <= 128 && name.bytes().all(semantics::fields::is_tchar);
    if !good {
        findings.error(
            span,
            format!("{name:?} is not a cookie name"),
            "write the name before \"=\", as in \"session\"",
        );
    }
    good
}

pub(super) fn check_method(findings: &mut Findings<'_>, method: &str, span: &Span) -> Option<Box<str>> {
    const KNOWN: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    if method.is_empty() || !method.bytes().all(semantics::fields::is_tchar) {
        findings.error(
            span,
            format!("{method:?} is not a method"),
            format!("write e.g. {}", KNOWN.join(", ")),
        );
        return None;
    }
    let upper = method.to_ascii_uppercase();
    if method != upper && KNOWN.contains(&upper.as_str()) {
        findings.error(
            span,
            format!("the method {method:?} is not the method {upper:?}: case counts"),
            format!("write {upper:?}"),
        );
        return None;
    }
    if let Some(close) = did_you_mean(method, KNOWN).filter(|close| *close != method) {
        findings.warn(span, format!("the method {method:?} is unusual"), format!("did you mean {close:?}?"));
    }
    Some(method.into())
}

/// Statuses as numbers, classes and ranges: `404`, `"404"`, `"5xx"`, `"500-503"`.
pub(super) fn statuses(findings: &mut Findings<'_>, key: &str, items: &[Item]) -> Vec<StatusRange> {
    items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Number(number) => u16::try_from(*number).ok().map(|status| status..=status),
            Value::Text(text) => status_of_text(findings, key, text, &item.span),
            _ => None,
        })
        .collect()
}

pub(super) fn status_of_text(
    findings: &mut Findings<'_>,
    key: &str,
    text: &str,
    span: &Span,
) -> Option<StatusRange> {
    let one = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = match text.as_bytes() {
        [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
            let first = u16::from(class - b'0') * 100;
            Some(first..=first + 99)
        }
        _ => match text.split_once('-') {
            Some((first, last)) => one(first.trim()).zip(one(last.trim())).map(|(first, last)| first..=last),
            None => one(text).map(|status| status..=status),
        },
    };
    let range = range.filter(|range| !range.is_empty());
    if range.is_none() {
        let message =
            format!("{key}: {text:?} is not a status, a class or a range of statuses from 100 to 599");
        findings.error(span, message, "write e.g. 404, \"5xx\" or \"500-503\"");
    }
    range
}

pub(super) fn value_test(item: &Item) -> ValueTest {
    match &item.value {
        Value::Bool(true) => ValueTest::Present,
        Value::Bool(false) => ValueTest::Absent,
        Value::Text(pattern) => ValueTest::Matches(Glob::new(pattern)),
        _ => ValueTest::Present,
    }
}
