//! Conditions of VCL, as conditions of a rule.
//!
//! Read: `&&`, `||`, `!`, parentheses; `==`, `!=`, `~`, `!~` and a name alone, for URL, method, host and other request headers, and `bereq`
//! alike. What else is asked (addresses, statuses, what the response says) is [`Expr::Unsure`]: it may hold and may not.

use super::Token;
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
}

/// Reads what stands in the parentheses.
pub(super) fn read(tokens: &[Token]) -> Expr {
    let mut reader = Reader { tokens, at: 0, depth: 0 };
    match reader.any() {
        Ok(expr) if reader.at == tokens.len() => expr,
        Ok(_) => Expr::Unsure("it is not understood".into()),
        Err(why) => Expr::Unsure(why),
    }
}

struct Reader<'t> {
    tokens: &'t [Token],
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
            (None, _) => alone(name),
            (Some(operator), Some(text)) => match operator.strip_prefix('!') {
                Some(rest) => {
                    Expr::Not(Box::new(compare(name, if rest == "=" { "==" } else { rest }, &text)))
                }
                None => compare(name, operator, &text),
            },
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

fn is_of_response(name: &str) -> bool {
    ["beresp.", "resp.", "obj."].iter().any(|of| name.starts_with(of))
}

/// A name by itself: whether there is such a field.
fn alone(name: &str) -> Expr {
    match name.to_ascii_lowercase().split_once(".http.") {
        Some(("req" | "bereq", _)) => {
            let header = name.split_once(".http.").map_or("", |(_, header)| header);
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
        ("beresp.status", "==" | ">=", text) if text.parse::<u16>().is_ok_and(|status| status >= 400) => {
            return Expr::OfErrors;
        }
        ("req.restarts", "==", "0") => return Expr::Is(vec![Condition::default()]),
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
                let header = name.split_once(".http.").map_or("", |(_, header)| header);
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
    let is_end = !text.starts_with('^') || text.ends_with('$') || operator == "==";
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
