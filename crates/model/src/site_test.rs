//! Tests of rules that stand beside the rules: a request, what the origin would answer, and what must come of it.
//! Run by `perigee check` and before a configuration comes into force; each expectation that fails is reported at its
//! place in the file. Pure: no request is
//! made and no clock is read.

use semantics::{Fields, LifetimeSource, StoreRequest, Target, Wall, decide_store};

use crate::diagnostic::Diagnostic;
use crate::origin::Scheme;
use crate::rule::{Cache, Matched, RequestView, Rule, ValueTest};
use crate::snapshot::{Site, Snapshot};
use crate::units::Ttl;

/// One test.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteTest {
    /// The request's method.
    pub method: Box<str>,
    /// What the visitor speaks.
    pub scheme: Scheme,
    /// The request's host, lower-case.
    pub host: Box<str>,
    /// The request's path.
    pub path: Box<str>,
    /// The request's query, without `?`.
    pub query: Option<Box<str>>,
    /// The request's fields.
    pub fields: Fields,
    /// What the origin answers with.
    pub status: u16,
    /// The fields that the origin answers with.
    pub response: Fields,
    /// What must come of it.
    pub expectations: Vec<Expectation>,
    /// Line of the configuration where it begins.
    pub line: u32,
}

/// One expectation, and the diagnostic that its failure completes.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    pub(crate) wanted: Wanted,
    /// Place of the expectation; message and help are filled in when it fails.
    pub(crate) place: Diagnostic,
}

/// What must be so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    RuleNumber(u32),
    RuleName(Box<str>),
    Cache(bool),
    Stored(bool),
    Ttl(Ttl),
    BrowserTtl(Ttl),
    Redirect(Box<str>),
    Origin(Box<str>),
    RequestHeader(Box<str>, ValueTest),
    ResponseHeader(Box<str>, ValueTest),
}

/// The moment at which tests take place: what they find must not depend on when they are run.
const NOW: Wall = Wall::from_secs(1_700_000_000);

impl Snapshot {
    /// Runs the tests of all sites. Each expectation that fails is an error; none means that all hold.
    ///
    /// A test goes the way of a request: site by host, rule, redirect or what `semantics` decides about storing the
    /// answer. Without `response_headers` the origin's answer has none, so that only rules give it a lifetime.
    pub fn run_tests(&self) -> Vec<Diagnostic> {
        self.sites
            .iter()
            .flat_map(|site| site.tests.iter().flat_map(|test| self.run_test(site, test)))
            .collect()
    }

    /// How many tests there are.
    pub fn test_count(&self) -> usize {
        self.sites.iter().map(|site| site.tests.len()).sum()
    }

    fn run_test(&self, site: &Site, test: &SiteTest) -> Vec<Diagnostic> {
        let request = test.request();
        let answering = self.site_for(&test.host).unwrap_or(site);
        let matched = answering.match_rule(&request);
        let failed = test.expectations.iter().filter_map(|expectation| {
            let (message, help) = test.judge(&expectation.wanted, answering, &matched)?;
            Some(Diagnostic { message, help, ..expectation.place.clone() })
        });
        failed.collect()
    }
}

impl SiteTest {
    fn request(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            scheme: self.scheme,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            fields: &self.fields,
        }
    }

    /// `None` when it is as wanted, else what is so instead and where it comes from.
    fn judge(&self, wanted: &Wanted, site: &Site, matched: &Matched<'_>) -> Option<(String, String)> {
        let rule = matched.rule;
        let by = format!("{}{} is decided by {}", self.host, self.path, described(rule));
        let differs = |what: &str, wanted: &str, found: &str| {
            Some((format!("test failed: {what} should be {wanted}, but is {found}"), by.clone()))
        };
        match wanted {
            Wanted::RuleNumber(number) if rule.number == *number => None,
            Wanted::RuleNumber(number) => {
                let wanted =
                    if *number == 0 { "the site's own keys".to_owned() } else { format!("rule {number}") };
                differs("the rule", &wanted, &described(rule))
            }
            Wanted::RuleName(name) if rule.title.as_deref() == Some(name) => None,
            Wanted::RuleName(name) => differs("the rule", &format!("{name:?}"), &described(rule)),
            Wanted::Cache(used) => {
                let found = rule.cache == Cache::Use;
                if found == *used { None } else { differs("cache", &used.to_string(), &found.to_string()) }
            }
            Wanted::Stored(stored) => match (self.stored(rule), stored) {
                (Ok(_), true) | (Err(_), false) => None,
                (Ok((ttl, _)), false) => differs("the answer", "not stored", &format!("stored for {ttl}")),
                (Err(reason), true) => differs("the answer", "stored", &format!("not: {reason}")),
            },
            Wanted::Ttl(ttl) => match self.stored(rule) {
                Ok((found, _)) if found == *ttl => None,
                Ok((found, from)) => differs("ttl", &ttl.to_string(), &format!("{found} ({from})")),
                Err(reason) => differs("the answer", &format!("stored for {ttl}"), &format!("not: {reason}")),
            },
            Wanted::BrowserTtl(ttl) => {
                let response_rule = site.match_response(&self.request(), self.status);
                let found = response_rule.and_then(|matched| matched.rule.browser_ttl).or(rule.browser_ttl);
                match found {
                    Some(found) if found == *ttl => None,
                    Some(found) => differs("browser_ttl", &ttl.to_string(), &found.to_string()),
                    None => differs("browser_ttl", &ttl.to_string(), "the origin's"),
                }
            }
            Wanted::Redirect(to) => match rule.location(&self.request()) {
                Some((_, found)) if found == **to => None,
                Some((_, found)) => differs("the redirect", &format!("{to:?}"), &format!("{found:?}")),
                None => differs("the answer", &format!("a redirect to {to:?}"), "no redirect"),
            },
            Wanted::Origin(url) => {
                let found = rule.origin.origins.first().map_or_else(String::new, |origin| origin.url());
                if found == url.trim_end_matches('/') {
                    None
                } else {
                    differs("the origin", &format!("{url:?}"), &format!("{found:?}"))
                }
            }
            Wanted::RequestHeader(name, test) => {
                let mut sent = self.fields.clone();
                rule.request_cookies.apply(&mut sent);
                rule.request_headers.apply(&mut sent);
                rule.origin.prepare(&mut sent);
                rule.origin.prepare_for(0, &mut sent);
                judge_header(name, test, &sent, "the request's", differs)
            }
            Wanted::ResponseHeader(name, test) => {
                let mut sent = self.response.clone();
                rule.cors.on_receive(&mut sent);
                rule.response_headers.apply(&mut sent);
                if let Some(matched) = site.match_response(&self.request(), self.status) {
                    matched.rule.response_headers.apply(&mut sent);
                }
                rule.cors.on_deliver(&self.fields, &mut sent);
                judge_header(name, test, &sent, "the response's", differs)
            }
        }
    }

    /// The lifetime that the answer is stored with and where it comes from, or why it is not stored.
    fn stored(&self, rule: &Rule) -> Result<(Ttl, &'static str), String> {
        if rule.redirect.is_some() {
            return Err("the rule answers with a redirect".to_owned());
        }
        if rule.cache == Cache::Pass {
            return Err("the rule says cache = false".to_owned());
        }
        let mut response = self.response.clone();
        rule.cors.on_receive(&mut response);
        let path_and_query = match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.to_string(),
        };
        let target =
            Target { authority: &self.host, origin_authority: None, path_and_query: &path_and_query };
        let request = StoreRequest { method: &self.method, fields: &self.fields, target };
        let facts = decide_store(&request, self.status, &response, &rule.policy, NOW, NOW)
            .map_err(|refusal| lower_first(refusal.sentence().trim_end_matches('.')))?;
        let from = match facts.source {
            LifetimeSource::Rule | LifetimeSource::RuleForStatus | LifetimeSource::RuleForSilence => {
                "by rule"
            }
            LifetimeSource::Heuristic => "by guess",
            LifetimeSource::Nothing => "nothing says more",
            _ => "from the origin",
        };
        Ok((Ttl::from_secs(u64::from(facts.lifetime)), from))
    }
}

fn judge_header(
    name: &str,
    test: &ValueTest,
    fields: &Fields,
    whose: &str,
    differs: impl Fn(&str, &str, &str) -> Option<(String, String)>,
) -> Option<(String, String)> {
    if test.holds(fields.get_all(name)) {
        return None;
    }
    let found = fields
        .combined(name)
        .map_or_else(|| "absent".to_owned(), |value| format!("{:?}", String::from_utf8_lossy(&value)));
    let wanted = match test {
        ValueTest::Present => "present".to_owned(),
        ValueTest::Absent => "absent".to_owned(),
        ValueTest::Matches(glob) => format!("{:?}", glob.as_str()),
    };
    differs(&format!("{whose} {name}"), &wanted, &found)
}

fn described(rule: &Rule) -> String {
    match (&rule.title, rule.number) {
        (_, 0) => "the site's own keys".to_owned(),
        (Some(title), number) => format!("rule {number} ({title}, line {})", rule.line),
        (None, number) => format!("rule {number} (line {})", rule.line),
    }
}

fn lower_first(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
