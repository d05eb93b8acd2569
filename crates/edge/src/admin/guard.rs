//! Who may use the admin API: the bearer of the token, and no web page in an operator's browser. Decides on a request
//! head alone.

use axum::http::{HeaderMap, StatusCode, header};

use super::api::Problem;

/// What is checked before any handler runs.
pub(super) struct Guard {
    token: String,
    is_loopback: bool,
}

impl Guard {
    pub(super) fn new(token: String, is_loopback: bool) -> Self {
        Guard { token, is_loopback }
    }

    /// Refuses what comes from a web page: DNS rebinding by `Host`, cross-site requests by `Origin` and
    /// `Sec-Fetch-Site`. Holds for the paths without a token too.
    pub(super) fn check_browser(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text =
            |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let host = text(header::HOST).unwrap_or_default();
        if self.is_loopback && !is_literal_or_localhost(&host) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the Host field names another machine")
                .found(host)
                .wanted("an IP address or localhost")
                .next("ask for the address that `perigee serve` prints"));
        }
        if let Some(origin) = text(header::ORIGIN)
            && origin.strip_prefix("http://") != Some(&host)
        {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the request comes from a page of another site")
                .found(origin)
                .wanted("no Origin field, or this address"));
        }
        match headers.get("sec-fetch-site").map(|value| value.as_bytes()) {
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) => {
                Err(Problem::new(StatusCode::FORBIDDEN, "the request comes from a page of another site")
                    .wanted("a request by a program, or typed into the address bar"))
            }
        }
    }

    /// Wants `Authorization: Bearer` with the token. Exactly one such field.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let refused = |error: &str| {
            Problem::new(StatusCode::UNAUTHORIZED, error).wanted("Authorization: Bearer TOKEN").next(
                "the token is in the file admin-token of the state directory; `perigee serve` prints where",
            )
        };
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Err(refused("the request carries no token"));
        };
        let (scheme, given) = field.as_bytes().split_at_checked(7).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(refused("the request carries no bearer token"));
        }
        match equal_in_constant_time(given.trim_ascii(), self.token.as_bytes()) {
            true => Ok(()),
            false => Err(refused("the token is not the one of this edge")),
        }
    }
}

/// Whether two secrets are equal, in time that depends on their lengths only: how much of a guess was right does not
/// show.
fn equal_in_constant_time(given: &[u8], wanted: &[u8]) -> bool {
    let differing =
        given.iter().zip(wanted).fold(0, |differing, (a, b)| std::hint::black_box(differing | (a ^ b)));
    given.len() == wanted.len() && differing == 0
}

fn is_literal_or_localhost(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address =
        without_port.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(without_port);
    without_port.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_the_whole_token_opens() {
        let guard = Guard::new(TOKEN.into(), true);
        let check = |lines: &[(&'static str, &str)], wanted: bool| {
            assert_eq!(guard.check_token(&headers(lines)).is_ok(), wanted, "{lines:?}");
        };
        check(&[("authorization", &format!("Bearer {TOKEN}"))], true);
        check(&[("authorization", &format!("bearer  {TOKEN} "))], true);
        check(&[], false);
        check(&[("authorization", "")], false);
        check(&[("authorization", "Bearer ")], false);
        check(&[("authorization", TOKEN)], false);
        check(&[("authorization", &format!("Basic  {TOKEN}"))], false);
        check(&[("authorization", &format!("Bearer {}", &TOKEN[1..]))], false);
        check(&[("authorization", &format!("Bearer {TOKEN}0"))], false);
        check(&[("authorization", &format!("Bearer {}", TOKEN.to_uppercase()))], false);
        let good = format!("Bearer {TOKEN}");
        check(&[("authorization", &good), ("authorization", &good)], false);
    }

    #[test]
    fn pages_of_other_sites_and_rebound_names_are_refused() {
        let check = |is_loopback: bool, lines: &[(&'static str, &str)], wanted: bool| {
            let guard = Guard::new(TOKEN.into(), is_loopback);
            assert_eq!(guard.check_browser(&headers(lines)).is_ok(), wanted, "{lines:?}");
        };
        check(true, &[("host", "127.0.0.1:9090")], true);
        check(true, &[("host", "[::1]:9090")], true);
        check(true, &[("host", "[::1]")], true);
        check(true, &[("host", "LocalHost:9090")], true);
        check(true, &[("host", "rebound.example:9090")], false);
        check(true, &[("host", "127.0.0.1.rebound.example")], false);
        check(true, &[("host", "localhost.rebound.example")], false);
        check(true, &[], false);
        check(false, &[("host", "edge-1.internal:9090")], true);
        check(true, &[("host", "127.0.0.1:9090"), ("origin", "http://127.0.0.1:9090")], true);
        check(true, &[("host", "127.0.0.1:9090"), ("origin", "http://127.0.0.1:8080")], false);
        check(true, &[("host", "127.0.0.1:9090"), ("origin", "null")], false);
        check(false, &[("host", "edge-1.internal"), ("origin", "https://evil.example")], false);
        check(true, &[("host", "localhost"), ("sec-fetch-site", "cross-site")], false);
        check(true, &[("host", "localhost"), ("sec-fetch-site", "same-site")], false);
        check(true, &[("host", "localhost"), ("sec-fetch-site", "none")], true);
    }
}
