//! Conditions of VCL, as conditions of a rule.
//!
//! Read: `&&`, `||`, `!`, parentheses; `==`, `!=`, `~`, `!~` and a name alone, for URL, method, host and other request headers, and `bereq`
//! alike. What else is asked (addresses, statuses, what the response says) is [`Expr::Unsure`]: it may hold and may not. So is what the program
//! has changed before it asks, as rules are told what visitors send: see [`Changed`].

use std::collections::BTreeMap;

use super::lexer::Statement;
use super::{Reach, Token};
use crate::condition::Condition;
use crate::draft::{dotted, path_pattern, quote, without_query};
use crate::pattern::{covering, patterns};
use model::glob::IGNORES_CASE;

/// Parentheses within parentheses, at most.
const DEPTH_MAX: usize = 16;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// One of these holds.
    Is(Vec<Condition>),
    /// No rule can say whether it holds; why, as a part of a sentence.
    Unsure(String),
    /// It holds for no others than those for whom one of these does.
    Perhaps(Vec<Condition>, String),
    /// The same, as it may be the query that it is about.
    OfQuery(String),
    /// The response is one that is kept by no cache: it has a cookie, or says so.
    Unkept,
    /// The response is an error, which is kept for as long as the origin says alone.
    OfErrors,
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

impl Expr {
    /// Whether it holds for nothing but what is kept by no cache.
    pub(super) fn is_unkept(&self) -> bool {
        match self {
            Expr::Unkept => true,
            Expr::Any(parts) => parts.iter().all(Expr::is_unkept),
            Expr::All(parts) => parts.iter().any(Expr::is_unkept),
            _ => false,
        }
    }

    /// Whether the query and headers are asked for together, so that it holds for some alone of those who ask with the same query.
    pub(super) fn is_of_query_for_some(&self) -> bool {
        match self {
            Expr::Any(parts) => parts.iter().any(Expr::is_of_query_for_some),
            Expr::All(_) | Expr::Not(_) => self.asks_query() && self.asks_headers(),
            _ => false,
        }
    }

    fn asks_query(&self) -> bool {
        match self {
            Expr::OfQuery(_) => true,
            Expr::Not(inner) => inner.asks_query(),
            Expr::All(parts) | Expr::Any(parts) => parts.iter().any(Expr::asks_query),
            _ => false,
        }
    }

    /// Whether it asks for what does not belong to the key.
    pub(super) fn asks_headers(&self) -> bool {
        match self {
            Expr::Is(ways) | Expr::Perhaps(ways, _) => ways.iter().any(|way| !way.lines.is_empty()),
            Expr::Not(inner) => inner.asks_headers(),
            Expr::All(parts) | Expr::Any(parts) => parts.iter().any(Expr::asks_headers),
            _ => false,
        }
    }
}

/// Reads what stands in the parentheses, where some has been changed before.
pub(super) fn read(tokens: &[Token], changed: &Changed) -> Expr {
    let mut reader = Reader { tokens, changed, at: 0, depth: 0 };
    match reader.any() {
        Ok(expr) if reader.at == tokens.len() => expr,
        Ok(_) => Expr::Unsure("it is not understood".into()),
        Err(why) => Expr::Unsure(why),
    }
}

struct Reader<'t> {
    tokens: &'t [Token],
    changed: &'t Changed,
    at: usize,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn take(&mut self, sign: &str) -> bool {
        let is_there = self.tokens.get(self.at).is_some_and(|token| token.is(sign));
        self.at += usize::from(is_there);
        is_there
    }

    fn any(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("its parentheses lie too deep".into());
        }
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        self.depth -= 1;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Any(parts) })
    }

    fn all(&mut self) -> Result<Expr, String> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::All(parts) })
    }

    fn one(&mut self) -> Result<Expr, String> {
        let mut is_not = false;
        while self.take("!") {
            is_not = !is_not;
        }
        let expr = match self.take("(") {
            true => {
                let expr = self.any()?;
                if !self.take(")") {
                    return Err("a parenthesis is not closed".into());
                }
                expr
            }
            false => self.comparison()?,
        };
        Ok(if is_not { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn comparison(&mut self) -> Result<Expr, String> {
        let Some(Token::Word(name)) = self.tokens.get(self.at) else {
            return Err("it is not understood".into());
        };
        self.at += 1;
        let is_call = self.skip_arguments()?;
        let operator = ["==", "~", "!=", "!~", "<", ">", "<=", ">="].into_iter().find(|sign| self.take(sign));
        let text = match operator {
            Some(_) => self.operand()?,
            None => None,
        };
        let no_word = || Expr::Unsure(format!("rules have no condition on {name}"));
        Ok(match (operator, text) {
            _ if is_call => no_word(),
            (None, _) => self.changed.asked(name, None).unwrap_or_else(|| alone(name)),
            (Some(operator), Some(text)) => {
                let is = |operator: &str| {
                    let known = self.changed.asked(name, Some((operator, &text)));
                    known.unwrap_or_else(|| compare(name, operator, &text))
                };
                match operator.strip_prefix('!') {
                    Some(rest) => Expr::Not(Box::new(is(if rest == "=" { "==" } else { rest }))),
                    None => is(operator),
                }
            }
            (Some(_), None) if is_of_response(name) => no_word(),
            (Some(_), None) => {
                Expr::Unsure(format!("what {name} is compared with is known only when a request comes"))
            }
        })
    }

    /// `(…)` behind a name. Whether it is there.
    fn skip_arguments(&mut self) -> Result<bool, String> {
        if !self.take("(") {
            return Ok(false);
        }
        let mut open = 1;
        while open > 0 {
            let Some(token) = self.tokens.get(self.at) else {
                return Err("a parenthesis is not closed".into());
            };
            self.at += 1;
            match token.text() {
                "(" if token.is("(") => open += 1,
                ")" if token.is(")") => open -= 1,
                _ => {}
            }
        }
        Ok(true)
    }

    /// What a name is compared with; nothing where that is computed. Texts that stand side by side are one.
    fn operand(&mut self) -> Result<Option<String>, String> {
        let (mut text, mut is_plain, mut count) = (String::new(), true, 0);
        loop {
            match self.tokens.get(self.at) {
                Some(Token::Text(found)) => text.push_str(found),
                Some(Token::Word(found)) if count == 0 => {
                    text.push_str(found);
                    self.at += 1;
                    is_plain &= !self.skip_arguments()? && !found.contains('.');
                    self.at -= 1;
                }
                Some(Token::Sign(sign)) if sign == "+" && count > 0 => is_plain = false,
                Some(Token::Word(_)) if !is_plain => {}
                _ if count == 0 => return Err("what is compared with is not understood".into()),
                _ => return Ok(is_plain.then_some(text)),
            }
            self.at += 1;
            count += 1;
        }
    }
}

// --- What is changed ---

/// What the program has made of requests on the way to a condition, by names like `req.url` and `req.http.x` in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    values: BTreeMap<String, Value>,
    /// Something that is not read may have changed anything.
    is_unknown: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Unset,
    Text(String),
    /// What visitors send, without some of it.
    Cut,
    /// No rule can say it.
    Computed,
}

impl Changed {
    /// What Varnish itself has changed before the program begins: it adds the address to X-Forwarded-For.
    pub(super) fn at_start() -> Changed {
        let mut changed = Changed::default();
        changed.note("req.http.X-Forwarded-For", Value::Computed);
        changed
    }

    fn note(&mut self, name: &str, value: Value) {
        // What goes to the origin is no more what visitors sent, but what vcl_deliver asks for may still be.
        let is_of_fetch = name.to_ascii_lowercase().starts_with("bereq.");
        let value = if is_of_fetch { Value::Computed } else { value };
        if let Some(name) = of_request(name) {
            self.values.insert(name, value);
        }
    }

    /// From here on nothing is known to be what visitors send.
    pub(super) fn all(&mut self) {
        self.is_unknown = true;
        self.values.clear();
    }

    /// A statement that is reached, surely or not.
    pub(super) fn by(&mut self, statement: &Statement, reach: Reach) {
        let words = statement.words();
        let name = words.get(1).copied().unwrap_or_default();
        match words.first().copied().unwrap_or_default() {
            "set" if keeps(name, statement) => {}
            "set" | "unset" | "remove" if reach != Reach::Sure => self.note(name, Value::Computed),
            "unset" | "remove" => self.note(name, Value::Unset),
            "set" => {
                let value = match statement.literal() {
                    // A URL that is written there is none that visitors ask for.
                    Some(text) if name.contains(".http.") => Value::Text(text.to_owned()),
                    None if is_cut(name, statement) && self.asked_first(name) => Value::Cut,
                    _ => Value::Computed,
                };
                self.note(name, value);
            }
            // Written in C; or all is as visitors sent it, if it comes there.
            "C" | "rollback" | "std.rollback" => self.all(),
            "std.collect" | "std.log" | "std.syslog" => {}
            // What a module is given, it may change.
            module if module.contains('.') => words.iter().for_each(|word| self.note(word, Value::Computed)),
            _ => {}
        }
    }

    /// Whether it is still what visitors send, or that without some of it.
    fn asked_first(&self, name: &str) -> bool {
        let value = of_request(name).and_then(|name| self.values.get(&name));
        matches!(value, None | Some(Value::Cut)) && !self.is_unknown
    }

    /// What is known of a name that is alone, or compared by `==`, `~` or another operator; nothing where it is what visitors send.
    fn asked(&self, name: &str, compared: Option<(&str, &str)>) -> Option<Expr> {
        let of_request = of_request(name)?;
        let unsure = || Expr::Unsure(format!("the program may change {name} before"));
        let Some(value) = self.values.get(&of_request) else { return self.is_unknown.then(unsure) };
        let is = |holds: bool| Expr::Is(if holds { vec![Condition::default()] } else { Vec::new() });
        Some(match (value, compared) {
            (Value::Unset | Value::Text(_), None) => is(*value != Value::Unset),
            (Value::Text(text), Some(("==", wanted))) => is(text == wanted),
            (Value::Unset, Some(("==", wanted))) if !wanted.is_empty() => is(false),
            (Value::Unset | Value::Text(_), Some(("~", expression))) => {
                let text = if let Value::Text(text) = value { text } else { "" };
                match patterns(expression, false).filter(|found| found.is_exact) {
                    Some(found) => {
                        let matches = |glob: &String| model::glob::Glob::new(glob).matches(text.as_bytes());
                        is(found.globs.iter().any(matches))
                    }
                    None => unsure(),
                }
            }
            // What is left has what the visitor's has, but for what reads on across a cut. Who writes into a text what is taken out of it,
            // so that its parts come together, is taken for one who did not write it.
            (Value::Cut, Some(("~", expression))) if !expression.contains(['^', '$']) => {
                match compare(name, "~", expression) {
                    Expr::Is(ways) | Expr::Perhaps(ways, _) => {
                        Expr::Perhaps(ways, format!("the program takes something out of {name} before"))
                    }
                    _ => unsure(),
                }
            }
            _ => unsure(),
        })
    }
}

/// A name of what is asked for, as visitors send it, in lower case; what goes to the origin is the same. Nothing of another name.
fn of_request(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let rest = lower.strip_prefix("bereq.").or_else(|| lower.strip_prefix("req."))?;
    let is_asked = rest.starts_with("http.") || matches!(rest, "url" | "method" | "request");
    is_asked.then(|| format!("req.{}", if rest == "request" { "method" } else { rest }))
}

/// Whether what is set says the same to conditions as before: the query's order, the query without some of it, a host without its port or in
/// lower case.
fn keeps(name: &str, statement: &Statement) -> bool {
    // Where the query begins, or one of its parameters; what may be absent is no beginning.
    const BEGINS: [&str; 9] = [r"\?", "[?&]", r"[\?&]", r"(\?|&)", r"(\?|\&)", "&", r"\&", "#", r"\#"];
    let Some(name) = of_request(name) else { return true };
    let words = statement.words();
    let Some(equals) = words.iter().position(|word| *word == "=") else { return false };
    let is_own = |other: &str| of_request(other).is_some_and(|other| other == name);
    match (&*name, &words[equals + 1..]) {
        ("req.url", ["std.querysort", "(", url, ")"]) => is_own(url),
        ("req.http.host", ["std.tolower", "(", host, ")"]) => is_own(host),
        ("req.url", ["regsub" | "regsuball", "(", url, ",", expression, ",", text, ")"]) => {
            let rest = BEGINS.iter().find_map(|begin| expression.strip_prefix(begin));
            let is_of_query =
                rest.is_some_and(|rest| !rest.starts_with(['*', '?', '{']) && !has_alternatives(rest));
            let is_put_there = text.is_empty() || text.starts_with(['?', '&']) || *text == r"\1";
            is_own(url) && is_of_query && is_put_there
        }
        ("req.http.host", ["regsub" | "regsuball", "(", host, ",", expression, ",", "", ")"]) => {
            let bare = expression.trim_end_matches('$').trim_end_matches(['+', '*']);
            is_own(host) && matches!(bare, ":[0-9]" | r":\d" | ":.")
        }
        _ => false,
    }
}

/// Whether an expression has alternatives outside of parentheses.
fn has_alternatives(expression: &str) -> bool {
    let mut open = 0_i32;
    let mut rest = expression.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => _ = rest.next(),
            '(' | '[' => open += 1,
            ')' | ']' => open -= 1,
            '|' if open == 0 => return true,
            _ => {}
        }
    }
    false
}

/// Whether what is set is what there was, without some of it.
fn is_cut(name: &str, statement: &Statement) -> bool {
    let words = statement.words();
    let equals = words.iter().position(|word| *word == "=").map_or(0, |equals| equals + 1);
    match &words[equals..] {
        ["regsub" | "regsuball", "(", from, ",", _, ",", "", ")"] => of_request(name)
            .is_some_and(|name| name.starts_with("req.http.") && of_request(from) == Some(name)),
        _ => false,
    }
}

// --- What visitors send ---

/// The header that a name stands for.
fn header_of(name: &str) -> &str {
    match name.split_once(".http.").map_or("", |(_, header)| header) {
        // Rules for cookies are told by it.
        header if header.eq_ignore_ascii_case("cookie") => "Cookie",
        header => header,
    }
}

fn is_of_response(name: &str) -> bool {
    ["beresp.", "resp.", "obj."].iter().any(|of| name.starts_with(of))
}

/// A name by itself: whether there is such a field.
fn alone(name: &str) -> Expr {
    match name.to_ascii_lowercase().split_once(".http.") {
        Some(("req" | "bereq", _)) => {
            let header = header_of(name);
            let line = (dotted("with_header", header), "true".to_owned());
            Expr::Is(vec![Condition { lines: vec![line], ..Condition::default() }])
        }
        Some(("beresp", "set-cookie")) => Expr::Unkept,
        _ if name == "bereq.uncacheable" => Expr::Unkept,
        _ => Expr::Unsure(format!("rules have no condition on {name}")),
    }
}

fn compare(name: &str, operator: &str, text: &str) -> Expr {
    let lower = name.to_ascii_lowercase();
    match (&*lower, operator, text) {
        ("beresp.ttl", "<=", "0s" | "0") | ("beresp.ttl", "==", "0s") | ("beresp.http.vary", "==", "*") => {
            return Expr::Unkept;
        }
        ("beresp.http.cache-control" | "beresp.http.surrogate-control", "~", text) if keeps_none(text) => {
            return Expr::Unkept;
        }
        ("beresp.status" | "resp.status" | "obj.status", "==" | ">=" | ">", text)
            if text.parse::<u32>().is_ok_and(|status| status >= if operator == ">" { 399 } else { 400 }) =>
        {
            return Expr::OfErrors;
        }
        // There are none: nothing is tried again by a program.
        ("req.restarts" | "bereq.retries", operator, text) => {
            if let Ok(count) = text.parse::<u32>() {
                let holds = match operator {
                    "==" | ">=" => count == 0,
                    "<" => count > 0,
                    "<=" => true,
                    _ => false,
                };
                return Expr::Is(if holds { vec![Condition::default()] } else { Vec::new() });
            }
        }
        _ => {}
    }
    if matches!(&*lower, "req.url" | "bereq.url") {
        return of_url(operator, text);
    }
    let (globs, is_exact) = match operator {
        "==" => (vec![text.to_owned()], true),
        "~" => match patterns(text, false) {
            Some(found) => (found.globs, found.is_exact),
            None => {
                let wide = covering(text, false);
                let why = no_pattern(text);
                let Expr::Is(ways) = of_globs(name, &lower, wide, false) else { return Expr::Unsure(why) };
                return Expr::Perhaps(ways, why);
            }
        },
        _ => return Expr::Unsure(format!("rules do not know what is {operator} something")),
    };
    of_globs(name, &lower, globs, is_exact)
}

fn no_pattern(text: &str) -> String {
    format!("{text:?} cannot be said by patterns with \"*\"")
}

/// That what a name stands for matches one of some patterns.
fn of_globs(name: &str, lower: &str, globs: Vec<String>, is_exact: bool) -> Expr {
    let of = |condition: Condition| Expr::Is(vec![Condition { is_exact, is_wide: !is_exact, ..condition }]);
    match lower {
        "req.method" | "req.request" | "bereq.method" => {
            let is_method =
                |glob: &String| glob.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
            match globs.iter().all(is_method) {
                true => of(Condition { methods: globs, ..Condition::default() }),
                false => Expr::Unsure("it is no list of methods".into()),
            }
        }
        "req.http.host" | "bereq.http.host" => {
            let hosts = globs.iter().map(|glob| glob.to_ascii_lowercase()).collect();
            of(Condition { hosts, ..Condition::default() })
        }
        other => match other.split_once(".http.") {
            Some(("req" | "bereq", _)) => {
                let header = header_of(name);
                let line = |glob: &String| (dotted("with_header", header), quote(glob));
                let of = |glob: &String| Condition {
                    lines: vec![line(glob)],
                    is_exact,
                    is_wide: !is_exact,
                    ..Condition::default()
                };
                Expr::Is(globs.iter().map(of).collect())
            }
            _ => Expr::Unsure(format!("rules have no condition on {name}")),
        },
    }
}

/// Whether an expression on Cache-Control is about nothing but what keeps an answer out of every cache.
fn keeps_none(expression: &str) -> bool {
    let bare = expression.trim_start_matches("(?i)").trim_start_matches("(?i:");
    let bare = bare.trim_matches(['(', ')']);
    bare.split('|').all(|word| matches!(word.trim(), "no-cache" | "no-store" | "private"))
}

/// A URL is path and query there, and here a path.
fn of_url(operator: &str, text: &str) -> Expr {
    let (globs, is_exact, is_of_path, may_be_of_query) = match operator {
        "==" => (vec![text.to_owned()], true, false, false),
        "~" => {
            let (expression, is_of_path) = match QUERY_ENDS.iter().find_map(|end| text.strip_suffix(end)) {
                Some(path) if path.starts_with('^') || !path.contains('|') || path.contains('(') => {
                    (format!("{path}$"), true)
                }
                _ => (text.to_owned(), false),
            };
            let Some(found) = patterns(&expression, false) else {
                let paths: Vec<String> = covering(text, false).iter().map(|glob| path_of(glob)).collect();
                let why = no_pattern(text);
                if paths.iter().any(|path| path == "*" || path == "(?i)*") {
                    return Expr::Unsure(why);
                }
                let is = Expr::Perhaps(
                    vec![Condition { paths, is_wide: true, ..Condition::default() }],
                    why.clone(),
                );
                return if text.starts_with('^') { is } else { Expr::Any(vec![is, Expr::OfQuery(why)]) };
            };
            let is_begun = |glob: &String| {
                let bare = glob.strip_prefix(IGNORES_CASE).unwrap_or(glob);
                bare.find('*').is_none_or(|star| star > 0 && star + 1 == bare.len())
            };
            let may_be_of_query = !is_of_path && !found.globs.iter().all(is_begun);
            (found.globs, found.is_exact, is_of_path, may_be_of_query)
        }
        _ => return Expr::Unsure(format!("rules do not know what is {operator} something")),
    };
    let mut paths: Vec<String> = Vec::new();
    for glob in &globs {
        let path = path_of(glob);
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let of_query = || Expr::OfQuery(format!("{text:?} may be about the query"));
    if paths.iter().any(|path| path == "*" || path == "(?i)*") {
        return of_query();
    }
    // Those that say an end both with and without a query come out once.
    let is_exact = is_exact && paths == globs;
    let is_end = !text.starts_with('^') || globs.iter().any(|glob| !glob.ends_with('*'));
    let is = Expr::Is(vec![Condition {
        paths,
        is_exact,
        is_wide: !is_exact || (is_end && !is_of_path),
        ..Condition::default()
    }]);
    if may_be_of_query { Expr::Any(vec![is, of_query()]) } else { is }
}

fn path_of(glob: &str) -> String {
    path_pattern(without_query(glob))
}

/// How expressions for URLs say that a path ends, whether a query follows or not.
const QUERY_ENDS: [&str; 8] =
    ["(\\?.*|)$", "(|\\?.*)$", "(\\?.*)?$", "(?:\\?.*)?$", "(\\?.+)?$", "(\\?|$)", "($|\\?)", "($|\\?.*)"];
