//! One rule of a site: when it applies, and everything it says. Rules are resolved when the configuration is read:
//! each holds the site's defaults with its own choices on top, so that the edge looks at one rule per request.
//!
//! Two kinds stand in one ordered list. A rule without `status` is a **request rule**: the first that matches decides
//! about the whole request; the site's defaults are the last one. A rule with `status` is a **response rule**: it is
//! passed over until the response's status is known, and then the first that matches may change response headers and
//! the browser's TTL ([`Site::match_response`](crate::Site::match_response)).

use std::borrow::Cow;
use std::sync::Arc;

use semantics::Fields;
use semantics::key::{KeyRecipe, write_key};
use semantics::policy::Policy;
use semantics::vary::normalise_request;

use crate::compress::Compress;
use crate::cors::Cors;
use crate::glob::{Captures, Glob};
use crate::origin::{OriginGroup, Scheme, StatusRange};
use crate::rate::Rate;
use crate::redirect::Redirect;
use crate::rewrite::Rewrite;
use crate::rum::Rum;
use crate::units::Ttl;

/// A request as rules see it: borrowed from the edge's own request.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// As sent; case matters.
    pub method: &'a str,
    /// What the visitor speaks to us, or to a trusted proxy before us.
    pub scheme: Scheme,
    /// Lower-case, without port.
    pub host: &'a str,
    /// From the first `/` to before the `?`, as sent.
    pub path: &'a str,
    /// What is behind the `?`.
    pub query: Option<&'a str>,
    /// The request's field lines.
    pub fields: &'a Fields,
}

/// Answer of [`Site::match_rule`](crate::Site::match_rule).
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// The rule that decides; the site's defaults when no rule matches.
    pub rule: &'a Rule,
    /// Its place in the site's list, from 0; the list's length for the site's defaults.
    pub index: usize,
}

/// Whether visitors have to use TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Https {
    /// They choose.
    #[default]
    Optional,
    /// Those who do not are redirected.
    Redirect,
    /// The same, and those who do are told to do so for a year (RFC 6797).
    Strict,
}

/// Whether visitors show who they are by a certificate of their own, which one of the site's authorities
/// ([`Site::client_ca`](crate::Site::client_ca)) has issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// What they show counts for nothing.
    #[default]
    Off,
    /// Those who show one are known to the origin (RFC 9440).
    Optional,
    /// The same, and nobody else is answered.
    Required,
}

impl ClientCertificate {
    /// The configuration's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClientCertificate::Off => "off",
            ClientCertificate::Optional => "optional",
            ClientCertificate::Required => "required",
        }
    }
}

/// When a rule applies, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What the configuration calls it, if anything.
    pub title: Option<Box<str>>,
    /// Its place in the site's list, from 1; 0 for the site's defaults.
    pub number: u32,
    /// Line of the configuration where it begins; 0 when there is no configuration.
    pub line: u32,
    /// When it applies.
    pub conditions: Conditions,
    /// Whether the cache is used at all.
    pub cache: Cache,
    /// How stored responses live.
    pub policy: Policy,
    /// What tells two requests apart.
    pub key: KeyRecipe,
    /// `max-age` that visitors are told, instead of the origin's.
    pub browser_ttl: Option<Ttl>,
    /// Changes to the request before it goes to the origin.
    pub request_headers: HeaderOps,
    /// Which cookies of the request the origin sees.
    pub request_cookies: CookieFilter,
    /// Changes to the response before it goes to the visitor.
    pub response_headers: HeaderOps,
    /// Surrogate keys that each stored response gets besides the origin's own.
    pub surrogate_keys: Vec<Box<str>>,
    /// Answer at once, without cache and origin.
    pub redirect: Option<Redirect>,
    /// What is asked for without TLS.
    pub https: Https,
    /// What is asked for with TLS.
    pub client_certificate: ClientCertificate,
    /// Cross-origin reading.
    pub cors: Cors,
    /// Where the content comes from.
    pub origin: Arc<OriginGroup>,
    /// How often may be asked; `None` is as often as one likes.
    pub rate_limit: Option<RateLimit>,
    /// Whether a request to switch to WebSocket is passed on.
    pub websocket: bool,
    /// Whether visitors are told early what a page has had loaded before (RFC 8297).
    pub early_hints: bool,
    /// What is compressed of what is stored; `None` is nothing.
    pub compress: Option<Compress>,
    /// What is rewritten in pages and style sheets; `None` is nothing.
    pub rewrite: Option<Arc<Rewrite>>,
    /// Whether browsers tell of views of its pages, and how.
    pub rum: Option<Rum>,
}

/// How often may be asked, and who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How often.
    pub rate: Rate,
    /// By whom.
    pub by: CountedBy,
    /// [`Rule::number`] of the rule that says so: those that have it from their site are counted as one.
    pub of_rule: u32,
}

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// Each client for itself ([`crate::settings::client_network`]).
    Client,
    /// All.
    All,
}

/// Whether the cache is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Looked up and stored, as HTTP and the policy allow.
    #[default]
    Use,
    /// Neither looked up nor stored.
    Pass,
}

/// When a rule applies: all of them must hold; an empty list always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One of these matches the normalised path ([`semantics::key::normalise_path`]).
    pub paths: Vec<Glob>,
    /// The method is one of these. `GET` includes HEAD, which asks for the same representation.
    pub methods: Vec<Box<str>>,
    /// The host is one of these.
    pub hosts: Vec<Glob>,
    /// The visitor speaks this.
    pub scheme: Option<Scheme>,
    /// Each of these holds.
    pub headers: Vec<(Box<str>, ValueTest)>,
    /// Each of these holds.
    pub cookies: Vec<(Box<str>, ValueTest)>,
    /// The response has one of these statuses; not empty in response rules only.
    pub statuses: Vec<StatusRange>,
}

/// What a header or cookie must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueTest {
    /// There is one, whatever it says.
    Present,
    /// There is none.
    Absent,
    /// One of its values matches.
    Matches(Glob),
}

/// Changes to field lines, in order: removals, then replacements, then additions; a site's before its rule's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// What to do, in order.
    pub ops: Vec<HeaderOp>,
}

/// One change. Names are as the configuration writes them; name and value are valid for [`Fields::append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderOp {
    /// Drop every line of the name.
    Remove(Box<str>),
    /// Replace every line of the name by one.
    Set(Box<str>, Box<str>),
    /// Add a line.
    Add(Box<str>, Box<str>),
}

/// Which cookies of a request the origin sees. A cookie that is dropped here cannot be in the key either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CookieFilter {
    /// All of them, untouched.
    #[default]
    All,
    /// None: the Cookie lines are removed.
    None,
    /// Those whose name matches.
    Keep(Vec<Glob>),
    /// Those whose name does not match.
    Drop(Vec<Glob>),
}

/// What is served over TLS has keys of its own: origins redirect by X-Forwarded-Proto, and that redirect must not reach
/// those who followed it.
pub fn write_scheme(out: &mut Vec<u8>, scheme: Scheme) {
    if scheme == Scheme::Https {
        out.extend_from_slice(b"scheme https\n");
    }
}

impl Rule {
    /// A site's defaults when the configuration says nothing: HTTP decides.
    pub fn defaults(origin: Arc<OriginGroup>, line: u32) -> Rule {
        Rule {
            title: None,
            number: 0,
            line,
            conditions: Conditions::default(),
            cache: Cache::default(),
            policy: Policy::default(),
            key: KeyRecipe::default(),
            browser_ttl: None,
            request_headers: HeaderOps::default(),
            request_cookies: CookieFilter::default(),
            response_headers: HeaderOps::default(),
            surrogate_keys: Vec::new(),
            redirect: None,
            https: Https::default(),
            client_certificate: ClientCertificate::default(),
            cors: Cors::default(),
            origin,
            rate_limit: None,
            websocket: true,
            early_hints: true,
            compress: Some(Compress::default()),
            rewrite: None,
            rum: None,
        }
    }

    /// Appends the key text of a request that this rule of `site` decides about: what its answer is stored under. `authority` is the
    /// host as the request has it, with a port where there is one.
    ///
    /// Headers and cookies are keyed as the origin gets to see them; a recipe without any copies nothing.
    pub fn write_key(&self, out: &mut Vec<u8>, site: &str, authority: &str, request: &RequestView<'_>) {
        let mut write = |fields: &Fields| {
            let (path, query) = (request.path.as_bytes(), request.query.map(str::as_bytes));
            write_key(out, &self.key, site, authority, path, query, fields);
            write_scheme(out, request.scheme);
            if self.is_chosen_by_fields() {
                out.extend_from_slice(format!("rule {}\n", self.number).as_bytes());
            }
            if let Some(rewrite) = &self.rewrite {
                rewrite.write_key(out);
            }
        };
        if self.key.headers.is_empty() && self.key.cookies.is_empty() {
            return write(request.fields);
        }
        let mut fields = request.fields.clone();
        self.request_cookies.apply(&mut fields);
        normalise_request(&mut fields, &self.policy.vary_normalise);
        write(&fields);
    }

    /// Whether the rule applies because of the request's headers or cookies: what it stores is then not for those whose
    /// requests lack them, so its number belongs to the key.
    pub fn is_chosen_by_fields(&self) -> bool {
        !self.conditions.headers.is_empty() || !self.conditions.cookies.is_empty()
    }

    /// Whether what it stores has keys that its recipe and a URL do not tell.
    pub fn has_own_keys(&self) -> bool {
        self.is_chosen_by_fields() || self.rewrite.is_some()
    }

    /// What to call it in messages, logs and `explain`: its title, `rule 3`, or `defaults`.
    pub fn name(&self) -> Cow<'_, str> {
        match (&self.title, self.number) {
            (Some(title), _) => Cow::Borrowed(title),
            (None, 0) => Cow::Borrowed("defaults"),
            (None, number) => Cow::Owned(format!("rule {number}")),
        }
    }

    /// Where the rule redirects this request to, and with which status. `None` when it doesn't redirect.
    pub fn location(&self, request: &RequestView<'_>) -> Option<(u16, String)> {
        if self.sends_to_https(request) {
            // Older programs know no 308, and without a body they need none (RFC 9110 §15.4.9).
            let status = if matches!(request.method, "GET" | "HEAD") { 301 } else { 308 };
            let query = request.query.map_or_else(String::new, |query| format!("?{query}"));
            return Some((status, format!("https://{}{}{query}", request.host, request.path)));
        }
        let redirect = self.redirect.as_ref()?;
        let path = semantics::key::normalise_path(request.path.as_bytes());
        let captures = self.conditions.captures(&path);
        Some((redirect.status, redirect.location(request, &path, &captures)))
    }

    /// Whether the rule has the visitor ask again with TLS.
    pub fn sends_to_https(&self, request: &RequestView<'_>) -> bool {
        self.https != Https::Optional && request.scheme == Scheme::Http
    }

    /// Whether the rule waits for the response's status.
    pub fn is_response_rule(&self) -> bool {
        !self.conditions.statuses.is_empty()
    }
}

impl Conditions {
    /// Whether the request meets all conditions. `path` is the normalised path. Allocates nothing.
    pub fn hold(&self, request: &RequestView<'_>, path: &[u8]) -> bool {
        (self.paths.is_empty() || self.paths.iter().any(|glob| glob.matches(path)))
            && (self.methods.is_empty() || self.allow_method(request.method))
            && self.scheme.is_none_or(|scheme| scheme == request.scheme)
            && (self.hosts.is_empty() || self.hosts.iter().any(|glob| glob.matches(request.host.as_bytes())))
            && self.headers.iter().all(|(name, test)| test.holds(request.fields.get_all(&**name)))
            && self.cookies.iter().all(|(name, test)| test.holds(cookies(request.fields, name)))
    }

    fn allow_method(&self, method: &str) -> bool {
        let asked = if method == "HEAD" { "GET" } else { method };
        self.methods.iter().any(|allowed| **allowed == *asked || **allowed == *method)
    }

    /// What the stars of the first path that matches stand for.
    fn captures<'t>(&self, path: &'t [u8]) -> Captures<'t> {
        self.paths.iter().find_map(|glob| glob.captures(path)).unwrap_or_default()
    }

    /// Whether every request that meets `other` meets `self` too. May say no where the answer is yes, never the
    /// other way round. Statuses are compared as well.
    pub fn cover(&self, other: &Conditions) -> bool {
        let globs = |mine: &[Glob], theirs: &[Glob]| {
            mine.is_empty()
                || (!theirs.is_empty() && theirs.iter().all(|their| mine.iter().any(|my| my.covers(their))))
        };
        let tests = |mine: &[(Box<str>, ValueTest)], theirs: &[(Box<str>, ValueTest)]| {
            mine.iter()
                .all(|(name, my)| theirs.iter().any(|(other, their)| name == other && my.covers(their)))
        };
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty() && other.methods.iter().all(|method| self.allow_method(method)));
        let statuses = self.statuses.is_empty()
            || (!other.statuses.is_empty()
                && other.statuses.iter().all(|their| {
                    self.statuses.iter().any(|my| my.start() <= their.start() && my.end() >= their.end())
                }));
        globs(&self.paths, &other.paths)
            && globs(&self.hosts, &other.hosts)
            && methods
            && statuses
            && (self.scheme.is_none() || self.scheme == other.scheme)
            && tests(&self.headers, &other.headers)
            && tests(&self.cookies, &other.cookies)
    }
}

impl ValueTest {
    pub(crate) fn holds<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            ValueTest::Present => values.next().is_some(),
            ValueTest::Absent => values.next().is_none(),
            ValueTest::Matches(glob) => values.any(|value| glob.matches(value)),
        }
    }

    fn covers(&self, other: &ValueTest) -> bool {
        match (self, other) {
            (ValueTest::Present, ValueTest::Present | ValueTest::Matches(_)) => true,
            (ValueTest::Absent, ValueTest::Absent) => true,
            (ValueTest::Matches(my), ValueTest::Matches(their)) => my.covers(their),
            _ => false,
        }
    }
}

impl HeaderOps {
    /// The same but for what HTTP's own fields say to one origin about who asks: those of RFC 9110 §11.6.2 and §11.7.2, and RFC 6265.
    /// What a visitor says in one that is replaced is not passed on instead.
    pub fn without_credentials(&self) -> HeaderOps {
        let other = |op: &HeaderOp| match op {
            HeaderOp::Set(name, _) if is_credential(name) => Some(HeaderOp::Remove(name.clone())),
            HeaderOp::Add(name, _) if is_credential(name) => None,
            op => Some(op.clone()),
        };
        HeaderOps { ops: self.ops.iter().filter_map(other).collect() }
    }

    /// What of a visitor's it keeps from an origin: what is removed or blanked, and credentials that are replaced. It says nothing itself,
    /// so any origin may know it.
    pub fn removals(&self) -> HeaderOps {
        let removal = |op: &HeaderOp| match op {
            HeaderOp::Remove(name) => Some(HeaderOp::Remove(name.clone())),
            HeaderOp::Set(name, value) if value.is_empty() || is_credential(name) => {
                Some(HeaderOp::Remove(name.clone()))
            }
            HeaderOp::Set(..) | HeaderOp::Add(..) => None,
        };
        HeaderOps { ops: self.ops.iter().filter_map(removal).collect() }
    }

    /// Applies the changes. Costs a rebuild of the block for each line that is removed or replaced, else nothing.
    pub fn apply(&self, fields: &mut Fields) {
        for op in &self.ops {
            // The reader has checked names and values, so that neither call can refuse.
            let _ = match op {
                HeaderOp::Remove(name) => {
                    fields.remove(&**name);
                    Ok(())
                }
                HeaderOp::Set(name, value) => fields.set(&**name, &**value),
                HeaderOp::Add(name, value) => fields.append(&**name, &**value),
            };
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

fn is_credential(name: &str) -> bool {
    ["authorization", "cookie", "proxy-authorization"].iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

impl CookieFilter {
    /// Rewrites the Cookie lines of a request; one line is left, or none. Does nothing with [`CookieFilter::All`].
    pub fn apply(&self, fields: &mut Fields) {
        let keeps = |name: &[u8]| match self {
            CookieFilter::All => true,
            CookieFilter::None => false,
            CookieFilter::Keep(names) => names.iter().any(|glob| glob.matches(name)),
            CookieFilter::Drop(names) => !names.iter().any(|glob| glob.matches(name)),
        };
        if *self == CookieFilter::All || !fields.contains("cookie") {
            return;
        }
        let mut kept: Vec<u8> = Vec::new();
        for pair in fields.get_all("cookie").flat_map(|line| line.split(|&byte| byte == b';')) {
            let pair = semantics::fields::trim(pair);
            let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
            if !pair.is_empty() && keeps(name) {
                if !kept.is_empty() {
                    kept.extend_from_slice(b"; ");
                }
                kept.extend_from_slice(pair);
            }
        }
        fields.remove("cookie");
        if !kept.is_empty() {
            fields.append_unchecked(b"Cookie", &kept);
        }
    }
}

/// The values of cookie `name` over all Cookie lines, in order.
fn cookies<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.get_all("cookie").flat_map(|line| line.split(|&byte| byte == b';')).filter_map(move |pair| {
        let pair = semantics::fields::trim(pair);
        let value = pair.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}
