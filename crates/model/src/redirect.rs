//! Redirects by rule: a template for the Location, filled in from the request.
//!
//! In the template, `{scheme}`, `{host}`, `{path}`, `{query}` (with its `?`, empty when there is none) and `{1}` to
//! `{9}` (what that `*` of the rule's path stood for) are replaced; `{{` and `}}` are braces. A template begins with
//! `http://`, `https://`, `{scheme}://` or `/`, and between scheme and path it may use `{host}` only: otherwise a
//! request could choose the site that it is sent to.

use crate::glob::Captures;
use crate::rule::RequestView;

/// Where to, and with which status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    pieces: Vec<Piece>,
}

/// Statuses that a redirect may have (RFC 9110 §15.4).
pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Scheme,
    Host,
    Path,
    Query,
    Star(usize),
}

impl Redirect {
    /// Reads a template. The error is a sentence about it.
    ///
    /// - `star_count`: the fewest stars that a path of the rule has; `{3}` needs three.
    pub fn parse(template: &str, status: u16, star_count: usize) -> Result<Redirect, String> {
        let pieces = pieces_of(template)?;
        if let Some(Piece::Star(number)) =
            pieces.iter().find(|piece| matches!(piece, Piece::Star(number) if *number > star_count))
        {
            return Err(format!(
                "uses {{{number}}}, but a path of the rule has {} \"*\"",
                if star_count == 0 { "no".to_owned() } else { star_count.to_string() }
            ));
        }
        check_target(&pieces)?;
        Ok(Redirect { status, pieces })
    }

    /// The Location for a request. `path` is the normalised path, `captures` what its stars stood for.
    ///
    /// A relative result never begins with `//` or `/\`, which browsers would take for another host.
    pub fn location(&self, request: &RequestView<'_>, path: &[u8], captures: &Captures<'_>) -> String {
        let mut location = Vec::with_capacity(64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => location.extend_from_slice(text.as_bytes()),
                Piece::Scheme => location.extend_from_slice(request.scheme.as_str().as_bytes()),
                Piece::Host => location.extend_from_slice(request.host.as_bytes()),
                Piece::Path => location.extend_from_slice(path),
                Piece::Query => {
                    if let Some(query) = request.query {
                        location.push(b'?');
                        location.extend_from_slice(query.as_bytes());
                    }
                }
                Piece::Star(number) => location.extend_from_slice(captures.of(*number)),
            }
        }
        if location.first() == Some(&b'/') {
            let slashes = location[1..].iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
            location.drain(1..=slashes);
        }
        escape(&location)
    }
}

fn pieces_of(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("{{") || rest.starts_with("}}") {
            text.push(c);
            rest = &rest[2..];
            continue;
        }
        if c == '}' {
            return Err("has a \"}\" without \"{\"; a brace itself is \"}}\"".to_owned());
        }
        if c != '{' {
            if c.is_control() || c == ' ' || !c.is_ascii() {
                return Err(format!("has the character {c:?}, which no URL has; percent-encode it"));
            }
            text.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let Some((name, after)) = rest[1..].split_once('}') else {
            return Err("has a \"{\" without \"}\"; a brace itself is \"{{\"".to_owned());
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text).into()));
        }
        pieces.push(match name {
            "scheme" => Piece::Scheme,
            "host" => Piece::Host,
            "path" => Piece::Path,
            "query" => Piece::Query,
            _ => match name.parse::<usize>() {
                Ok(number @ 1..=crate::glob::CAPTURES_MAX) => Piece::Star(number),
                _ => {
                    return Err(format!(
                        "has {{{name}}}, which is none of {{scheme}}, {{host}}, {{path}}, {{query}}, {{1}} to {{9}}"
                    ));
                }
            },
        });
        rest = after;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Ok(pieces)
}

/// Refuses templates that would let a request choose scheme or host.
fn check_target(pieces: &[Piece]) -> Result<(), String> {
    const START: &str = "must begin with \"https://\", \"http://\", \"{scheme}://\" or \"/\"";
    let (first, others) = match pieces {
        [Piece::Text(first), others @ ..] => (&**first, others),
        [Piece::Scheme, Piece::Text(first), others @ ..] if first.starts_with("://") => (&**first, others),
        [Piece::Path, ..] => {
            return Err(format!(
                "{START}; for the same host write \"/…\" or \"{{scheme}}://{{host}}{{path}}\""
            ));
        }
        _ => return Err(START.to_owned()),
    };
    if first.starts_with("//") || first.starts_with("/\\") {
        return Err(START.to_owned());
    }
    if first.starts_with('/') {
        return Ok(());
    }
    let authority = ["https://", "http://", "://"].iter().find_map(|start| first.strip_prefix(start));
    let Some(authority) = authority else { return Err(START.to_owned()) };
    let mut authority_has_text = !authority.is_empty();
    if authority.contains(['/', '?', '#']) {
        return if authority.starts_with(['/', '?', '#']) { Err("has no host".to_owned()) } else { Ok(()) };
    }
    for piece in others {
        match piece {
            Piece::Host => authority_has_text = true,
            Piece::Text(text) if text.contains(['/', '?', '#']) => {
                authority_has_text |= !text.starts_with(['/', '?', '#']);
                break;
            }
            Piece::Text(_) => authority_has_text = true,
            Piece::Path | Piece::Query => break,
            Piece::Scheme | Piece::Star(_) => {
                return Err("would let a request choose the host; put a \"/\" behind the host".to_owned());
            }
        }
    }
    if authority_has_text { Ok(()) } else { Err("has no host".to_owned()) }
}

/// The Location as text: bytes that no URL has are percent-encoded.
fn escape(location: &[u8]) -> String {
    let mut text = String::with_capacity(location.len());
    for &byte in location {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests;
