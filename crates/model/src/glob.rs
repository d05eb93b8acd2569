//! Patterns with `*`: which texts they match, and whether one pattern matches everything that another does.
//!
//! `*` stands for any run of bytes, also none, also across `/`. Nothing else is special: `?`, `[` and `\` mean
//! themselves. A pattern without `*` matches only itself. Letter case counts, unless the pattern begins with `(?i)`, as
//! expressions do for the same; then ASCII letters match in either case. Most patterns of a configuration are
//! `prefix*` or `*suffix`, and cost one comparison; no pattern costs more than the product of both lengths, and
//! matching allocates nothing.

use std::fmt;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    pattern: Box<str>,
    shape: Shape,
    case: Case,
}

/// Whether letter case counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Case {
    Counts,
    Ignored,
}

/// What a pattern begins with that passes over letter case.
pub const IGNORES_CASE: &str = "(?i)";

/// The common shapes, each with one comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Exact,
    /// Everything before the only `*`, which stands at the end.
    Prefix,
    /// Everything behind the only `*`, which stands at the start.
    Suffix,
    /// `*` alone.
    Any,
    General,
}

/// What the stars of a pattern stood for: at most [`CAPTURES_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captures<'t> {
    parts: [&'t [u8]; CAPTURES_MAX],
}

/// Stars whose text a redirect can use, as `{1}` to `{9}`.
pub const CAPTURES_MAX: usize = 9;

impl<'t> Captures<'t> {
    /// What the star with `number` (from 1) stood for; empty when there is no such star.
    pub fn of(&self, number: usize) -> &'t [u8] {
        number.checked_sub(1).and_then(|index| self.parts.get(index)).copied().unwrap_or_default()
    }
}

impl Glob {
    /// Every text is a pattern; `**` means the same as `*`.
    pub fn new(pattern: &str) -> Glob {
        let mut single = String::with_capacity(pattern.len());
        for c in pattern.chars() {
            if c != '*' || !single.ends_with('*') {
                single.push(c);
            }
        }
        let case = if single.starts_with(IGNORES_CASE) { Case::Ignored } else { Case::Counts };
        let body = body_of(&single, case);
        let stars = body.matches('*').count();
        let shape = match stars {
            0 => Shape::Exact,
            1 if body.len() == 1 => Shape::Any,
            1 if body.ends_with('*') => Shape::Prefix,
            1 if body.starts_with('*') => Shape::Suffix,
            _ => Shape::General,
        };
        Glob { pattern: single.into(), shape, case }
    }

    /// The pattern without what says that letter case is ignored.
    fn body(&self) -> &[u8] {
        body_of(&self.pattern, self.case).as_bytes()
    }

    /// The pattern as text, with `**` written as `*`.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// How many stars it has.
    pub fn star_count(&self) -> usize {
        self.pattern.matches('*').count()
    }

    /// Whether the pattern matches the whole of `text`.
    pub fn matches(&self, text: &[u8]) -> bool {
        let (pattern, case) = (self.body(), self.case);
        match self.shape {
            Shape::Any => true,
            Shape::Exact => case.is_same(pattern, text),
            Shape::Prefix => case.begins(text, &pattern[..pattern.len() - 1]),
            Shape::Suffix => case.ends(text, &pattern[1..]),
            Shape::General => matches_general(pattern, case, text, |_, _| {}),
        }
    }

    /// What each star stands for when the pattern matches `text`: each as short as possible, the last one takes the
    /// rest. `None` when it does not match.
    pub fn captures<'t>(&self, text: &'t [u8]) -> Option<Captures<'t>> {
        let mut captures = Captures::default();
        let matched = matches_general(self.body(), self.case, text, |star, range: std::ops::Range<usize>| {
            if let Some(part) = captures.parts.get_mut(star) {
                *part = &text[range];
            }
        });
        matched.then_some(captures)
    }

    /// Whether every text that `other` matches is matched by `self`.
    pub fn covers(&self, other: &Glob) -> bool {
        // A star of `other` stands for texts that no literal of `self` can foresee, so only a star of `self` can
        // cover it: then `other`, read as a text, is itself matched, provided that `self` has no literal `*`, which
        // no pattern can have. Where case counts for `self` alone, a letter of it covers but one of the two that `other` stands for.
        if (self.case, other.case) == (Case::Counts, Case::Ignored)
            && self.body().iter().any(u8::is_ascii_alphabetic)
        {
            return false;
        }
        matches_general(self.body(), self.case, other.body(), |_, _| {})
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

/// Greedy matching with one point of return, the last star: literals between stars are found as early as possible,
/// which is right because an earlier find leaves the most text for what follows. Reports each star's final range.
fn matches_general(
    pattern: &[u8],
    case: Case,
    text: &[u8],
    mut star_range: impl FnMut(usize, std::ops::Range<usize>),
) -> bool {
    let mut pieces = pattern.split(|&byte| byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(star_total) = pieces.clone().count().checked_sub(1) else { return case.is_same(first, text) };
    if !case.begins(text, first) {
        return false;
    }
    let mut at = first.len();
    for (star, piece) in pieces.enumerate() {
        if star == star_total {
            let Some(end) = text.len().checked_sub(piece.len()) else { return false };
            if end < at || !case.ends(text, piece) {
                return false;
            }
            star_range(star, at..end);
            return true;
        }
        let Some(found) = case.find(&text[at..], piece) else { return false };
        star_range(star, at..at + found);
        at += found + piece.len();
    }
    false
}

impl Case {
    fn is_same(self, one: &[u8], other: &[u8]) -> bool {
        match self {
            Case::Counts => one == other,
            Case::Ignored => one.eq_ignore_ascii_case(other),
        }
    }

    fn begins(self, text: &[u8], piece: &[u8]) -> bool {
        text.get(..piece.len()).is_some_and(|begin| self.is_same(begin, piece))
    }

    fn ends(self, text: &[u8], piece: &[u8]) -> bool {
        text.len().checked_sub(piece.len()).is_some_and(|at| self.is_same(&text[at..], piece))
    }

    fn find(self, text: &[u8], piece: &[u8]) -> Option<usize> {
        if piece.is_empty() {
            return Some(0);
        }
        text.windows(piece.len()).position(|window| self.is_same(window, piece))
    }
}

fn body_of(pattern: &str, case: Case) -> &str {
    match case {
        Case::Counts => pattern,
        Case::Ignored => &pattern[IGNORES_CASE.len()..],
    }
}

#[cfg(test)]
mod tests;
