//! Regular expressions as patterns with `*`, as far as that goes: literals, alternatives, optional parts, and runs of anything.
//!
//! What has no equal becomes `*` and is called inexact: it matches more. What cannot be said even so (look-around, back references)
//! gives nothing, but where something is guarded: [`covering`] then gives patterns that surely match all that the expression does.
//! Called for locations of nginx, conditions of VCL and of Cloudflare.

use model::glob::IGNORES_CASE;

/// Patterns that an expression may become, at most.
const PATTERNS_MAX: usize = 64;

/// What an expression became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patterns {
    /// Patterns of which one has to match.
    pub(crate) globs: Vec<String>,
    /// Which group of the expression each `*` of the pattern stands for; only where there is one pattern.
    pub(crate) groups: Vec<Option<usize>>,
    /// Whether they match just what the expression does.
    pub(crate) is_exact: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Star(Option<usize>),
    /// `$` within a group: nothing comes behind it.
    End,
}

/// One way to match.
type Way = Vec<Piece>;

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    aim: Aim,
    is_exact: bool,
    ignores_case: bool,
    groups: usize,
    depth: usize,
}

/// What becomes of parts that no pattern says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Nothing comes of the whole expression.
    Equal,
    /// They are taken for anything, so that the patterns match more and never less.
    Cover,
}

/// The patterns for an expression that may match anywhere in a text. `ignores_case`: as `~*` and `(?i)`.
pub(crate) fn patterns(expression: &str, ignores_case: bool) -> Option<Patterns> {
    read(expression, ignores_case, Aim::Equal)
}

/// Patterns that match whatever the expression does, and perhaps more; `*` where nothing is known.
pub(crate) fn covering(expression: &str, ignores_case: bool) -> Vec<String> {
    read(expression, ignores_case, Aim::Cover).map_or_else(|| vec!["*".to_owned()], |found| found.globs)
}

fn read(expression: &str, ignores_case: bool, aim: Aim) -> Option<Patterns> {
    let (expression, ignores_case) = match expression.strip_prefix(IGNORES_CASE) {
        Some(rest) => (rest, true),
        None => (expression, ignores_case),
    };
    let mut reader = Reader {
        rest: expression.chars().peekable(),
        aim,
        is_exact: true,
        ignores_case,
        groups: 0,
        depth: 0,
    };
    let ways = reader.alternatives(true)?;
    if reader.rest.next().is_some() {
        return None;
    }
    let mut globs: Vec<String> = Vec::new();
    let mut groups = Vec::new();
    for way in &ways {
        let (mut glob, stars) = write(way);
        if reader.ignores_case && glob.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            glob = format!("{IGNORES_CASE}{}", glob.to_lowercase());
        }
        if !globs.contains(&glob) {
            globs.push(glob);
        }
        groups = stars;
    }
    if ways.len() > 1 {
        groups.clear();
    }
    Some(Patterns { globs, groups, is_exact: reader.is_exact })
}

fn write(way: &Way) -> (String, Vec<Option<usize>>) {
    let (mut glob, mut groups) = (String::new(), Vec::new());
    for piece in way {
        match piece {
            Piece::Text(text) => glob.push_str(text),
            Piece::Star(group) if glob.ends_with('*') => {
                if let Some(last) = groups.last_mut() {
                    *last = group.or(*last);
                }
            }
            Piece::Star(group) => {
                glob.push('*');
                groups.push(*group);
            }
            Piece::End => {}
        }
    }
    (glob, groups)
}

fn joined(left: &[Way], right: &[Way]) -> Vec<Way> {
    left.iter().flat_map(|one| right.iter().map(|other| [&one[..], &other[..]].concat())).collect()
}

fn star() -> Vec<Way> {
    vec![vec![Piece::Star(None)]]
}

/// A way up to where it says that the text ends; nothing where that is not the end.
fn ended(mut way: Way) -> Option<Way> {
    let Some(end) = way.iter().position(|piece| *piece == Piece::End) else { return Some(way) };
    let can_be_empty = |piece: &Piece| !matches!(piece, Piece::Text(_));
    let is_last = way[end..].iter().all(can_be_empty);
    way.truncate(end);
    is_last.then_some(way)
}

/// What matches where the text itself does not go on.
fn nothing() -> Vec<Way> {
    vec![Vec::new()]
}

impl Reader<'_> {
    /// `a|b|c`; at the top each is anchored by itself.
    fn alternatives(&mut self, is_top: bool) -> Option<Vec<Way>> {
        const DEPTH_MAX: usize = 16;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let mut ways = Vec::new();
        loop {
            ways.extend(self.sequence(is_top)?);
            if ways.len() > PATTERNS_MAX {
                self.give_up()?;
                ways = star();
            }
            if self.rest.next_if_eq(&'|').is_none() {
                self.depth -= 1;
                return Some(ways);
            }
        }
    }

    fn sequence(&mut self, is_top: bool) -> Option<Vec<Way>> {
        let mut ways: Vec<Way> = vec![Vec::new()];
        if is_top && self.rest.next_if_eq(&'^').is_none() {
            ways = vec![vec![Piece::Star(None)]];
        }
        let mut is_open = is_top;
        while let Some(&next) = self.rest.peek() {
            match next {
                '|' | ')' => break,
                '$' if is_top => {
                    self.rest.next();
                    is_open = false;
                    if self.rest.peek().is_some_and(|next| *next != '|') {
                        self.give_up()?;
                        is_open = true;
                    }
                }
                _ => {
                    let atom = self.atom()?;
                    let mut atom = self.repeated(atom)?;
                    if ways.len() * atom.len() > PATTERNS_MAX {
                        self.give_up()?;
                        atom = star();
                    }
                    ways = joined(&ways, &atom);
                }
            }
        }
        if is_open {
            ways.iter_mut().for_each(|way| way.push(Piece::Star(None)));
        }
        if is_top {
            ways = ways.into_iter().filter_map(ended).collect();
        }
        Some(ways)
    }

    /// Nothing, unless the aim is to cover.
    fn give_up(&mut self) -> Option<()> {
        self.is_exact = false;
        (self.aim == Aim::Cover).then_some(())
    }

    /// One character, class or group.
    fn atom(&mut self) -> Option<Vec<Way>> {
        let text = |c: char| vec![vec![Piece::Text(c.to_string())]];
        match self.rest.next()? {
            '.' => {
                // Followed by "*" it is exactly a star; by itself it is one character.
                if self.rest.peek() != Some(&'*') {
                    self.is_exact = false;
                }
                Some(star())
            }
            '[' => self.class(),
            '(' => self.group(),
            '\\' => match self.rest.next()? {
                'd' | 'w' | 's' | 'S' | 'D' | 'W' => {
                    self.is_exact = false;
                    Some(star())
                }
                c if c.is_ascii_alphanumeric() => {
                    self.give_up()?;
                    match c {
                        // Places between characters.
                        'b' | 'B' | 'A' | 'z' | 'Z' | 'G' => Some(nothing()),
                        'n' | 'r' | 't' | 'f' | 'e' | 'a' | 'h' | 'H' | 'v' | 'V' | 'R' | 'N' | 'X' => {
                            Some(star())
                        }
                        // A back reference; what else has digits behind it is not read.
                        '1'..='9' => {
                            while self.rest.next_if(char::is_ascii_digit).is_some() {}
                            Some(star())
                        }
                        _ => None,
                    }
                }
                c => Some(text(c)),
            },
            '$' => Some(vec![vec![Piece::End]]),
            '^' => {
                self.give_up()?;
                Some(nothing())
            }
            '*' | '+' | '?' | '{' => None,
            c => Some(text(c)),
        }
    }

    fn class(&mut self) -> Option<Vec<Way>> {
        let mut members = Vec::new();
        let mut is_plain = self.rest.next_if_eq(&'^').is_none();
        let mut is_first = true;
        loop {
            match self.rest.next()? {
                ']' if !is_first => break,
                // [:alpha:] and its like.
                '[' if self.rest.peek() == Some(&':') => {
                    is_plain = false;
                    while self.rest.next()? != ']' {}
                }
                '\\' => {
                    let escaped = self.rest.next()?;
                    is_plain &= !escaped.is_ascii_alphanumeric();
                    members.push(escaped);
                }
                '-' if !is_first && self.rest.peek().is_some_and(|next| *next != ']') => is_plain = false,
                c => members.push(c),
            }
            is_first = false;
        }
        const MEMBERS_MAX: usize = 6;
        if is_plain && members.len() <= MEMBERS_MAX && !self.is_repeated() {
            return Some(members.into_iter().map(|c| vec![Piece::Text(c.to_string())]).collect());
        }
        self.is_exact = false;
        Some(star())
    }

    fn is_repeated(&mut self) -> bool {
        matches!(self.rest.peek(), Some('*' | '+' | '{'))
    }

    fn group(&mut self) -> Option<Vec<Way>> {
        let mut number = None;
        let mut is_looking = false;
        if self.rest.next_if_eq(&'?').is_some() {
            match self.rest.next()? {
                ':' => {}
                '<' | 'P' => {
                    // A named group counts as a group too; a look-behind is none.
                    self.rest.next_if_eq(&'<');
                    match self.rest.next_if(|next| matches!(next, '=' | '!' | '>')) {
                        None => {
                            self.groups += 1;
                            while self.rest.next()? != '>' {}
                        }
                        Some('>') => return None,
                        Some(_) => is_looking = true,
                    }
                }
                '=' | '!' => is_looking = true,
                '>' => self.give_up()?,
                'i' => {
                    self.give_up()?;
                    self.ignores_case = true;
                    match self.rest.next()? {
                        ':' => {}
                        ')' => return Some(nothing()),
                        _ => return None,
                    }
                }
                _ => return None,
            }
        } else {
            self.groups += 1;
            number = Some(self.groups);
        }
        if is_looking {
            // Looking around says only less of what matches.
            self.give_up()?;
        }
        let mut ways = self.alternatives(false)?;
        self.rest.next_if_eq(&')')?;
        if is_looking {
            return Some(nothing());
        }
        if let [way] = &mut ways[..]
            && let [Piece::Star(group)] = &mut way[..]
        {
            *group = number;
        }
        Some(ways)
    }

    /// What stands behind an atom: `*`, `+`, `?`, `{2,3}`, each also lazy.
    fn repeated(&mut self, atom: Vec<Way>) -> Option<Vec<Way>> {
        let is_star = atom == star();
        let repeated = match self.rest.peek() {
            Some('*') => {
                self.rest.next();
                self.is_exact &= is_star;
                star()
            }
            Some('+') => {
                self.rest.next();
                self.is_exact = false;
                star()
            }
            Some('?') => {
                self.rest.next();
                let mut ways = vec![Vec::new()];
                ways.extend(atom);
                ways
            }
            Some('{') => {
                while self.rest.next()? != '}' {}
                self.is_exact = false;
                star()
            }
            _ => return Some(atom),
        };
        self.rest.next_if(|next| matches!(next, '?' | '+'));
        Some(repeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_become_patterns_as_far_as_that_goes() {
        let check = |expression: &str, wanted: &[&str], is_exact: bool| {
            let found = patterns(expression, false).unwrap_or_else(|| panic!("{expression}"));
            assert_eq!(
                (found.globs, found.is_exact),
                (wanted.iter().map(|glob| (*glob).to_owned()).collect(), is_exact)
            );
        };
        check(r"\.(jpg|png)$", &["*.jpg", "*.png"], true);
        check(r"\.jpe?g$", &["*.jpg", "*.jpeg"], true);
        check(r"^/(a|b)/", &["/a/*", "/b/*"], true);
        check(r"^/old/(.*)$", &["/old/*"], true);
        check(r"^/v[0-9]+/x$", &["/v*/x"], false);
        check(r"/\.git", &["*/.git*"], true);
        check(r"^/a$|^/b", &["/a", "/b*"], true);
        check(r"^/(a|b)(/|$)", &["/a/*", "/a", "/b/*", "/b"], true);
        check(r"^/a($|\?)", &["/a", "/a?*"], true);
        check(r"^/a(/|$)b", &["/a/b*"], true);
        check(
            r"^/(?:img|css)/.+\.min\.[jc]ss?$",
            &[
                "/img/*.min.js",
                "/img/*.min.jss",
                "/img/*.min.cs",
                "/img/*.min.css",
                "/css/*.min.js",
                "/css/*.min.jss",
                "/css/*.min.cs",
                "/css/*.min.css",
            ],
            false,
        );
        for expression in [r"^/(?!admin)", r"(a)\1", "(", "[", "a{", "*"] {
            assert_eq!(patterns(expression, false), None, "{expression}");
        }
    }

    #[test]
    fn groups_are_known_by_their_star() {
        let found = patterns("^/a/(.*)/b/(.*)$", false).unwrap();
        assert_eq!(found.groups, [Some(1), Some(2)]);
        let found = patterns("^/(a|b)/(.*)$", false).unwrap();
        assert!(found.groups.is_empty());
    }

    #[test]
    fn case_is_ignored_where_the_expression_says_so() {
        for found in [patterns(r"\.gif$", true), patterns(r"(?i)\.GIF$", false)] {
            let found = found.unwrap();
            assert_eq!((found.globs, found.is_exact), (vec!["(?i)*.gif".to_owned()], true));
        }
    }

    #[test]
    fn what_has_no_equal_is_covered() {
        let check = |expression: &str, wanted: &[&str]| {
            assert_eq!(covering(expression, false), wanted, "{expression}");
        };
        check(r"^/admin(?!/public)", &["/admin*"]);
        check(r"^/(?<!x)(a|b)\1/", &["/a*/*", "/b*/*"]);
        check(r"(^|/)\.git(/|$)", &["*.git/*", "*.git", "*/.git/*", "*/.git"]);
        check(r"^/secret[[:digit:]]+/\bx", &["/secret*/x*"]);
        check(r"^/(?i:Wp)-admin", &["(?i)/wp-admin*"]);
        check(r"^/a$b", &["/ab*"]);
        check(r"^/x\Qa\E", &["*"]);
        check("(", &["*"]);
        let many = format!("^/{}$", "(a|b)".repeat(7));
        assert_eq!(patterns(&many, false), None);
        let covers = covering(&many, false);
        assert!(covers.len() == 64 && covers[0] == "/aaaaaa*", "{covers:?}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

        /// Against an engine that nobody here wrote.
        #[test]
        fn whatever_an_expression_matches_is_matched_by_what_covers_it(
            expression in r"\^?(/|a|b|\.|\\\.|\(a\|b\)|\(\^\|/\)|\(/\|\$\)|\(\$\|a\)|\[ab\]|\[\^a\]|\[\[:alpha:\]\]|\\d|\\b|a\*|b\+|c\?|a\{2\}|\(\?i\)|\(\?:a\|B\)\?){1,6}\$?",
            text in r"[/abcAB1.]{0,8}",
        ) {
            let Ok(engine) = regex::Regex::new(&expression) else { return Ok(()) };
            let matches = |globs: &[String]| {
                globs.iter().any(|glob| model::glob::Glob::new(glob).matches(text.as_bytes()))
            };
            if engine.is_match(&text) {
                let covers = covering(&expression, false);
                proptest::prop_assert!(matches(&covers), "{expression} {text} {covers:?}");
            }
            if let Some(found) = patterns(&expression, false) {
                proptest::prop_assert!(!engine.is_match(&text) || matches(&found.globs), "{expression} {text} {found:?}");
                if found.is_exact {
                    proptest::prop_assert_eq!(matches(&found.globs), engine.is_match(&text), "{} {} {:?}", expression, text, found);
                }
            }
        }
    }
}
