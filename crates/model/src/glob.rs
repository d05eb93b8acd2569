//! Patterns with `*`: which texts they match, and whether one pattern matches everything that another does.
//!
//! `*` stands for any run of bytes, also none, also across `/`. Nothing else is special: `?`, `[` and `\` mean
//! themselves. A pattern without `*` matches only itself. Letter case counts. Most patterns of a configuration are
//! `prefix*` or `*suffix`, and cost one comparison; no pattern costs more than the product of both lengths, and
//! matching allocates nothing.

use std::fmt;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    pattern: Box<str>,
    shape: Shape,
}

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
        let stars = single.matches('*').count();
        let shape = match stars {
            0 => Shape::Exact,
            1 if single.len() == 1 => Shape::Any,
            1 if single.ends_with('*') => Shape::Prefix,
            1 if single.starts_with('*') => Shape::Suffix,
            _ => Shape::General,
        };
        Glob { pattern: single.into(), shape }
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
        let pattern = self.pattern.as_bytes();
        match self.shape {
            Shape::Any => true,
            Shape::Exact => pattern == text,
            Shape::Prefix => text.starts_with(&pattern[..pattern.len() - 1]),
            Shape::Suffix => text.ends_with(&pattern[1..]),
            Shape::General => matches_general(pattern, text, |_, _| {}),
        }
    }

    /// What each star stands for when the pattern matches `text`: each as short as possible, the last one takes the
    /// rest. `None` when it does not match.
    pub fn captures<'t>(&self, text: &'t [u8]) -> Option<Captures<'t>> {
        let mut captures = Captures::default();
        let matched =
            matches_general(self.pattern.as_bytes(), text, |star, range: std::ops::Range<usize>| {
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
        // no pattern can have.
        matches_general(self.pattern.as_bytes(), other.pattern.as_bytes(), |_, _| {})
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
    text: &[u8],
    mut star_range: impl FnMut(usize, std::ops::Range<usize>),
) -> bool {
    let mut pieces = pattern.split(|&byte| byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(star_total) = pieces.clone().count().checked_sub(1) else { return first == text };
    if !text.starts_with(first) {
        return false;
    }
    let mut at = first.len();
    for (star, piece) in pieces.enumerate() {
        if star == star_total {
            let Some(end) = text.len().checked_sub(piece.len()) else { return false };
            if end < at || !text.ends_with(piece) {
                return false;
            }
            star_range(star, at..end);
            return true;
        }
        let Some(found) = find(&text[at..], piece) else { return false };
        star_range(star, at..at + found);
        at += found + piece.len();
    }
    false
}

fn find(text: &[u8], piece: &[u8]) -> Option<usize> {
    if piece.is_empty() {
        return Some(0);
    }
    text.windows(piece.len()).position(|window| window == piece)
}

#[cfg(test)]
mod tests;
