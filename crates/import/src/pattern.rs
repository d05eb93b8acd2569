//! Regular expressions as patterns with `*`, as far as that goes: literals, alternatives, optional parts, and runs of anything.
//!
//! What has no equal becomes `*` and is called inexact: it matches more. What cannot be said even so (look-around, back references)
//! gives nothing. Called for locations of nginx, conditions of VCL and of Cloudflare.

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
}

/// One way to match.
type Way = Vec<Piece>;

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    is_exact: bool,
    groups: usize,
    depth: usize,
}

/// The patterns for an expression that may match anywhere in a text. `ignores_case`: as `~*` and `(?i)`; then the
/// spellings in lower and upper case are both given, and mixed ones are missed.
pub(crate) fn patterns(expression: &str, ignores_case: bool) -> Option<Patterns> {
    let (expression, ignores_case) = match expression.strip_prefix("(?i)") {
        Some(rest) => (rest, true),
        None => (expression, ignores_case),
    };
    let mut reader = Reader { rest: expression.chars().peekable(), is_exact: true, groups: 0, depth: 0 };
    let ways = reader.alternatives(true)?;
    if reader.rest.next().is_some() {
        return None;
    }
    let mut is_exact = reader.is_exact;
    let mut globs: Vec<String> = Vec::new();
    let mut groups = Vec::new();
    for way in &ways {
        let (glob, stars) = write(way);
        let mut push = |glob: String| {
            if !globs.contains(&glob) {
                globs.push(glob);
            }
        };
        let (lower, upper) = (glob.to_lowercase(), glob.to_uppercase());
        if ignores_case && lower != upper {
            is_exact = false;
            push(lower);
            push(upper);
        } else {
            push(glob);
        }
        groups = stars;
    }
    if globs.len() > PATTERNS_MAX {
        return None;
    }
    if ways.len() > 1 {
        groups.clear();
    }
    Some(Patterns { globs, groups, is_exact })
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
        }
    }
    (glob, groups)
}

fn joined(left: &[Way], right: &[Way]) -> Option<Vec<Way>> {
    if left.len() * right.len() > PATTERNS_MAX {
        return None;
    }
    Some(left.iter().flat_map(|one| right.iter().map(|other| [&one[..], &other[..]].concat())).collect())
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
                return None;
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
                        return None;
                    }
                }
                _ => {
                    let atom = self.atom()?;
                    let atom = self.repeated(atom)?;
                    ways = joined(&ways, &atom)?;
                }
            }
        }
        if is_open {
            ways.iter_mut().for_each(|way| way.push(Piece::Star(None)));
        }
        Some(ways)
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
                Some(vec![vec![Piece::Star(None)]])
            }
            '[' => self.class(),
            '(' => self.group(),
            '\\' => match self.rest.next()? {
                'd' | 'w' | 's' | 'S' | 'D' | 'W' => {
                    self.is_exact = false;
                    Some(vec![vec![Piece::Star(None)]])
                }
                c if c.is_ascii_alphanumeric() => None,
                c => Some(text(c)),
            },
            '*' | '+' | '?' | '{' | '^' | '$' => None,
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
        Some(vec![vec![Piece::Star(None)]])
    }

    fn is_repeated(&mut self) -> bool {
        matches!(self.rest.peek(), Some('*' | '+' | '{'))
    }

    fn group(&mut self) -> Option<Vec<Way>> {
        let mut number = None;
        if self.rest.next_if_eq(&'?').is_some() {
            match self.rest.next()? {
                ':' => {}
                '<' | 'P' => {
                    // A named group counts as a group too; a look-behind is none.
                    self.groups += 1;
                    let mut name = String::new();
                    loop {
                        match self.rest.next()? {
                            '>' => break,
                            '=' | '!' => return None,
                            c => name.push(c),
                        }
                    }
                }
                _ => return None,
            }
        } else {
            self.groups += 1;
            number = Some(self.groups);
        }
        let mut ways = self.alternatives(false)?;
        self.rest.next_if_eq(&')')?;
        if let [way] = &mut ways[..]
            && let [Piece::Star(group)] = &mut way[..]
        {
            *group = number;
        }
        Some(ways)
    }

    /// What stands behind an atom: `*`, `+`, `?`, `{2,3}`, each also lazy.
    fn repeated(&mut self, atom: Vec<Way>) -> Option<Vec<Way>> {
        let is_star = atom == [vec![Piece::Star(None)]];
        let star = vec![vec![Piece::Star(None)]];
        let repeated = match self.rest.peek() {
            Some('*') => {
                self.rest.next();
                self.is_exact &= is_star;
                star
            }
            Some('+') => {
                self.rest.next();
                self.is_exact = false;
                star
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
                star
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
    fn case_is_ignored_in_two_spellings() {
        let found = patterns(r"\.gif$", true).unwrap();
        assert_eq!(found.globs, ["*.gif", "*.GIF"]);
        assert!(!found.is_exact);
    }
}
