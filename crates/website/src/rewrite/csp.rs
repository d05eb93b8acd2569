//! Response fields that speak of hosts: a Content-Security-Policy must allow the host that files move to (CSP 3 §6), and what
//! `Link` has preloaded moves with the page.

use super::html::{is_link_that_moves, may_come_from_elsewhere};
use super::url::Mapped;

/// Directives that govern what moves.
const GOVERNING: &[&str] = &["img-src", "style-src", "script-src", "font-src", "media-src", "connect-src"];

/// Those that stand in for some of them where a policy has them.
const FINER: &[&str] = &["style-src-elem", "script-src-elem"];

/// The policies of one field line, or of one `meta`, with `origins` allowed; `None` when they allow them already, or restrict
/// nothing that moves. `'none'` stays: what the page forbids itself stays forbidden.
pub(super) fn extended(policies: &str, origins: &[&str]) -> Option<String> {
    if origins.is_empty() {
        return None;
    }
    let mut changed = false;
    let extended: Vec<String> = policies
        .split(',')
        .map(|policy| {
            extended_policy(policy, origins).map_or_else(
                || policy.to_owned(),
                |policy| {
                    changed = true;
                    policy
                },
            )
        })
        .collect();
    changed.then(|| extended.join(","))
}

/// Whether policies let a page fetch this path of `origin` under a directive, or under what stands in for it (CSP 3 §6.8.3).
pub(crate) fn allows(policies: &str, directive: &str, origin: &str, path: &str) -> bool {
    let finer = format!("{directive}-elem");
    policies.split(',').all(|policy| {
        let find = |name: &str| policy.split(';').find(|directive| name_of(directive) == name);
        let governing = find(&finer).or_else(|| find(directive)).or_else(|| find("default-src"));
        governing.is_none_or(|directive| is_open_to(directive, origin, Some(path)))
    })
}

fn name_of(directive: &str) -> String {
    directive.split_ascii_whitespace().next().unwrap_or_default().to_ascii_lowercase()
}

fn extended_policy(policy: &str, origins: &[&str]) -> Option<String> {
    let mut directives: Vec<String> = policy.split(';').map(str::to_owned).collect();
    let names: Vec<String> = directives.iter().map(|directive| name_of(directive)).collect();
    let find = |name: &str| names.iter().position(|known| known == name);
    let fallback = find("default-src").map(|index| directives[index].clone());
    let mut changed = false;
    let mut added = Vec::new();
    for name in GOVERNING.iter().chain(FINER) {
        match (find(name), &fallback) {
            (Some(index), _) => {
                if let Some(more) = missing(&directives[index], origins) {
                    let trimmed = directives[index].trim_end().len();
                    directives[index].insert_str(trimmed, &more);
                    changed = true;
                }
            }
            (None, Some(default)) if GOVERNING.contains(name) => {
                if let Some(more) = missing(default, origins) {
                    let sources: Vec<&str> = default.split_ascii_whitespace().skip(1).collect();
                    added.push(format!(" {name} {}{more}", sources.join(" ")));
                }
            }
            _ => {}
        }
    }
    if added.is_empty() {
        return changed.then(|| directives.join(";"));
    }
    if directives.last().is_some_and(|last| last.trim().is_empty()) {
        directives.pop();
    }
    directives.append(&mut added);
    Some(directives.join(";"))
}

/// The origins that a directive does not allow, each with a blank before it.
fn missing(directive: &str, origins: &[&str]) -> Option<String> {
    let missing = origins.iter().filter(|origin| !is_open_to(directive, origin, None));
    let more: String = missing.map(|origin| format!(" {origin}")).collect();
    (!more.is_empty()).then_some(more)
}

/// Whether a directive is not in the way of this path of `origin`, or of all paths: as it allows them, or forbids the page its
/// own files as well.
fn is_open_to(directive: &str, origin: &str, path: Option<&str>) -> bool {
    let mut sources = directive.split_ascii_whitespace().skip(1).peekable();
    sources.peek().is_none()
        || sources.any(|source| source.eq_ignore_ascii_case("'none'") || is_source_of(source, origin, path))
}

/// CSP 3 §6.7.2.8, for origins of http and https: a source may name a scheme, hosts below one, a port, and paths.
fn is_source_of(source: &str, origin: &str, path: Option<&str>) -> bool {
    let (scheme, authority) = origin.split_once("://").unwrap_or(("https", origin));
    let default_port = if scheme == "https" { "443" } else { "80" };
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, default_port));
    // What may come by http may come by https.
    let is_scheme = |named: &str| {
        named.eq_ignore_ascii_case(scheme) || (scheme == "https" && named.eq_ignore_ascii_case("http"))
    };
    if let Some(named) = source.strip_suffix(':') {
        return is_scheme(named);
    }
    if source == "*" {
        return true;
    }
    let (named_scheme, rest) = source.split_once("://").unwrap_or((scheme, source));
    let (rest, named_path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let (named_host, named_port) = rest.rsplit_once(':').unwrap_or((rest, default_port));
    let named_host = named_host.to_ascii_lowercase();
    let is_host = named_host.strip_prefix('*').map_or(named_host == host, |end| host.ends_with(end));
    let is_path = named_path == "/"
        || path.is_some_and(|path| match named_path.ends_with('/') {
            true => path.starts_with(named_path),
            false => path == named_path,
        });
    is_scheme(named_scheme) && is_host && (named_port == "*" || named_port == port) && is_path
}

/// The field value of `Link` (RFC 8288) with what it has loaded early moved; `None` when nothing moves.
pub(super) fn moved_links(value: &str, mut map: impl FnMut(&str) -> Mapped) -> Option<String> {
    let mut moved = String::with_capacity(value.len());
    let mut rest = value;
    let mut changed = false;
    while let Some(open) = rest.find('<') {
        let Some(length) = rest[open..].find('>') else { break };
        let (url, after) = (&rest[open + 1..open + length], &rest[open + length + 1..]);
        let parameters = &after[..end_of_link(after)];
        moved.push_str(&rest[..=open]);
        let parameter = |name: &str| {
            parameters.split(';').find_map(|part| {
                let (known, value) = part.split_once('=')?;
                known
                    .trim()
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
            })
        };
        let rel = parameter("rel").unwrap_or_default();
        let moves =
            is_link_that_moves(&rel) && may_come_from_elsewhere(&rel, &parameter("as").unwrap_or_default());
        match if moves { map(url) } else { Mapped::Nothing } {
            Mapped::To { replaced, with } => {
                moved.push_str(&with);
                moved.push_str(&url[replaced..]);
                changed = true;
            }
            Mapped::Left(_) | Mapped::Nothing => moved.push_str(url),
        }
        moved.push('>');
        moved.push_str(parameters);
        rest = &after[parameters.len()..];
    }
    moved.push_str(rest);
    changed.then_some(moved)
}

/// Up to the comma that ends a link's parameters; not one in quotes.
fn end_of_link(text: &str) -> usize {
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_allows_where_files_move_to_and_forbids_what_it_forbade() {
        for (policy, becomes) in [
            ("img-src 'self'", Some("img-src 'self' https://cdn.example")),
            (
                "img-src 'self'; script-src 'nonce-x'",
                Some("img-src 'self' https://cdn.example; script-src 'nonce-x' https://cdn.example"),
            ),
            ("img-src 'none'", None),
            ("img-src *", None),
            ("img-src https://cdn.example", None),
            ("img-src cdn.example", None),
            ("default-src https: 'unsafe-inline'", None),
            ("img-src HTTP:", None),
            ("img-src *.example", None),
            ("img-src https://cdn.example:443/", None),
            ("img-src cdn.example:*", None),
            ("img-src *.cdn.example", Some("img-src *.cdn.example https://cdn.example")),
            ("img-src cdn.example:8443", Some("img-src cdn.example:8443 https://cdn.example")),
            ("img-src https://cdn.example/a/", Some("img-src https://cdn.example/a/ https://cdn.example")),
            ("img-src wss: data:", Some("img-src wss: data: https://cdn.example")),
            ("frame-ancestors 'self'; upgrade-insecure-requests", None),
            (
                "default-src 'self'; img-src *; style-src 'self' ; object-src 'none';",
                Some(concat!(
                    "default-src 'self'; img-src *; style-src 'self' https://cdn.example ; object-src 'none';",
                    " script-src 'self' https://cdn.example; font-src 'self' https://cdn.example;",
                    " media-src 'self' https://cdn.example; connect-src 'self' https://cdn.example"
                )),
            ),
            (
                "default-src 'none'; img-src 'self'",
                Some("default-src 'none'; img-src 'self' https://cdn.example"),
            ),
            ("script-src-elem 'self'", Some("script-src-elem 'self' https://cdn.example")),
            (
                "img-src 'self', font-src 'self'",
                Some("img-src 'self' https://cdn.example, font-src 'self' https://cdn.example"),
            ),
            ("", None),
        ] {
            assert_eq!(extended(policy, &["https://cdn.example"]).as_deref(), becomes, "{policy}");
        }
    }

    #[test]
    fn links_that_preload_move_and_others_do_not() {
        let map = |url: &str| match url.starts_with('/') {
            true => Mapped::To { replaced: 0, with: "https://cdn.example".into() },
            false => Mapped::Nothing,
        };
        for (value, becomes) in [
            ("</a.css>; rel=preload; as=style", Some("<https://cdn.example/a.css>; rel=preload; as=style")),
            ("</a>; rel=preload; as=fetch", None),
            ("</a>; rel=canonical", None),
            ("</a>; rel=manifest", None),
            ("</a>; rel=\"next\"; title=\"a, </b>\"", None),
            (
                "</a.js>; rel=modulepreload, </api>; rel=preconnect, </b.woff2>;rel=preload;as=\"font\"",
                Some(
                    "<https://cdn.example/a.js>; rel=modulepreload, </api>; rel=preconnect, <https://cdn.example/b.woff2>;rel=preload;as=\"font\"",
                ),
            ),
            ("nonsense <", None),
        ] {
            assert_eq!(moved_links(value, map).as_deref(), becomes, "{value}");
        }
    }
}
