//! Expressions of Cloudflare's rules, as conditions of ours: a list of which one has to hold.
//!
//! Read: `and`, `or`, `&&`, `||`, `not`, parentheses; `eq`, `ne`, `in`, `contains`, `matches`, `wildcard`, `strict wildcard`,
//! `starts_with()`, `ends_with()`, `lower()`; host, path, URI, full URI, extension, method, `ssl`, cookies, User-Agent, Referer and
//! named request headers. Not read: addresses, countries, the query, scores of bots.

use crate::condition::Condition;
use crate::draft::{dotted, path_pattern, quote, without_query};
use crate::pattern::{covering, patterns};
use model::glob::IGNORES_CASE;

/// Ways in which an expression may hold, at most.
const WAYS_MAX: usize = 64;

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
    read_as(expression, Aim::Equal)
}

/// Conditions of which one holds wherever the expression does, and perhaps elsewhere: what is not understood is taken to hold.
pub(super) fn read_wide(expression: &str) -> Vec<Condition> {
    let wide = |condition| Condition { is_exact: false, is_wide: true, ..condition };
    let ways = read_as(expression, Aim::Cover).unwrap_or_else(|_| vec![Condition::default()]);
    ways.into_iter().map(wide).collect()
}

/// What becomes of parts that no condition says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// Nothing comes of the whole.
    Equal,
    /// They are taken to hold.
    Cover,
}

fn read_as(expression: &str, aim: Aim) -> Result<Vec<Condition>, String> {
    let tokens = tokens(expression)?;
    let mut reader = Reader { tokens, aim, at: 0, depth: 0 };
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
    aim: Aim,
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
                both.extend(more.iter().filter_map(|other| one.and(other)));
            }
            if both.is_empty() {
                return Err("its conditions never hold together".into());
            }
            ways = both;
        }
        Ok(ways)
    }

    fn one(&mut self) -> Result<Vec<Condition>, String> {
        if self.take(&["not", "!"]) {
            if self.take(&["ssl"]) {
                return Ok(vec![Condition { scheme: Some("http"), ..Condition::default() }]);
            }
            let begin = self.at;
            self.skip_one(begin)?;
            return self.no_word("\"not\" has no word in rules: write the cases that are meant".into());
        }
        let begin = self.at;
        match self.next() {
            Some(Token::Open) => {
                let ways = self.any()?;
                match self.next() {
                    Some(Token::Close) => Ok(ways),
                    _ => Err("a parenthesis is not closed".into()),
                }
            }
            Some(Token::Word(word)) => match self.test(&word) {
                Err(why) if self.aim == Aim::Cover => {
                    self.skip_one(begin)?;
                    self.no_word(why)
                }
                found => found,
            },
            _ => Err("it ends too early".into()),
        }
    }

    /// What is not understood: anything, where the aim is to cover.
    fn no_word(&self, why: String) -> Result<Vec<Condition>, String> {
        match self.aim {
            Aim::Cover => Ok(vec![Condition::default()]),
            Aim::Equal => Err(why),
        }
    }

    /// Passes over one part of `and` and `or`.
    fn skip_one(&mut self, begin: usize) -> Result<(), String> {
        self.at = begin;
        let mut open = 0_usize;
        loop {
            match self.peek() {
                None if self.at > begin && open == 0 => return Ok(()),
                None => return Err("it ends too early".into()),
                Some(Token::Close | Token::CloseList) if open == 0 => return Ok(()),
                Some(Token::Word(word)) if open == 0 && matches!(&**word, "and" | "or" | "&&" | "||") => {
                    return Ok(());
                }
                Some(Token::Open | Token::OpenList) => open += 1,
                Some(Token::Close | Token::CloseList) => open -= 1,
                Some(_) => {}
            }
            self.at += 1;
        }
    }

    fn test(&mut self, word: &str) -> Result<Vec<Condition>, String> {
        let of = |condition| Ok(vec![condition]);
        match word {
            "true" => return of(Condition::default()),
            "ssl" => return of(Condition { scheme: Some("https"), ..Condition::default() }),
            "starts_with" | "ends_with" => {
                let (field, text, folds) = self.arguments()?;
                let glob = if word == "starts_with" { format!("{text}*") } else { format!("*{text}") };
                return compare(&field, vec![if folds { ignoring_case(&glob) } else { glob }], true);
            }
            _ => {}
        }
        let mut folds = false;
        let field = match word {
            "lower" | "upper" => {
                folds = true;
                match (self.next(), self.next(), self.next()) {
                    (Some(Token::Open), Some(Token::Word(field)), Some(Token::Close)) => field,
                    _ => return Err(format!("{word}(…) is not understood")),
                }
            }
            "any" => {
                let (Some(Token::Open), Some(Token::Word(field))) = (self.next(), self.next()) else {
                    return Err("any(…) is not understood".into());
                };
                let found = self.operator(&field, false)?;
                return match self.next() {
                    Some(Token::Close) => Ok(found),
                    _ => Err("any(…) is not understood".into()),
                };
            }
            field => field.to_owned(),
        };
        self.operator(&field, folds)
    }

    /// The field and the text, and whether letter case is ignored.
    fn arguments(&mut self) -> Result<(String, String, bool), String> {
        let open = self.next();
        let folds = self.word() == "lower";
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
            ) => Ok((field, text, folds)),
            _ => Err("its arguments are not understood".into()),
        }
    }

    /// `folds`: letter case is ignored.
    fn operator(&mut self, field: &str, folds: bool) -> Result<Vec<Condition>, String> {
        let of_text = |text: &String| if folds { ignoring_case(text) } else { text.clone() };
        let mut operator = match self.next() {
            Some(Token::Word(word)) => word,
            _ => return Err(format!("{field} stands alone")),
        };
        let is_strict = operator == "strict";
        if is_strict {
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
                    Some(Token::CloseList) => {
                        return compare(field, texts.iter().map(of_text).collect(), true);
                    }
                    _ => return Err(format!("the list behind {field} is not understood")),
                }
            }
        }
        let text = match self.next() {
            Some(Token::Text(text)) => text,
            _ => return Err(format!("what {field} is compared with is not understood")),
        };
        match &*operator {
            "eq" | "==" => compare(field, vec![of_text(&text)], true),
            "contains" => compare(field, vec![of_text(&format!("*{text}*"))], true),
            "wildcard" if !is_strict => compare(field, vec![ignoring_case(&text)], true),
            "wildcard" => compare(field, vec![of_text(&text)], true),
            "matches" | "~" => match patterns(&text, folds) {
                Some(found) => compare(field, found.globs, found.is_exact),
                None if self.aim == Aim::Cover => compare(field, covering(&text, folds), false),
                None => Err(format!("{text:?} cannot be said by patterns with \"*\"")),
            },
            "ne" | "!=" => Err("\"ne\" has no word in rules: write the cases that are meant".into()),
            other => Err(format!("{other:?} is not understood")),
        }
    }
}

/// The condition that a field matches one of some patterns.
fn compare(field: &str, globs: Vec<String>, is_exact: bool) -> Result<Vec<Condition>, String> {
    let of = |condition: Condition| Ok(vec![held(condition, is_exact)]);
    let exact = Condition::default();
    match field {
        "http.host" => {
            let host = |glob: &String| glob.strip_prefix(IGNORES_CASE).unwrap_or(glob).to_ascii_lowercase();
            of(Condition { hosts: globs.iter().map(host).collect(), ..exact })
        }
        "http.request.uri.path" | "raw.http.request.uri.path" => {
            of(Condition { paths: globs.iter().map(|glob| path_pattern(glob)).collect(), ..exact })
        }
        "http.request.uri" | "raw.http.request.uri" => {
            let is_whole = globs.iter().all(|glob| without_query(glob) == glob && !glob.contains('*'));
            let paths = globs.iter().map(|glob| path_pattern(without_query(glob))).collect();
            let bare = globs.iter().all(|glob| without_query(glob) == glob);
            // What has a star may be about the query.
            of(Condition { is_exact: bare, is_wide: !is_whole, paths, ..exact })
        }
        "http.request.uri.path.extension" => of(Condition {
            paths: globs
                .iter()
                .map(|extension| path_pattern(&format!("{IGNORES_CASE}*.{extension}")))
                .collect(),
            ..exact
        }),
        "http.request.full_uri" => globs
            .iter()
            .map(|glob| {
                // Cases count in no host.
                let bare = glob.strip_prefix(IGNORES_CASE);
                let mut found = of_url(bare.unwrap_or(glob))?;
                if bare.is_some() {
                    found.paths.iter_mut().for_each(|path| *path = ignoring_case(path));
                }
                Ok(found)
            })
            .map(|found| found.map(|one| held(one, is_exact)))
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

fn ignoring_case(pattern: &str) -> String {
    let has_letters = pattern.bytes().any(|byte| byte.is_ascii_alphabetic());
    if has_letters && !pattern.starts_with(IGNORES_CASE) {
        format!("{IGNORES_CASE}{pattern}")
    } else {
        pattern.to_owned()
    }
}

/// A condition that says the same or not; if not, it holds for more.
fn held(condition: Condition, is_exact: bool) -> Condition {
    let is_exact = condition.is_exact && is_exact;
    Condition { is_exact, is_wide: condition.is_wide || !is_exact, ..condition }
}

fn headers(name: &str, globs: Vec<String>, is_exact: bool) -> Result<Vec<Condition>, String> {
    let of = |glob: String| Condition {
        lines: vec![(dotted("with_header", name), quote(&glob))],
        is_exact,
        is_wide: !is_exact,
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
        is_wide: bare != path,
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
        check(r#"http.request.uri.path.extension in {"css" "js"}"#, &[(&[], &["(?i)*.css", "(?i)*.js"])]);
        check(
            r#"(http.request.uri.path contains "/img/") or (http.request.uri.path eq "/")"#,
            &[(&[], &["*/img/*"]), (&[], &["/"])],
        );
        check(
            r#"http.request.full_uri wildcard "https://a.example/x/*""#,
            &[(&["a.example"], &["(?i)/x/*"])],
        );
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
