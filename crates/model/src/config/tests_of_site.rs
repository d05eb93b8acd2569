//! `[[site.test]]` → [`SiteTest`].

use semantics::Fields;

use super::check::{Findings, Item, Section, Value};
use super::pieces::{check_header_name, check_method, value_test};
use crate::Ttl;
use crate::diagnostic::{Severity, did_you_mean};
use crate::glob::Glob;
use crate::origin::Scheme;
use crate::rule::Rule;
use crate::site_test::{Expectation, SiteTest, Wanted};

/// The tests of a site.
pub(super) fn build(
    findings: &mut Findings<'_>,
    site: &Section,
    rules: &[Rule],
    domains: &[Box<str>],
) -> Vec<SiteTest> {
    let sections: Vec<&Section> = site.list("test").iter().filter_map(Item::table).collect();
    sections.into_iter().filter_map(|section| build_test(findings, section, rules, domains)).collect()
}

fn build_test(
    findings: &mut Findings<'_>,
    section: &Section,
    rules: &[Rule],
    domains: &[Box<str>],
) -> Option<SiteTest> {
    let (target, target_span) = section.text("get")?;
    if !target.starts_with('/') || target.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'#') {
        let help = match target.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
            Some((host, path)) => format!("write get = {:?}, host = {host:?}", format!("/{path}")),
            None => "write e.g. get = \"/static/a.css?v=1\"".to_owned(),
        };
        findings.error(target_span, format!("get: {target:?} is no path"), help);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.into())),
        None => (target, None),
    };
    let test = SiteTest {
        method: section
            .text("method")
            .and_then(|(method, span)| check_method(findings, method, span))
            .unwrap_or_else(|| "GET".into()),
        scheme: match section.text("scheme") {
            Some(("http", _)) => Scheme::Http,
            _ => Scheme::Https,
        },
        host: build_host(findings, section, domains),
        path: path.into(),
        query,
        fields: build_fields(findings, section, "headers"),
        status: section.number("status").map_or(200, |status| status as u16),
        response: build_fields(findings, section, "response_headers"),
        expectations: section
            .table("expect")
            .map(|expect| build_expectations(findings, expect, rules))
            .unwrap_or_default(),
        line: findings.line(&section.span),
    };
    section.finish();
    Some(test)
}

fn build_host(findings: &mut Findings<'_>, section: &Section, domains: &[Box<str>]) -> Box<str> {
    let Some((host, span)) = section.text("host") else {
        return match domains.first().map(|domain| &**domain) {
            None | Some("*") => "any.example".into(),
            Some(domain) => domain.replacen('*', "any", 1).into(),
        };
    };
    let host = host.to_ascii_lowercase();
    if !domains.is_empty() && !domains.iter().any(|domain| Glob::new(domain).matches(host.as_bytes())) {
        let help = match did_you_mean(&host, domains.iter().map(|domain| &**domain)) {
            Some(close) => format!("did you mean {close:?}?"),
            None => format!("the site has {}", domains.join(", ")),
        };
        findings.error(span, format!("the host {host:?} is none of the site's domains"), help);
    }
    host.into()
}

fn build_fields(findings: &mut Findings<'_>, section: &Section, key: &'static str) -> Fields {
    let mut fields = Fields::new();
    for (name, item) in section.map(key) {
        if check_header_name(findings, name, false).is_none() {
            continue;
        }
        let Some((value, span)) = item.text() else { continue };
        if fields.append(&name.text, value).is_err() {
            findings.error(span, format!("{value:?} is not a header value"), "write it in one line");
        }
    }
    fields
}

fn build_expectations(findings: &mut Findings<'_>, section: &Section, rules: &[Rule]) -> Vec<Expectation> {
    let mut expectations = Vec::new();
    let mut expect = |findings: &Findings<'_>, item: &Item, wanted: Wanted| {
        let place = findings.at(Severity::Error, &item.span, "", "");
        expectations.push(Expectation { wanted, place });
    };
    let ttl_of = |item: &Item| Ttl::from_secs(item.time().map_or(0, |time| time.as_secs()));
    if let Some(item) = section.item("rule") {
        match &item.value {
            Value::Text(name) => {
                check_rule_name(findings, name, item, rules);
                expect(findings, item, Wanted::RuleName(name.as_str().into()));
            }
            Value::Number(number) => {
                let number = u32::try_from(*number).unwrap_or(0);
                if number as usize > rules.len() {
                    let message = format!("expect: there is no rule {number}; the site has {}", rules.len());
                    findings.error(&item.span, message, "rules count from 1; 0 is the site's own keys");
                }
                expect(findings, item, Wanted::RuleNumber(number));
            }
            _ => {}
        }
    }
    for (key, wanted) in [("cache", Wanted::Cache as fn(bool) -> Wanted), ("stored", Wanted::Stored)] {
        if let (Some(flag), Some(item)) = (section.bool(key), section.item(key)) {
            expect(findings, item, wanted(flag));
        }
    }
    if let Some(item) = section.item("ttl") {
        expect(findings, item, Wanted::Ttl(ttl_of(item)));
    }
    if let Some(item) = section.item("browser_ttl") {
        expect(findings, item, Wanted::BrowserTtl(ttl_of(item)));
    }
    for (key, wanted) in
        [("redirect", Wanted::Redirect as fn(Box<str>) -> Wanted), ("origin", Wanted::Origin)]
    {
        if let (Some((text, _)), Some(item)) = (section.text(key), section.item(key)) {
            expect(findings, item, wanted(text.into()));
        }
    }
    for (name, item) in section.map("request_headers") {
        expect(
            findings,
            item,
            Wanted::RequestHeader(name.text.to_ascii_lowercase().into(), value_test(item)),
        );
    }
    for (name, item) in section.map("response_headers") {
        expect(
            findings,
            item,
            Wanted::ResponseHeader(name.text.to_ascii_lowercase().into(), value_test(item)),
        );
    }
    if section.present().next().is_none() {
        findings.warn(&section.span, "the test expects nothing", "write e.g. expect = { rule = 1 }");
    }
    section.finish();
    expectations
}

fn check_rule_name(findings: &mut Findings<'_>, name: &str, item: &Item, rules: &[Rule]) {
    let titles: Vec<&str> = rules.iter().filter_map(|rule| rule.title.as_deref()).collect();
    if titles.contains(&name) {
        return;
    }
    let help = match did_you_mean(name, titles.iter().copied()) {
        Some(close) => format!("did you mean {close:?}?"),
        None if titles.is_empty() => {
            "no rule of the site has a name; give it one with name = \"…\"".to_owned()
        }
        None => format!("the site's rules have the names {}", titles.join(", ")),
    };
    findings.error(&item.span, format!("expect: no rule has the name {name:?}"), help);
}
