//! Expressions of Cloudflare's rules, as conditions of ours: a list of which one has to hold.
//!
//! Read: `and`, `or`, `&&`, `||`, `not`, parentheses; `eq`, `ne`, `in`, `contains`, `matches`, `wildcard`, `strict wildcard`,
//! `starts_with()`, `ends_with()`, `lower()`; host, path, URI, full URI, extension, method, `ssl`, cookies, User-Agent, Referer and
//! named request headers. Not read: addresses, countries, the query, scores of bots.

use crate::draft::{Keys, dotted, quote, quote_list};
use crate::ledger::Id;
use crate::pattern::patterns;

/// Ways in which an expression may hold, at most.
const WAYS_MAX: usize = 64;

/// What must hold, all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Condition {
    pub(super) paths: Vec<String>,
    pub(super) hosts: Vec<String>,
    methods: Vec<String>,
    scheme: Option<&'static str>,
    lines: Vec<(String, String)>,
    /// Whether it says just what the expression does.
    pub(super) is_exact: bool,
}

impl Condition {
    pub(super) fn keys(&self, from: &[Id]) -> Keys {
        let mut keys = Keys::default();
        for (key, values) in [("path", &self.paths), ("hosts", &self.hosts), ("methods", &self.methods)] {
            if !values.is_empty() {
                keys.set(key, quote_list(values), from);
            }
        }
        if let Some(scheme) = self.scheme {
            keys.set("scheme", quote(scheme), from);
        }
        self.lines.iter().for_each(|(key, value)| keys.set(key, value, from));
        keys
    }

    /// Whether it holds for every request.
    pub(super) fn is_always(&self) -> bool {
        *self == Condition { is_exact: true, ..Condition::default() }
    }

    /// Both together, where that can be said.
    fn and(&self, other: &Condition) -> Option<Condition> {
        let both = |one: &[String], other: &[String]| -> Option<Vec<String>> {
            match (one, other) {
                ([], only) | (only, []) => Some(only.to_vec()),
                (one, other) => {
                    let glob = model::glob::Glob::new;
                    let mut common: Vec<String> = Vec::new();
                    for a in one {
                        for b in other {
                            let (of_a, of_b) = (glob(a), glob(b));
                            match () {
                                () if of_a.covers(&of_b) => common.push(b.clone()),
                                () if of_b.covers(&of_a) => common.push(a.clone()),
                                // A beginning and an end.
                                () => match (a.strip_suffix('*'), b.strip_prefix('*')) {
                                    (Some(begin), Some(end)) if !begin.contains('*') => {
                                        common.push(format!("{begin}*{end}"))
                                    }
                                    _ => match (b.strip_suffix('*'), a.strip_prefix('*')) {
                                        (Some(begin), Some(end)) if !begin.contains('*') => {
                                            common.push(format!("{begin}*{end}"))
                                        }
                                        _ => {}
                                    },
                                },
                            }
                        }
                    }
                    common.dedup();
                    (!common.is_empty()).then_some(common)
                }
            }
        };
        let mut lines = self.lines.clone();
        for (key, value) in &other.lines {
            // A header has one pattern.
            if lines.iter().any(|(known, other)| known == key && other != value) {
                return None;
            }
            lines.push((key.clone(), value.clone()));
        }
        Some(Condition {
            paths: both(&self.paths, &other.paths)?,
            hosts: both(&self.hosts, &other.hosts)?,
            methods: both(&self.methods, &other.methods)?,
            scheme: self.scheme.or(other.scheme),
            lines,
            is_exact: self.is_exact && other.is_exact,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
}

/// Reads an expression. The error says what is not understood, as the end of a sentence.
pub(super) fn read(expression: &str) -> Result<Vec<Condition>, String> {
    let tokens = tokens(expression)?;
    let mut reader = Reader { tokens, at: 0, depth: 0 };
    let ways = reader.any()?;
    match reader.peek() {
        None => Ok(ways),
        Some(token) => Err(format!("{token:?} is not understood there")),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            next if next.is_whitespace() => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '{' => tokens.push(Token::OpenList),
            '}' => tokens.push(Token::CloseList),
            ',' => tokens.push(Token::Comma),
            '"' => {
                let mut word = String::new();
                loop {
                    match rest.next() {
                        Some('\\') => word.extend(rest.next()),
                        Some('"') => break,
                        Some(next) => word.push(next),
                        None => return Err("its text has no end".into()),
                    }
                }
                tokens.push(Token::Text(word));
            }
            // r"…" is a text without escapes.
            'r' if rest.peek() == Some(&'"') => {
                rest.next();
                let mut word = String::new();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some(next) => word.push(next),
                        None => return Err("its text has no end".into()),
                    }
                }
                tokens.push(Token::Text(word));
            }
            next => {
                let mut word = next.to_string();
                while let Some(next) = rest.next_if(|next| !next.is_whitespace() && !"(){},".contains(*next))
                {
                    word.push(next);
                    if next == '[' {
                        // A name within brackets is part of the word.
                        for next in rest.by_ref() {
                            word.push(next);
                            if next == ']' {
                                break;
                            }
                        }
                    }
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn word(&self) -> &str {
        match self.peek() {
            Some(Token::Word(word)) => word,
            _ => "",
        }
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let is_there = words.contains(&self.word());
        self.at += usize::from(is_there);
        is_there
    }

    fn any(&mut self) -> Result<Vec<Condition>, String> {
        const DEPTH_MAX: usize = 16;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("its parentheses lie too deep".into());
        }
        let mut ways = self.all()?;
        while self.take(&["or", "||"]) {
            ways.extend(self.all()?);
            if ways.len() > WAYS_MAX {
                return Err(format!("there are more than {WAYS_MAX} ways in which it holds"));
            }
        }
        self.depth -= 1;
        Ok(ways)
    }

    fn all(&mut self) -> Result<Vec<Condition>, String> {
        let mut ways = self.one()?;
        while self.take(&["and", "&&"]) {
            let more = self.one()?;
            if ways.len() * more.len() > WAYS_MAX {
                return Err(format!("there are more than {WAYS_MAX} ways in which it holds"));
            }
            let mut both = Vec::new();
            for one in &ways {
                for other in &more {
                    let Some(joined) = one.and(other) else {
                        return Err("two of its conditions on the same thing have no common pattern".into());
                    };
                    both.push(joined);
                }
            }
            ways = both;
        }
        Ok(ways)
    }

    fn one(&mut self) -> Result<Vec<Condition>, String> {
        if self.take(&["not", "!"]) {
            if self.take(&["ssl"]) {
                return Ok(vec![Condition { scheme: Some("http"), is_exact: true, ..Condition::default() }]);
            }
            return Err("\"not\" has no word in rules: write the cases that are meant".into());
        }
        match self.next() {
            Some(Token::Open) => {
                let ways = self.any()?;
                match self.next() {
                    Some(Token::Close) => Ok(ways),
                    _ => Err("a parenthesis is not closed".into()),
                }
            }
            Some(Token::Word(word)) => self.test(&word),
            _ => Err("it ends too early".into()),
        }
    }

    fn test(&mut self, word: &str) -> Result<Vec<Condition>, String> {
        let of = |condition| Ok(vec![condition]);
        match word {
            "true" => return of(Condition { is_exact: true, ..Condition::default() }),
            "ssl" => return of(Condition { scheme: Some("https"), is_exact: true, ..Condition::default() }),
            "starts_with" | "ends_with" => {
                let (field, text) = self.arguments()?;
                let glob = if word == "starts_with" { format!("{text}*") } else { format!("*{text}") };
                return compare(&field, vec![glob], true);
            }
            _ => {}
        }
        let mut is_exact = true;
        let field = match word {
            "lower" | "upper" => {
                is_exact = false;
                match (self.next(), self.next(), self.next()) {
                    (Some(Token::Open), Some(Token::Word(field)), Some(Token::Close)) => field,
                    _ => return Err(format!("{word}(…) is not understood")),
                }
            }
            "any" => {
                let (Some(Token::Open), Some(Token::Word(field))) = (self.next(), self.next()) else {
                    return Err("any(…) is not understood".into());
                };
                let found = self.operator(&field, true)?;
                return match self.next() {
                    Some(Token::Close) => Ok(found),
                    _ => Err("any(…) is not understood".into()),
                };
            }
            field => field.to_owned(),
        };
        self.operator(&field, is_exact)
    }

    fn arguments(&mut self) -> Result<(String, String), String> {
        let open = self.next();
        let field = match self.next() {
            Some(Token::Word(word)) if word == "lower" => {
                let inner = (self.next(), self.next(), self.next());
                match inner {
                    (_, Some(Token::Word(field)), _) => Some(field),
                    _ => None,
                }
            }
            Some(Token::Word(field)) => Some(field),
            _ => None,
        };
        match (open, field, self.next(), self.next(), self.next()) {
            (
                Some(Token::Open),
                Some(field),
                Some(Token::Comma),
                Some(Token::Text(text)),
                Some(Token::Close),
            ) => Ok((field, text)),
            _ => Err("its arguments are not understood".into()),
        }
    }

    fn operator(&mut self, field: &str, is_exact: bool) -> Result<Vec<Condition>, String> {
        let mut operator = match self.next() {
            Some(Token::Word(word)) => word,
            _ => return Err(format!("{field} stands alone")),
        };
        if operator == "strict" {
            operator = match self.next() {
                Some(Token::Word(word)) => word,
                _ => return Err("\"strict\" stands alone".into()),
            };
        }
        if operator == "in" {
            if self.next() != Some(Token::OpenList) {
                return Err("named lists are not part of this text".into());
            }
            let mut texts = Vec::new();
            loop {
                match self.next() {
                    Some(Token::Text(text)) => texts.push(text),
                    Some(Token::Comma) => {}
                    Some(Token::CloseList) => return compare(field, texts, is_exact),
                    _ => return Err(format!("the list behind {field} is not understood")),
                }
            }
        }
        let text = match self.next() {
            Some(Token::Text(text)) => text,
            _ => return Err(format!("what {field} is compared with is not understood")),
        };
        match &*operator {
            "eq" | "==" => compare(field, vec![text], is_exact),
            "contains" => compare(field, vec![format!("*{text}*")], is_exact),
            "wildcard" => compare(field, vec![text], is_exact),
            "matches" | "~" => {
                let found = patterns(&text, false)
                    .ok_or_else(|| format!("{text:?} cannot be said by patterns with \"*\""))?;
                compare(field, found.globs, is_exact && found.is_exact)
            }
            "ne" | "!=" => Err("\"ne\" has no word in rules: write the cases that are meant".into()),
            other => Err(format!("{other:?} is not understood")),
        }
    }
}

/// The condition that a field matches one of some patterns.
fn compare(field: &str, globs: Vec<String>, is_exact: bool) -> Result<Vec<Condition>, String> {
    let of =
        |condition: Condition| Ok(vec![Condition { is_exact: condition.is_exact && is_exact, ..condition }]);
    let exact = Condition { is_exact: true, ..Condition::default() };
    match field {
        "http.host" => of(Condition { hosts: globs, ..exact }),
        "http.request.uri.path" | "raw.http.request.uri.path" => of(Condition { paths: globs, ..exact }),
        "http.request.uri" | "raw.http.request.uri" => {
            let bare: Vec<String> =
                globs.iter().map(|glob| glob.split('?').next().unwrap_or_default().to_owned()).collect();
            of(Condition { is_exact: bare == globs, paths: bare, ..exact })
        }
        "http.request.uri.path.extension" => {
            of(Condition { paths: globs.iter().map(|extension| format!("*.{extension}")).collect(), ..exact })
        }
        "http.request.full_uri" => globs
            .iter()
            .map(|glob| of_url(glob))
            .map(|found| found.map(|one| Condition { is_exact: one.is_exact && is_exact, ..one }))
            .collect(),
        "http.request.method" => of(Condition { methods: globs, ..exact }),
        "http.cookie" => headers("Cookie", globs, is_exact),
        "http.user_agent" => headers("User-Agent", globs, is_exact),
        "http.referer" => headers("Referer", globs, is_exact),
        field => {
            let name = field.strip_prefix("http.request.headers[\"").and_then(|rest| rest.split('"').next());
            match name {
                Some(name) => headers(name, globs, is_exact),
                None => Err(format!("rules have no condition on {field}")),
            }
        }
    }
}

fn headers(name: &str, globs: Vec<String>, is_exact: bool) -> Result<Vec<Condition>, String> {
    let of = |glob: String| Condition {
        lines: vec![(dotted("with_header", name), quote(&glob))],
        is_exact,
        ..Condition::default()
    };
    Ok(globs.into_iter().map(of).collect())
}

/// A pattern of whole URLs, as page rules have: scheme (or none), host, path.
pub(super) fn of_url(pattern: &str) -> Result<Condition, String> {
    let (scheme, rest) = match pattern.split_once("://") {
        Some(("http", rest)) => (Some("http"), rest),
        Some(("https", rest)) => (Some("https"), rest),
        Some((other, rest)) if other.ends_with('*') => (None, rest),
        Some((other, _)) => return Err(format!("{other:?} is no scheme")),
        None => (None, pattern),
    };
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        // A star that ends the host stands for the path too.
        None => (rest, if rest.ends_with('*') { "" } else { "/" }),
    };
    let bare = path.split('?').next().unwrap_or_default();
    let any_path = bare.is_empty() || bare == "/*";
    Ok(Condition {
        scheme,
        hosts: if host == "*" || host.is_empty() { Vec::new() } else { vec![host.to_ascii_lowercase()] },
        paths: if any_path { Vec::new() } else { vec![bare.to_owned()] },
        is_exact: bare == path,
        ..Condition::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_become_conditions_or_say_why_not() {
        let check = |expression: &str, wanted: &[(&[&str], &[&str])]| {
            let found = read(expression).unwrap_or_else(|why| panic!("{expression}: {why}"));
            let found: Vec<(Vec<&str>, Vec<&str>)> = found
                .iter()
                .map(|one| {
                    (
                        one.hosts.iter().map(|text| &**text).collect(),
                        one.paths.iter().map(|text| &**text).collect(),
                    )
                })
                .collect();
            let wanted: Vec<(Vec<&str>, Vec<&str>)> =
                wanted.iter().map(|(hosts, paths)| (hosts.to_vec(), paths.to_vec())).collect();
            assert_eq!(found, wanted, "{expression}");
        };
        check("true", &[(&[], &[])]);
        check(
            r#"(http.host eq "a.example" and starts_with(http.request.uri.path, "/x/"))"#,
            &[(&["a.example"], &["/x/*"])],
        );
        check(r#"http.request.uri.path.extension in {"css" "js"}"#, &[(&[], &["*.css", "*.js"])]);
        check(
            r#"(http.request.uri.path contains "/img/") or (http.request.uri.path eq "/")"#,
            &[(&[], &["*/img/*"]), (&[], &["/"])],
        );
        check(r#"http.request.full_uri wildcard "https://a.example/x/*""#, &[(&["a.example"], &["/x/*"])]);
        check(
            r#"starts_with(http.request.uri.path, "/a/") and ends_with(http.request.uri.path, ".js")"#,
            &[(&[], &["/a/*.js"])],
        );
        for (expression, why) in [
            (r#"ip.src eq "192.0.2.1""#, "no condition on ip.src"),
            (r#"not http.host eq "a""#, "\"not\" has no word"),
            (r#"http.host eq"#, "not understood"),
            ("(true", "not closed"),
            (r#"http.host in $list"#, "named lists"),
            ("", "too early"),
        ] {
            let found = read(expression).unwrap_err();
            assert!(found.contains(why), "{expression}: {found}");
        }
    }
}
