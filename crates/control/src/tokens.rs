//! Who may do what: tokens of operators and programs. Their secrets are shown once and kept as hashes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Json};
use journal::{Commit, Error};
use model::rate::Rate;
use model::units::parse_duration;
use serde::{Deserialize, Serialize};
use trust::{is_name, text_hash};
use utoipa::ToSchema;

use crate::api::{answer, read_json};
use crate::audit;
use crate::cells;
use crate::clock::{ms, now_ms};
use crate::idempotency::Keyed;
use crate::limits::{BODY_BYTES_MAX, REQUESTS_PER_TOKEN, REQUESTS_PER_TOKEN_MAX, TOKENS_MAX};
use crate::problem::Problem;
use crate::purges::unknown_site;
use crate::vault::random_hex;
use crate::{Limit, Shared};

/// Tokens begin so, so that programs that look for leaked secrets know one when they see it.
const SECRET_PREFIX: &str = "pgt_";

/// What a token lets its bearer do. Each role has what those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Purge.
    Purger,
    /// Add configurations, and roll them out.
    Editor,
    /// Tokens, nodes, and the audit log.
    Admin,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Purger => "purger",
            Role::Editor => "editor",
            Role::Admin => "admin",
        }
    }
}

/// A token, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The sites that it may purge; all without.
    pub(crate) sites: Option<Vec<String>>,
    /// SHA-256 of the secret, in hex. Secrets have 256 bits of chance, so that nothing slower is needed.
    pub(crate) hash: String,
    pub(crate) by: String,
    pub(crate) created_ms: i64,
    pub(crate) expires_ms: Option<i64>,
    /// Per second.
    pub(crate) requests: u32,
}

impl Token {
    pub(crate) fn cell(name: &str) -> String {
        format!("tokens/{name}")
    }

    /// A new one, and its secret.
    pub(crate) fn make(name: &str, role: Role, by: &str) -> Result<(Token, String), String> {
        let secret = format!("{SECRET_PREFIX}{}", random_hex::<32>()?);
        let token = Token {
            name: name.to_owned(),
            role,
            sites: None,
            hash: text_hash(secret.as_bytes()),
            by: by.to_owned(),
            created_ms: now_ms(),
            expires_ms: None,
            requests: REQUESTS_PER_TOKEN,
        };
        Ok((token, secret))
    }

    fn shown(&self) -> TokenShown {
        TokenShown {
            name: self.name.clone(),
            role: self.role,
            sites: self.sites.clone(),
            by: self.by.clone(),
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            requests_per_second: self.requests,
        }
    }
}

// --- Who calls ---

/// The bearer of a token that has been checked.
#[derive(Clone)]
pub(crate) struct Caller(Arc<Token>);

impl Caller {
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Somebody who may look, and was let in by other means than a token of the cluster.
    pub(crate) fn of_this_machine() -> Caller {
        Caller(Arc::new(Token {
            name: "admin".to_owned(),
            role: Role::Viewer,
            sites: None,
            hash: String::new(),
            by: String::new(),
            created_ms: 0,
            expires_ms: None,
            requests: REQUESTS_PER_TOKEN,
        }))
    }

    /// The sites that the token is bound to; `None`: all.
    pub(crate) fn sites(&self) -> Option<&[String]> {
        self.0.sites.as_deref()
    }

    /// Refuses who has a lower role.
    pub(crate) fn may(&self, role: Role) -> Result<(), Problem> {
        if self.0.role >= role {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "the token's role does not allow this")
            .found(format!("token {:?} with the role {}", self.0.name, self.0.role.as_str()))
            .wanted(format!("the role {} or a higher one", role.as_str()))
            .next("have an admin make one: perigee token add --role"))
    }

    /// Whether the token is for this site: for all unless it names some.
    pub(crate) fn is_for(&self, site: &str) -> bool {
        self.0.sites.as_ref().is_none_or(|sites| sites.iter().any(|allowed| allowed == site))
    }

    /// Refuses who may not purge a site, or all of them (`None`). `path` is the place in the body.
    pub(crate) fn may_purge(&self, path: &str, site: Option<&str>) -> Result<(), Problem> {
        let Some(sites) = &self.0.sites else { return Ok(()) };
        if site.is_some_and(|site| self.is_for(site)) {
            return Ok(());
        }
        let found = match site {
            Some(site) => format!("{path}: the site {site:?}"),
            None => format!("{path}: every site"),
        };
        Err(Problem::new(StatusCode::FORBIDDEN, "the token may not purge this")
            .found(found)
            .wanted(format!("token {:?} may purge {}", self.0.name, sites.join(", ")))
            .next("nothing was purged; name one of these sites, or have a token with a wider scope made"))
    }
}

/// Checks the Authorization field of a request, and counts it.
pub(crate) fn check(shared: &Shared, headers: &HeaderMap, from: IpAddr) -> Result<Caller, Problem> {
    let refused = |error: &str| {
        if let Err(too_much) = shared.refuse(from) {
            return Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests without a good token from this address",
            )
            .found(from.to_string())
            .retry_after(too_much.wait_secs())
            .next("slow down, and correct the token");
        }
        Problem::new(StatusCode::UNAUTHORIZED, error)
            .wanted("Authorization: Bearer TOKEN")
            .next("the first token is in the file admin-token of control's state directory; others: perigee token add")
    };
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(refused("the request carries no token"));
    };
    let secret = field.to_str().ok().and_then(|text| {
        let (scheme, secret) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
    });
    let secret = secret.ok_or_else(|| refused("the request carries no bearer token"))?;
    // By hash: how much of a guess was right shows nowhere.
    let token = shared.view.get().tokens.get(&text_hash(secret.as_bytes())).cloned();
    let token = token.ok_or_else(|| refused("no token of this cluster has this secret"))?;
    if token.expires_ms.is_some_and(|expires| expires <= now_ms()) {
        return Err(refused("the token has expired"));
    }
    shared.rates.lock().take(&token).map_err(|too_much| {
        shared.counts.reached(Limit::RequestsPerToken);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "the token has been used too often")
            .found(format!("token {:?}", token.name))
            .wanted(format!("{} requests per second", token.requests))
            .retry_after(too_much.wait_secs())
            .next("put more into one request, e.g. several URLs, or have a token with a higher rate made")
    })?;
    Ok(Caller(token))
}

/// How often a token may be used.
pub(crate) fn rate_of(token: &Token) -> Rate {
    Rate::new(token.requests, Duration::from_secs(1), token.requests.saturating_mul(2))
}

// --- API ---

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenWanted {
    /// Its name: letters, digits, `-`, `_` and `.`, at most 64. Purges and the audit log name it.
    name: String,
    /// What it may do.
    role: Role,
    /// The sites that it may purge; all without. For viewers and purgers.
    #[serde(default)]
    sites: Option<Vec<String>>,
    /// For how long it is good, e.g. `90d`; for ever without.
    #[serde(default)]
    ttl: Option<String>,
    /// Requests per second; 2,000 without.
    #[serde(default)]
    requests_per_second: Option<u32>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenShown {
    name: String,
    role: Role,
    sites: Option<Vec<String>>,
    /// Who made it.
    by: String,
    created_ms: i64,
    expires_ms: Option<i64>,
    requests_per_second: u32,
}

/// A token that has just been made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenMade {
    #[serde(flatten)]
    token: TokenShown,
    /// The secret. It is shown this once.
    secret: String,
}

/// All tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<TokenShown>,
}

/// Something that is gone now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Gone {
    /// Its name.
    pub(crate) name: String,
    /// Always true.
    pub(crate) gone: bool,
}

/// Make a token
#[utoipa::path(post, path = "/v1/tokens", tag = "operators", request_body = TokenWanted,
    params(("Idempotency-Key" = Option<String>, Header, description = "see POST /v1/purges")),
    responses((status = 201, body = TokenMade), (status = "default", body = Problem)))]
pub(crate) async fn make(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Role::Admin)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let keyed = Keyed::of(&caller, "POST /v1/tokens", &headers, &body)?;
    if let Some(replayed) = shared.replay(keyed.as_ref()).await? {
        return Ok(replayed);
    }
    let wanted: TokenWanted =
        read_json(&headers, &body, r#"{"name": "ci", "role": "purger", "sites": ["shop"]}"#)?;
    check_name("name", &wanted.name)?;
    if wanted.sites.is_some() && wanted.role > Role::Purger {
        return Err(Problem::bad("a configuration is of all sites, so who may change it has no scope")
            .found(format!("sites with the role {}", wanted.role.as_str()))
            .wanted("sites with the role viewer or purger"));
    }
    let view = shared.view.get();
    if view.tokens.len() >= TOKENS_MAX {
        return Err(Problem::new(StatusCode::CONFLICT, "there are too many tokens")
            .wanted(format!("at most {TOKENS_MAX}")));
    }
    if let Some(unknown) = wanted.sites.iter().flatten().find(|site| !view.has_site(site)) {
        return Err(unknown_site("sites", unknown, &view));
    }
    let requests = wanted.requests_per_second.unwrap_or(REQUESTS_PER_TOKEN);
    if !(1..=REQUESTS_PER_TOKEN_MAX).contains(&requests) {
        return Err(Problem::bad("requests_per_second is out of range")
            .found(requests.to_string())
            .wanted(format!("1 to {REQUESTS_PER_TOKEN_MAX}")));
    }
    let (mut token, secret) = Token::make(&wanted.name, wanted.role, caller.name()).map_err(no_chance)?;
    token.sites = wanted.sites;
    token.requests = requests;
    token.expires_ms = wanted.ttl.as_deref().map(|ttl| expiry("ttl", ttl)).transpose()?;
    let made = TokenMade { token: token.shown(), secret };
    let cell = Token::cell(&token.name);
    let mut commit = Commit::swap(cell.clone(), 0, Some(cells::value(&token)?));
    audit::note(&mut commit, caller.name(), "token.add", &token.name, Some(token.role.as_str()))?;
    let done = shared.commit_keyed(commit, keyed.as_ref(), StatusCode::CREATED, &made).await;
    match done {
        Err(Error::Conflict(name)) if name == cell => {
            Err(Problem::new(StatusCode::CONFLICT, "there is a token of this name already")
                .found(format!("{:?}", token.name))
                .next("choose another name, or revoke that one first"))
        }
        Err(Error::Conflict(_)) => shared.replay_now(keyed.as_ref()).await,
        Err(error) => Err(error.into()),
        Ok(_) => {
            let _noted_and_shown = shared.refresh_view().await;
            Ok(answer(StatusCode::CREATED, &made))
        }
    }
}

/// The tokens there are
#[utoipa::path(get, path = "/v1/tokens", tag = "operators",
    responses((status = 200, body = Tokens), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Tokens>, Problem> {
    caller.may(Role::Admin)?;
    let view = shared.view.get();
    let mut tokens: Vec<TokenShown> = view.tokens.values().map(|token| token.shown()).collect();
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(Tokens { tokens }))
}

/// Whose token this is
///
/// What it may do, for programs that offer only that.
#[utoipa::path(get, path = "/v1/whoami", tag = "operators",
    responses((status = 200, body = TokenShown), (status = "default", body = Problem)))]
pub(crate) async fn whoami(Extension(caller): Extension<Caller>) -> Json<TokenShown> {
    Json(caller.0.shown())
}

/// Revoke a token
#[utoipa::path(delete, path = "/v1/tokens/{name}", tag = "operators", params(("name" = String, Path)),
    responses((status = 200, body = Gone), (status = "default", body = Problem)))]
pub(crate) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Gone>, Problem> {
    caller.may(Role::Admin)?;
    let cell = Token::cell(&name);
    let Some((token, version)) = cells::load::<Token>(&*shared.journal, &cell).await? else {
        let view = shared.view.get();
        let names: Vec<&str> = view.tokens.values().map(|token| &*token.name).collect();
        let next = "perigee token list shows them";
        return Err(Problem::unknown("there is no token of this name", &name, names.into_iter(), next));
    };
    let mut commit = Commit::swap(cell, version, None);
    if token.role == Role::Admin {
        // That one must still be there when this one goes: somebody may be revoking it at the same moment.
        let other = another_lasting_admin(&shared, &name).await?.ok_or_else(|| {
            let error = "this is the last token that can make tokens and does not expire";
            Problem::new(StatusCode::CONFLICT, error)
                .found(format!("{name:?}"))
                .next("make another admin token first")
        })?;
        commit.expect.push(other);
    }
    audit::note(&mut commit, caller.name(), "token.revoke", &name, None)?;
    cells::commit(&*shared.journal, commit).await?;
    shared.view.forget(&token.hash);
    let _noted_and_shown = shared.refresh_view().await;
    Ok(Json(Gone { name, gone: true }))
}

/// The cell of an admin's token that does not expire, and its version; `None` when there is none but this one.
async fn another_lasting_admin(shared: &Shared, name: &str) -> Result<Option<(String, u64)>, Error> {
    let is_one =
        |token: &Token| token.role == Role::Admin && token.name != name && token.expires_ms.is_none();
    for seen in shared.view.get().tokens.values().filter(|token| is_one(token)) {
        let cell = Token::cell(&seen.name);
        let found = cells::load::<Token>(&*shared.journal, &cell).await?;
        if let Some((_, version)) = found.filter(|(token, _)| is_one(token)) {
            return Ok(Some((cell, version)));
        }
    }
    Ok(None)
}

/// Refuses names that would not do as a part of a cell's name, of a certificate, or of a line.
pub(crate) fn check_name(path: &str, name: &str) -> Result<(), Problem> {
    match is_name(name) {
        true => Ok(()),
        false => Err(Problem::bad(format!("{path} is not a name"))
            .found(format!("{name:?}"))
            .wanted("1 to 64 letters, digits, '-', '_' and '.', not first '-' or '.'")),
    }
}

/// The moment at which something of this age ends.
pub(crate) fn expiry(path: &str, ttl: &str) -> Result<i64, Problem> {
    Ok(now_ms().saturating_add(ms(duration(path, ttl)?)))
}

/// A duration in words: `90s`, `30d`.
pub(crate) fn duration(path: &str, text: &str) -> Result<Duration, Problem> {
    let parsed = parse_duration(text).ok();
    parsed.filter(|span| !span.is_zero()).ok_or_else(|| {
        Problem::bad(format!("{path} is not a duration"))
            .found(format!("{text:?}"))
            .wanted("e.g. \"90s\", \"12h\" or \"30d\"")
    })
}

/// The operating system gave no chance.
pub(crate) fn no_chance(why: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)
}
