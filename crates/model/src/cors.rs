//! Cross-origin reading (Fetch standard, "CORS protocol") by rule, never as part of the cache key: one stored
//! response serves every Origin, and what depends on the Origin is written when it leaves.
//!
//! A caller does three things: [`Cors::preflight`] before anything else, [`Cors::on_receive`] on each response head
//! from the origin before it is judged and stored, [`Cors::on_deliver`] on each head that goes to a visitor.

use semantics::Fields;

use crate::rule::RequestView;

/// What a rule says about cross-origin reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// The origin's own headers, as they are.
    Off,
    /// Responses whose Content-Type is static ([`is_static_type`]) may be read and timed by everyone, without
    /// credentials; others as with [`Cors::Off`]. Preflights go to the origin.
    #[default]
    Static,
    /// As said, for every response; preflights are answered here.
    Allow(Allow),
}

/// Who may read what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Who may read.
    pub origins: AllowedOrigins,
    /// Methods beside GET, HEAD and POST that a preflight allows.
    pub methods: Vec<Box<str>>,
    /// Request headers that a preflight allows; `*` for all but Authorization.
    pub headers: Vec<Box<str>>,
    /// Response headers that scripts may read.
    pub expose: Vec<Box<str>>,
    /// Whether requests may carry cookies. Only with a list of origins.
    pub credentials: bool,
    /// Seconds for which a browser may remember a preflight's answer.
    pub max_age_secs: u64,
}

/// Whose scripts may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Everyone's.
    Any,
    /// Those of these origins, each as a browser sends it: `https://shop.example`.
    List(Vec<Box<str>>),
}

/// Content-Types that the default opens: what a page of another site may embed anyway. Not JSON, HTML or XML, which
/// may be data of one visitor. Judged by type, not by the path's ending, because the path is the visitor's choice.
pub fn is_static_type(content_type: &[u8]) -> bool {
    const FAMILIES: [&str; 4] = ["font/", "image/", "audio/", "video/"];
    const TYPES: [&str; 14] = [
        "text/css",
        "text/javascript",
        "text/vtt",
        "application/javascript",
        "application/x-javascript",
        "application/ecmascript",
        "application/wasm",
        "application/manifest+json",
        "application/font-woff",
        "application/font-sfnt",
        "application/vnd.ms-fontobject",
        "application/x-font-ttf",
        "application/vnd.apple.mpegurl",
        "application/dash+xml",
    ];
    let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default();
    let essence = semantics::fields::trim(essence);
    FAMILIES.iter().any(|family| {
        essence.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family.as_bytes()))
    }) || semantics::fields::is_one_of(essence, &TYPES)
}

impl Cors {
    /// Changes a response head from the origin before it is judged and stored, so that `Vary: Origin` does not split
    /// the cache. A response that allows credentials is the origin's own affair unless the rule says [`Cors::Allow`].
    pub fn on_receive(&self, response: &mut Fields) {
        match self {
            Cors::Off => {}
            Cors::Static => {
                let is_static = response.get("content-type").is_some_and(is_static_type);
                if is_static && !response.contains("access-control-allow-credentials") {
                    set(response, "Access-Control-Allow-Origin", b"*");
                    set(response, "Timing-Allow-Origin", b"*");
                    drop_origin_from_vary(response);
                }
            }
            Cors::Allow(allow) => {
                response.retain(|name, _| {
                    !name.get(..15).is_some_and(|start| start.eq_ignore_ascii_case(b"access-control-"))
                });
                if allow.origins == AllowedOrigins::Any {
                    set(response, "Access-Control-Allow-Origin", b"*");
                    set(response, "Timing-Allow-Origin", b"*");
                }
                if !allow.expose.is_empty() {
                    set(response, "Access-Control-Expose-Headers", allow.expose.join(", ").as_bytes());
                }
                drop_origin_from_vary(response);
            }
        }
    }

    /// Whether [`Cors::on_deliver`] has anything to do: the head that is stored is not the one that leaves.
    pub fn depends_on_origin(&self) -> bool {
        matches!(self, Cors::Allow(Allow { origins: AllowedOrigins::List(_), .. }))
    }

    /// Completes a response head that leaves for a visitor, when what it may read depends on its Origin. Adds
    /// `Vary: Origin`, for the caches behind us.
    pub fn on_deliver(&self, request: &Fields, response: &mut Fields) {
        let Cors::Allow(allow) = self else { return };
        let AllowedOrigins::List(_) = &allow.origins else { return };
        if let Some(origin) = allow.admit(request.get("origin")) {
            set(response, "Access-Control-Allow-Origin", origin);
            set(response, "Timing-Allow-Origin", origin);
            if allow.credentials {
                set(response, "Access-Control-Allow-Credentials", b"true");
            }
        }
        response.append_unchecked(b"Vary", b"Origin");
    }

    /// The head of a preflight's answer, to be sent with status 204. `None` when the request is no preflight, or when
    /// the rule leaves preflights to the origin.
    pub fn preflight(&self, request: &RequestView<'_>) -> Option<Fields> {
        let Cors::Allow(allow) = self else { return None };
        let asked = request.fields.get("access-control-request-method")?;
        if request.method != "OPTIONS" || !request.fields.contains("origin") {
            return None;
        }
        let mut answer = Fields::new();
        let varies = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        answer.append_unchecked(b"Vary", varies);
        let Some(origin) = allow.admit(request.fields.get("origin")) else { return Some(answer) };
        set(&mut answer, "Access-Control-Allow-Origin", origin);
        if allow.credentials {
            set(&mut answer, "Access-Control-Allow-Credentials", b"true");
        }
        if allow.methods.iter().any(|method| method.as_bytes() == asked) {
            set(&mut answer, "Access-Control-Allow-Methods", allow.methods.join(", ").as_bytes());
        }
        if !allow.headers.is_empty() {
            set(&mut answer, "Access-Control-Allow-Headers", allow.headers.join(", ").as_bytes());
        }
        set(&mut answer, "Access-Control-Max-Age", allow.max_age_secs.to_string().as_bytes());
        Some(answer)
    }
}

impl Allow {
    /// The value of Access-Control-Allow-Origin for a request's Origin.
    fn admit<'a>(&'a self, origin: Option<&[u8]>) -> Option<&'a [u8]> {
        match &self.origins {
            AllowedOrigins::Any => Some(b"*"),
            AllowedOrigins::List(list) => {
                list.iter().map(|allowed| allowed.as_bytes()).find(|allowed| Some(*allowed) == origin)
            }
        }
    }
}

fn set(fields: &mut Fields, name: &str, value: &[u8]) {
    fields.remove(name);
    fields.append_unchecked(name.as_bytes(), value);
}

fn drop_origin_from_vary(response: &mut Fields) {
    let Some(vary) = response.combined("vary") else { return };
    let names = || vary.split(|&byte| byte == b',').map(semantics::fields::trim);
    if !names().any(|name| name.eq_ignore_ascii_case(b"origin")) {
        return;
    }
    let kept: Vec<&[u8]> = names().filter(|name| !name.eq_ignore_ascii_case(b"origin")).collect();
    let kept = kept.join(&b", "[..]);
    response.remove("vary");
    if !kept.is_empty() {
        response.append_unchecked(b"Vary", &kept);
    }
}

#[cfg(test)]
mod tests;
