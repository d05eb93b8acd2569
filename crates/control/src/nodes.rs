//! Nodes: how they join, stay, and are sent away; and what they have proven.
//!
//! ```text
//! perigee enroll ─► enrolment token ─► POST /v1/enroll (secret, certificate request) ─► certificate for 7 days ─► POST /v1/renew …
//! DELETE /v1/nodes/{name} ─► its key is not believed any more, however long its certificate is good
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use journal::feed::{Holdings, Report, Seen};
use journal::{CELLS_MAX, Commit, Error, Journal};
use model::ControlAddress;
use model::change::receipt_signed;
use model::rate::TooMuch;
use rcgen::CertificateSigningRequestParams;
use serde::{Deserialize, Serialize};
use trust::{EnrolmentToken, Peer, text_hash};
use utoipa::{IntoParams, ToSchema};

use crate::api::{answer, read_json};
use crate::audit;
use crate::budgets;
use crate::cells;
use crate::clock::{ms, now_ms};
use crate::configurations::text_of;
use crate::idempotency::Keyed;
use crate::limits::{
    BODY_BYTES_MAX, CONNECTIONS_PER_NODE_MAX, ENROLMENT_TTL, ENROLMENT_TTL_MAX, ENROLMENT_USES_MAX,
    ENROLMENTS_KEPT, NODE_CERTIFICATE, NODES_MAX, OUT_OF_CONTACT,
};
use crate::problem::Problem;
use crate::purges::PurgeState;
use crate::server::Client;
use crate::tokens::{Caller, Gone, Role, check_name, duration, no_chance};
use crate::vault::random_hex;
use crate::view::View;
use crate::{Limit, Shared};

/// See [`KnownEnrolments`].
const KNOWN_INTERVAL: Duration = Duration::from_secs(1);

/// Attempts of an enrolment while others use the same token.
const ATTEMPTS_MAX: usize = 10;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeRole {
    /// It caches and serves.
    Edge,
    /// It passes the feed on.
    Relay,
    /// It says which edge is closest.
    Router,
}

impl NodeRole {
    fn as_trusted(self) -> trust::Role {
        match self {
            NodeRole::Edge => trust::Role::Edge,
            NodeRole::Relay => trust::Role::Relay,
            NodeRole::Router => trust::Role::Router,
        }
    }

    fn as_str(self) -> &'static str {
        self.as_trusted().as_str()
    }
}

/// A node that has been enrolled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: NodeRole,
    pub(crate) pop: String,
    /// Its public key, base64: who shows a certificate of this name with another key is not it.
    pub(crate) key: String,
    /// The enrolment token's name.
    pub(crate) token: String,
    pub(crate) enrolled_ms: i64,
    pub(crate) certificate_until_ms: i64,
}

impl Node {
    fn cell(name: &str) -> String {
        format!("nodes/{name}")
    }
}

/// An enrolment token, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Enrolment {
    id: String,
    role: NodeRole,
    pop: String,
    /// The only name that it lets in.
    name: Option<String>,
    /// SHA-256 of the secret, in hex.
    hash: String,
    uses: u32,
    uses_left: u32,
    by: String,
    expires_ms: i64,
}

impl Enrolment {
    fn cell(id: &str) -> String {
        format!("enrolments/{id}")
    }
}

// --- Enrolment tokens ---

/// An enrolment token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolmentWanted {
    /// What the node is.
    role: NodeRole,
    /// The place where it stands; for edges.
    #[serde(default)]
    pop: String,
    /// The only name that it may have; without, it chooses.
    #[serde(default)]
    name: Option<String>,
    /// For how long the token is good, e.g. `1h`, which is also the default; at most `30d`.
    #[serde(default)]
    ttl: Option<String>,
    /// How many nodes it lets in; 1 unless given.
    #[serde(default)]
    uses: Option<u32>,
    /// Where nodes reach control: `https://control-1.example:7700`, one or more. Without, the address of this request.
    #[serde(default)]
    controls: Vec<String>,
}

/// An enrolment token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrolmentShown {
    /// Which token it is.
    id: String,
    role: NodeRole,
    pop: String,
    name: Option<String>,
    /// How many nodes it lets in, and how many more.
    uses: u32,
    uses_left: u32,
    /// Who made it.
    by: String,
    expires_ms: i64,
}

/// An enrolment token that has just been made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrolmentMade {
    #[serde(flatten)]
    enrolment: EnrolmentShown,
    /// What the node is given: one line with a secret. It is shown this once.
    token: String,
}

/// All enrolment tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Enrolments {
    enrolments: Vec<EnrolmentShown>,
}

impl Enrolment {
    fn shown(&self) -> EnrolmentShown {
        EnrolmentShown {
            id: self.id.clone(),
            role: self.role,
            pop: self.pop.clone(),
            name: self.name.clone(),
            uses: self.uses,
            uses_left: self.uses_left,
            by: self.by.clone(),
            expires_ms: self.expires_ms,
        }
    }
}

/// Make an enrolment token
#[utoipa::path(post, path = "/v1/enrolment-tokens", tag = "nodes", request_body = EnrolmentWanted,
    params(("Idempotency-Key" = Option<String>, Header, description = "see POST /v1/purges")),
    responses((status = 201, body = EnrolmentMade), (status = "default", body = Problem)))]
pub(crate) async fn make_token(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Role::Admin)?;
    let uri = request.uri().clone();
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let keyed = Keyed::of(&caller, "POST /v1/enrolment-tokens", &headers, &body)?;
    if let Some(replayed) = shared.replay(keyed.as_ref()).await? {
        return Ok(replayed);
    }
    let wanted: EnrolmentWanted = read_json(&headers, &body, r#"{"role": "edge", "pop": "fra", "uses": 3}"#)?;
    if let Some(name) = &wanted.name {
        check_name("name", name)?;
    }
    if wanted.role == NodeRole::Edge || !wanted.pop.is_empty() {
        check_name("pop", &wanted.pop)?;
    }
    let uses = wanted.uses.unwrap_or(1);
    let uses_max = if wanted.name.is_some() { 1 } else { ENROLMENT_USES_MAX };
    if !(1..=uses_max).contains(&uses) {
        return Err(Problem::bad("uses is out of range").found(uses.to_string()).wanted(match wanted.name {
            Some(_) => "1: two nodes cannot have one name".to_owned(),
            None => format!("1 to {uses_max}"),
        }));
    }
    let ttl = wanted.ttl.as_deref().map_or(Ok(ENROLMENT_TTL), |ttl| duration("ttl", ttl))?;
    if ttl > ENROLMENT_TTL_MAX {
        return Err(Problem::bad("ttl is too long")
            .found(format!("{} s", ttl.as_secs()))
            .wanted("at most \"30d\""));
    }
    let controls = match wanted.controls.is_empty() {
        true => vec![asked_at(&uri, &headers)?],
        false => wanted.controls,
    };
    if let Some(wrong) = controls.iter().find(|url| url.parse::<ControlAddress>().is_err()) {
        return Err(Problem::bad("controls: this is no address of a control")
            .found(format!("{wrong:?}"))
            .wanted("e.g. \"https://control-1.example:7700\""));
    }
    let id = random_hex::<6>().map_err(no_chance)?;
    let secret = random_hex::<32>().map_err(no_chance)?;
    let enrolment = Enrolment {
        id: id.clone(),
        role: wanted.role,
        pop: wanted.pop,
        name: wanted.name,
        hash: text_hash(secret.as_bytes()),
        uses,
        uses_left: uses,
        by: caller.name().to_owned(),
        expires_ms: now_ms() + ms(ttl),
    };
    let authority = shared.authority.fingerprint().to_owned();
    let token = EnrolmentToken { controls, authority, id: id.clone(), secret }.to_string();
    let made = EnrolmentMade { enrolment: enrolment.shown(), token };
    let cell = Enrolment::cell(&id);
    let mut commit = Commit::swap(cell, 0, Some(cells::value(&enrolment)?));
    audit::note(&mut commit, caller.name(), "enrolment.add", &id, Some(enrolment.role.as_str()))?;
    match shared.commit_keyed(commit, keyed.as_ref(), StatusCode::CREATED, &made).await {
        Err(Error::Conflict(_)) => shared.replay_now(keyed.as_ref()).await,
        Err(error) => Err(error.into()),
        Ok(_) => Ok(answer(StatusCode::CREATED, &made)),
    }
}

/// The URL by which the caller has reached this control: over HTTP/2 its `:authority`, which takes the place of Host (RFC 9113 §8.3.1). One
/// without a port means 443 (RFC 9110 §4.2.2), a [`ControlAddress`] without one does not.
fn asked_at(uri: &Uri, headers: &HeaderMap) -> Result<String, Problem> {
    let of_host = || headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    uri.authority()
        .cloned()
        .or_else(of_host)
        .map(|host| format!("https://{}:{}", host.host(), host.port_u16().unwrap_or(443)))
        .ok_or_else(|| {
            Problem::bad("the request names no host")
                .next("say where nodes reach control: \"controls\": [\"https://…\"]")
        })
}

/// The enrolment tokens there are
#[utoipa::path(get, path = "/v1/enrolment-tokens", tag = "nodes",
    responses((status = 200, body = Enrolments), (status = "default", body = Problem)))]
pub(crate) async fn list_tokens(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Enrolments>, Problem> {
    caller.may(Role::Admin)?;
    let found = cells::load_all::<Enrolment>(&*shared.journal, "enrolments/").await?;
    Ok(Json(Enrolments { enrolments: found.iter().map(|(enrolment, _)| enrolment.shown()).collect() }))
}

/// Revoke an enrolment token
///
/// Nodes that it has let in stay.
#[utoipa::path(delete, path = "/v1/enrolment-tokens/{id}", tag = "nodes", params(("id" = String, Path)),
    responses((status = 200, body = Gone), (status = "default", body = Problem)))]
pub(crate) async fn revoke_token(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Gone>, Problem> {
    caller.may(Role::Admin)?;
    let cell = Enrolment::cell(&id);
    let Some((_, version)) = cells::load::<Enrolment>(&*shared.journal, &cell).await? else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such enrolment token")
            .found(format!("{id:?}"))
            .next("perigee enroll list shows them"));
    };
    let mut commit = Commit::swap(cell, version, None);
    audit::note(&mut commit, caller.name(), "enrolment.revoke", &id, None)?;
    cells::commit(&*shared.journal, commit).await?;
    Ok(Json(Gone { name: id, gone: true }))
}

/// Forgets enrolment tokens that have ended long ago, used up or not.
pub(crate) async fn sweep(journal: &dyn Journal) -> Result<(), Error> {
    let until = now_ms() - ms(ENROLMENTS_KEPT);
    let found = cells::load_all::<Enrolment>(journal, "enrolments/").await?;
    let ended = found.into_iter().filter(|(enrolment, _)| enrolment.expires_ms < until);
    let ended: Vec<_> = ended.map(|(enrolment, _)| (Enrolment::cell(&enrolment.id), None)).collect();
    for part in ended.chunks(CELLS_MAX) {
        cells::commit(journal, Commit { cells: part.to_vec(), ..Commit::default() }).await?;
    }
    Ok(())
}

// --- Joining and staying ---

/// A node that wants to join.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct JoinWanted {
    /// Of the enrolment token.
    id: String,
    /// Of the enrolment token.
    secret: String,
    /// What it is: a token for another role does not let it in. Older ones don't say.
    #[serde(default)]
    role: Option<NodeRole>,
    /// The name that it wants; a token for another name does not let it in.
    #[serde(default)]
    name: Option<String>,
    /// Where it stands, if it is an edge: a token for another place does not let it in. Older ones don't say.
    #[serde(default)]
    pop: Option<String>,
    /// Its certificate request, in PEM. Only the key counts, and that the node has it.
    request: String,
}

/// A certificate of the cluster.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Joined {
    name: String,
    role: NodeRole,
    /// The place where it stands.
    pop: String,
    /// In PEM.
    certificate: String,
    /// The authority's certificate, in PEM.
    authority: String,
    /// The end of the certificate, in ms since 1970. It is renewed after two thirds of its life.
    until_ms: i64,
}

/// Join a cluster
#[utoipa::path(post, path = "/v1/enroll", tag = "nodes", request_body = JoinWanted, security(()),
    responses((status = 201, body = Joined), (status = "default", body = Problem)))]
pub(crate) async fn enroll(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Problem> {
    let too_many = |too_much: TooMuch| {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many attempts from this address")
            .retry_after(too_much.wait_secs())
    };
    let held_back = shared.may_be_refused(client.address.ip()).err();
    // All other fields are let go of while the body is waited for.
    let media_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let headers = media_type.map(|media_type| (header::CONTENT_TYPE, media_type)).into_iter().collect();
    let body = shared.sent_by(&client, request).await?;
    let wanted: JoinWanted =
        read_json(&headers, &body, r#"{"id": "…", "secret": "…", "name": "fra-1", "request": "PEM"}"#)?;
    // Before there is work with it: a signature to verify, and a cell to read.
    if let Some(too_much) = held_back
        && !shared.known_enrolments.have(&*shared.journal, &wanted).await
    {
        return Err(too_many(too_much));
    }
    let refused = || {
        if let Err(too_much) = shared.refuse(client.address.ip()) {
            return too_many(too_much);
        }
        Problem::new(StatusCode::UNAUTHORIZED, "the cluster has no such enrolment token")
            .next("it was revoked, or is of another cluster; have another one made: perigee enroll")
    };
    let is_id = wanted.id.len() <= 64 && wanted.id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Err(refused());
    }
    let key = read_request(&wanted.request)?;
    for _ in 0..ATTEMPTS_MAX {
        let cell = Enrolment::cell(&wanted.id);
        let Some((mut enrolment, version)) = cells::load::<Enrolment>(&*shared.journal, &cell).await? else {
            return Err(refused());
        };
        if enrolment.hash != text_hash(wanted.secret.as_bytes()) {
            return Err(refused());
        }
        check_fits(&enrolment, &wanted)?;
        let name = enrolment.name.clone().or_else(|| wanted.name.clone()).ok_or_else(|| {
            Problem::bad("neither the node nor its token says a name")
                .next("name it in the node's configuration: name = \"fra-1\"")
        })?;
        check_name("name", &name)?;
        if shared.view.get().nodes.len() >= NODES_MAX {
            return Err(Problem::new(StatusCode::CONFLICT, "the cluster has too many nodes")
                .wanted(format!("at most {NODES_MAX}")));
        }
        // What others have enrolled or configured a moment ago counts too.
        let _noted_and_shown = shared.refresh_view().await;
        let view = shared.view.get();
        let edges = budgets::edges(&view) + u32::from(!view.nodes.contains_key(&name));
        if enrolment.role == NodeRole::Edge
            && let Some(budget) = view.snapshots().find_map(|of| budgets::without_floor(of, edges))
        {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "the cluster has as many edges as a budget is for",
            )
            .found(budget)
            .next("say in the budget how many there may be, nodes = …, and apply that first"));
        }
        let certificate = shared
            .authority
            .issue_node(enrolment.role.as_trusted(), &name, &enrolment.pop, &key.public_key)
            .map_err(|error| Problem::bad("no certificate can be made for this request").found(error))?;
        let node = node_of(&certificate, &enrolment, &name)?;
        let node_cell = Node::cell(&name);
        // Whose answer got lost asks again, with the same key.
        if let Some((known, _)) = cells::load::<Node>(&*shared.journal, &node_cell).await?
            && (&known.key, &known.token) == (&node.key, &node.token)
        {
            return Ok(answer(StatusCode::CREATED, &shared.joined(&known, certificate)));
        }
        check_enrolment(&enrolment)?;
        enrolment.uses_left -= 1;
        let mut commit = Commit {
            expect: vec![(cell.clone(), version), (node_cell.clone(), 0)],
            cells: vec![
                (cell.clone(), Some(cells::value(&enrolment)?)),
                (node_cell.clone(), Some(cells::value(&node)?)),
            ],
            record: None,
        };
        audit::note(
            &mut commit,
            &enrolment.by,
            "node.enroll",
            &name,
            Some(&format!("by enrolment token {}", enrolment.id)),
        )?;
        match cells::commit(&*shared.journal, commit).await {
            Ok(_) => {
                let _noted_and_shown = shared.refresh_view().await;
                return Ok(answer(StatusCode::CREATED, &shared.joined(&node, certificate)));
            }
            Err(Error::Conflict(conflict)) if conflict == node_cell => {
                return Err(Problem::new(StatusCode::CONFLICT, "there is a node of this name already")
                    .found(format!("{name:?}"))
                    .next(
                        "give it another name; if this one takes that one's place: perigee nodes retire NAME",
                    ));
            }
            // Another node has used the token at the same moment.
            Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "many nodes use this token at the same time")
        .retry_after(1))
}

/// The enrolment tokens there are, by whose address has failed too often: behind it (NAT) may be a node that does not belong to who fails.
///
/// That is no help for guessing: a secret has 256 bits, and is compared by its hash. What the limit is about is the work, which is one hash
/// here, and one reading of the tokens in [`KNOWN_INTERVAL`] for all who ask, however many guess. Whoever has shown a token that there is
/// is read and refused as ever; one that was made since the last reading is told to come again.
#[derive(Default)]
pub(crate) struct KnownEnrolments(tokio::sync::Mutex<(Option<Instant>, HashMap<String, String>)>);

impl KnownEnrolments {
    async fn have(&self, journal: &dyn Journal, wanted: &JoinWanted) -> bool {
        let hash = text_hash(wanted.secret.as_bytes());
        let mut known = self.0.lock().await;
        let (read, hashes) = &mut *known;
        if read.is_none_or(|read| read.elapsed() >= KNOWN_INTERVAL) {
            // What cannot be read stays as it was.
            if let Ok((found, _)) = cells::load_readable::<Enrolment>(journal, "enrolments/").await {
                *hashes = found.into_iter().map(|enrolment| (enrolment.id, enrolment.hash)).collect();
            }
            *read = Some(Instant::now());
        }
        hashes.get(&wanted.id) == Some(&hash)
    }
}

/// Whether the token is for this node.
fn check_fits(enrolment: &Enrolment, wanted: &JoinWanted) -> Result<(), Problem> {
    let refused = |error: String, next: String| Err(Problem::new(StatusCode::CONFLICT, error).next(next));
    if let Some(role) = wanted.role.filter(|role| *role != enrolment.role) {
        let (is_for, role) = (enrolment.role.as_str(), role.as_str());
        let pop = if role == "edge" { " --pop NAME" } else { "" };
        return refused(
            format!("the token is for a node of role {is_for:?}, and this one's role is {role:?}"),
            format!(
                "have a token made for this one: perigee enroll --role {role}{pop}; or start what the token is for: perigee {is_for}"
            ),
        );
    }
    // It would use the token up, and then refuse a certificate for another name than its own.
    if let (Some(is_for), Some(name)) = (&enrolment.name, &wanted.name)
        && is_for != name
    {
        return refused(
            format!("the token is for the name {is_for:?}, and this node's file says {name:?}"),
            format!(
                "give it the name {is_for:?} in its file; or have a token made for the other name: perigee enroll"
            ),
        );
    }
    // Control would roll out to the one PoP, and the node take what is for the other.
    if let Some(stands) = wanted.pop.as_ref().filter(|stands| **stands != enrolment.pop)
        && enrolment.role == NodeRole::Edge
    {
        let is_for = &enrolment.pop;
        return refused(
            format!("the token is for PoP {is_for:?}, and this node's file says pop = {stands:?}"),
            format!(
                "write pop = {is_for:?} in [cluster]; or have a token made for the other PoP: perigee enroll"
            ),
        );
    }
    Ok(())
}

fn check_enrolment(enrolment: &Enrolment) -> Result<(), Problem> {
    let refused = |error: &str| {
        Problem::new(StatusCode::FORBIDDEN, error)
            .found(format!("enrolment token {}", enrolment.id))
            .next("have another one made: perigee enroll")
    };
    if enrolment.expires_ms <= now_ms() {
        return Err(refused("the enrolment token has expired"));
    }
    match enrolment.uses_left {
        0 => Err(refused("the enrolment token has been used up")),
        _ => Ok(()),
    }
}

/// A request that is signed by its key.
fn read_request(pem: &str) -> Result<CertificateSigningRequestParams, Problem> {
    CertificateSigningRequestParams::from_pem(pem).map_err(|error| {
        Problem::bad("request is no certificate request in PEM")
            .found(error.to_string())
            .wanted("PKCS #10, signed by a key of P-256")
    })
}

fn read_certificate(pem: &str) -> Result<Peer, Problem> {
    use rustls::pki_types::pem::PemObject;
    let read =
        rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string());
    let peer = read.and_then(|certificate| Peer::of(&certificate));
    peer.ok().filter(|peer| peer.public_key.len() == 65).ok_or_else(|| {
        Problem::bad("the key of the request is none of P-256")
            .wanted("an elliptic curve key on P-256 (prime256v1)")
    })
}

fn node_of(certificate: &str, enrolment: &Enrolment, name: &str) -> Result<Node, Problem> {
    Ok(Node {
        name: name.to_owned(),
        role: enrolment.role,
        pop: enrolment.pop.clone(),
        key: BASE64_STANDARD.encode(read_certificate(certificate)?.public_key),
        token: enrolment.id.clone(),
        enrolled_ms: now_ms(),
        certificate_until_ms: now_ms() + ms(NODE_CERTIFICATE),
    })
}

impl Shared {
    fn joined(&self, node: &Node, certificate: String) -> Joined {
        Joined {
            name: node.name.clone(),
            role: node.role,
            pop: node.pop.clone(),
            certificate,
            authority: self.authority.pem().to_owned(),
            until_ms: node.certificate_until_ms,
        }
    }

    /// The node at the other end: enrolled, not retired, with the key that it has been enrolled with.
    pub(crate) async fn node_of(&self, client: &Client, may_be_expired: bool) -> Result<Arc<Node>, Problem> {
        let peer = client.node.as_ref().ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "this path is for nodes, and the connection has no certificate of the cluster",
            )
            .next("enrol the node: perigee enroll")
        })?;
        let refused = |error: &str| {
            Problem::new(StatusCode::FORBIDDEN, error)
                .found(format!("{} {:?}", peer.role.as_str(), peer.name))
                .next("enrol it again: perigee enroll")
        };
        let key = BASE64_STANDARD.encode(&peer.public_key);
        let known = || {
            let node = self.view.get().nodes.get(&peer.name).cloned();
            node.filter(|node| node.key == key && node.role.as_trusted() == peer.role)
        };
        let mut node = known();
        if node.is_none() {
            // Another control may have let it join a moment ago.
            let _unreachable = self.view.refresh(&*self.journal).await;
            node = known();
        }
        let node =
            node.ok_or_else(|| refused("the node has been retired, or its name is another's by now"))?;
        if peer.is_expired(now_ms() / 1000) && !may_be_expired {
            return Err(refused("the node's certificate has run out").next("POST /v1/renew"));
        }
        take_in(client, peer).map(|()| node)
    }
}

/// Counts a connection as a node's, or refuses it so that the node tries another control.
fn take_in(client: &Client, peer: &Peer) -> Result<(), Problem> {
    client.place.is_node(peer).map_err(|limit| match limit {
        Limit::ConnectionsPerNode => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this node has as many connections here as one may")
                .found(format!("{} {:?}", peer.role.as_str(), peer.name))
                .wanted(format!("at most {CONNECTIONS_PER_NODE_MAX} at a time"))
                .next("look whether several machines run with its state directory; each needs a name and a token of its own")
        }
        _ => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "this control has as many connections of nodes as it takes",
        )
        .next("ask another control, or a relay"),
    })
}

/// A node that wants its certificate renewed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RenewWanted {
    /// A certificate request in PEM, of the key that the node has been enrolled with.
    request: String,
}

/// Renew a node's certificate
///
/// Over a connection with the old one, which may have run out up to 90 days ago.
#[utoipa::path(post, path = "/v1/renew", tag = "nodes", request_body = RenewWanted, security(()),
    responses((status = 200, body = Joined), (status = "default", body = Problem)))]
pub(crate) async fn renew(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Joined>, Problem> {
    let node = shared.node_of(&client, true).await?;
    let body = shared.sent_by(&client, request).await?;
    let wanted: RenewWanted = read_json(&headers, &body, r#"{"request": "PEM"}"#)?;
    let key = read_request(&wanted.request)?;
    let issued = shared.authority.issue_node(node.role.as_trusted(), &node.name, &node.pop, &key.public_key);
    let certificate =
        issued.map_err(|error| Problem::bad("no certificate can be made for this request").found(error))?;
    if BASE64_STANDARD.encode(read_certificate(&certificate)?.public_key) != node.key {
        return Err(Problem::bad("the request is of another key than the node's")
            .next("keep the key; to have a new one, retire the node and enrol it again"));
    }
    let cell = Node::cell(&node.name);
    let Some((mut known, version)) = cells::load::<Node>(&*shared.journal, &cell).await? else {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the node has been retired").found(node.name.clone()));
    };
    known.certificate_until_ms = now_ms() + ms(NODE_CERTIFICATE);
    let commit = Commit::swap(cell, version, Some(cells::value(&known)?));
    cells::commit(&*shared.journal, commit).await?;
    Ok(Json(shared.joined(&known, certificate)))
}

/// A configuration's text, by its hash
#[utoipa::path(get, path = "/v1/blobs/{hash}", tag = "nodes", params(("hash" = String, Path)), security(()),
    responses((status = 200, body = String, content_type = "application/toml"), (status = "default", body = Problem)))]
pub(crate) async fn blob(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    Path(hash): Path<String>,
) -> Result<Response, Problem> {
    shared.node_of(&client, false).await?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let text = if is_hash { text_of(&*shared.journal, &hash).await? } else { None };
    let text = text.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no configuration has this hash")
            .found(hash)
            .wanted("SHA-256 in hex")
    })?;
    Ok(([(header::CONTENT_TYPE, "application/toml")], text).into_response())
}

// --- What nodes have proven ---

/// A node's signed word that it has applied the journal up to a position.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReceiptShown {
    node: String,
    pop: String,
    /// Up to here; at or past what was asked for.
    position: u64,
    /// The chain over all that the node has read up to there.
    digest: String,
    /// When, in ms since 1970 by the node's clock.
    at_ms: i64,
    /// Over `perigee receipt JOURNAL NODE POSITION DIGEST AT_MS`: ECDSA on P-256 with SHA-256, ASN.1, base64.
    signature: String,
    /// The node's public key, an uncompressed point of P-256, base64.
    key: String,
}

/// A node in service that has not proven it yet.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Laggard {
    node: String,
    pop: String,
    /// How far it has come; `null` when this control has not heard of it since it began, less than 30 seconds ago.
    position: Option<u64>,
    /// When it was heard of last, in ms since 1970.
    heard_ms: Option<i64>,
}

/// A node that is enrolled and has not been heard of for 30 seconds: nobody can say what it serves.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutOfContact {
    node: String,
    pop: String,
    /// How far it had come; `null` when this control has never heard of it.
    position: Option<u64>,
    /// When it was heard of last, in ms since 1970; `null` when never.
    heard_ms: Option<i64>,
}

/// Who has proven a position, and who has not.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Proof {
    receipts: Vec<ReceiptShown>,
    laggards: Vec<Laggard>,
    out_of_contact: Vec<OutOfContact>,
}

impl Proof {
    /// Done when there is a receipt and nobody in service lacks one.
    pub(crate) fn state(&self) -> PurgeState {
        match self.laggards.is_empty() && !self.receipts.is_empty() {
            true => PurgeState::Done,
            false => PurgeState::Waiting,
        }
    }

    /// Nodes whose receipts count.
    pub(crate) fn in_service(&self) -> usize {
        self.receipts.len() + self.laggards.len()
    }

    /// For a log line.
    pub(crate) fn laggard_names(&self) -> String {
        let names: Vec<&str> = self.laggards.iter().map(|laggard| &*laggard.node).collect();
        if names.is_empty() { "any node".to_owned() } else { names.join(", ") }
    }
}

impl Shared {
    /// Who has proven a position. Edges only: relays and routers keep nothing that could be stale.
    pub(crate) fn proof(&self, position: u64) -> Proof {
        let mut proof = Proof::default();
        for (node, heard) in self.nodes_heard().into_iter().filter(|(node, _)| node.role == NodeRole::Edge) {
            let (name, pop) = (node.name.clone(), node.pop.clone());
            let reached = heard.as_ref().map(|heard| heard.report.receipt.cursor.position);
            let receipt = if reached >= Some(position) { self.hub.receipt(&name, position) } else { None };
            match (receipt, heard) {
                (Some(receipt), _) => {
                    proof.receipts.push(ReceiptShown {
                        node: name,
                        pop,
                        position: receipt.cursor.position,
                        digest: receipt.cursor.digest.to_string(),
                        at_ms: receipt.at_ms,
                        signature: receipt.signature,
                        key: node.key.clone(),
                    });
                }
                (None, heard) if self.is_in_service(heard.as_ref()) => proof.laggards.push(Laggard {
                    node: name,
                    pop,
                    position: reached,
                    heard_ms: heard.map(|heard| heard.heard_ms),
                }),
                (None, heard) => proof.out_of_contact.push(OutOfContact {
                    node: name,
                    pop,
                    position: reached,
                    heard_ms: heard.map(|heard| heard.heard_ms),
                }),
            }
        }
        // Nobody can say here what they have proven.
        for node in self.view.get().unreadable_nodes.iter().cloned() {
            proof.laggards.push(Laggard { node, pop: String::new(), position: None, heard_ms: None });
        }
        proof
    }

    /// Nodes that have been heard of lately.
    pub(crate) fn in_contact(&self) -> usize {
        self.nodes_heard().iter().filter(|(_, heard)| self.is_in_service(heard.as_ref())).count()
    }
}

// --- API ---

/// A configuration that a node would not take.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusalShown {
    version: u64,
    why: String,
}

/// A disk of a node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiskShown {
    /// Its directory.
    name: String,
    /// `well`; `full`: it is read, and a write found no room; `failed`: it is out of use until the next start.
    health: String,
    /// Bytes that are stored, and that there is room for.
    bytes: u64,
    bytes_max: u64,
    /// Objects and slices.
    records: u64,
}

/// A certificate that visitors of a node see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CertificateShown {
    /// The first of its names, and how many it has.
    name: String,
    names: usize,
    issuer: String,
    /// Its end, in ms since 1970.
    until_ms: i64,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeShown {
    name: String,
    role: NodeRole,
    pop: String,
    enrolled_ms: i64,
    /// The end of its certificate, in ms since 1970.
    certificate_until_ms: i64,
    /// Whether it has been heard of in the last 30 seconds: then purges wait for it.
    in_service: bool,
    /// When it was heard of last, in ms since 1970; `null` when never.
    heard_ms: Option<i64>,
    /// Version of its program.
    software: Option<String>,
    /// The configuration that it runs.
    running: Option<u64>,
    /// The one that it is to run.
    wanted: Option<u64>,
    /// The one that it would not take.
    refused: Option<RefusalShown>,
    /// Why it does not answer what it asks itself, as routers do each second.
    unwell: Option<String>,
    /// Up to where it has applied the journal.
    position: Option<u64>,
    /// How far that is behind the newest position, as positions go.
    behind: Option<u64>,
    /// Starts of its program since it was enrolled.
    starts: Option<u64>,
    /// Requests since its program started, and of these with a status of 500 to 599, and from the cache.
    requests: Option<u64>,
    errors: Option<u64>,
    hits: Option<u64>,
    /// Resident memory of its program.
    memory_bytes: Option<u64>,
    /// Its disks; `null` when it has not been heard of.
    disks: Option<Vec<DiskShown>>,
    /// Those certificates for visitors that end first, at most 16.
    certificates: Option<Vec<CertificateShown>>,
    /// How many it has in all.
    certificate_count: Option<usize>,
}

fn disks(holdings: &Holdings) -> Vec<DiskShown> {
    let shown = holdings.disks.iter().map(|disk| DiskShown {
        name: disk.name.clone(),
        health: disk.health.clone(),
        bytes: disk.bytes,
        bytes_max: disk.bytes_max,
        records: disk.records,
    });
    shown.collect()
}

fn certificates(holdings: &Holdings) -> Vec<CertificateShown> {
    let shown = holdings.certificates.iter().map(|certificate| CertificateShown {
        name: certificate.name.clone(),
        names: certificate.names,
        issuer: certificate.issuer.clone(),
        until_ms: certificate.until_ms,
    });
    shown.collect()
}

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Nodes {
    /// When it was so, in ms since 1970 by this control's clock.
    at_ms: i64,
    nodes: Vec<NodeShown>,
}

/// The nodes there are
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    responses((status = 200, body = Nodes), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Nodes>, Problem> {
    caller.may(Role::Viewer)?;
    let (head, view) = (shared.tail.head(), shared.view.get());
    let nodes = shared.nodes_heard().into_iter().map(|(node, heard)| {
        let report = heard.as_ref().map(|heard| &heard.report);
        let position = report.map(|report| report.receipt.cursor.position);
        NodeShown {
            name: node.name.clone(),
            role: node.role,
            pop: node.pop.clone(),
            enrolled_ms: node.enrolled_ms,
            certificate_until_ms: node.certificate_until_ms,
            in_service: shared.is_in_service(heard.as_ref()),
            heard_ms: heard.as_ref().map(|heard| heard.heard_ms),
            software: report.map(|report| report.software.clone()),
            running: report.and_then(|report| report.running),
            wanted: (node.role != NodeRole::Relay)
                .then(|| view.plan.version_for(&node.name, &node.pop).map(|version| version.number))
                .flatten(),
            refused: report
                .and_then(|report| report.refused.as_ref())
                .map(|refusal| RefusalShown { version: refusal.version.number, why: refusal.why.clone() }),
            unwell: report.and_then(|report| report.unwell.clone()),
            position,
            behind: position.map(|position| head.saturating_sub(position)),
            starts: report.map(|report| report.starts),
            requests: report.map(|report| report.vitals.requests),
            errors: report.map(|report| report.vitals.errors),
            hits: report.map(|report| report.vitals.hits),
            memory_bytes: report.map(|report| report.vitals.memory_bytes),
            disks: report.map(|report| disks(&report.holdings)),
            certificates: report.map(|report| certificates(&report.holdings)),
            certificate_count: report.map(|report| report.holdings.certificate_count),
        }
    });
    Ok(Json(Nodes { at_ms: now_ms(), nodes: nodes.collect() }))
}

/// Retire a node
///
/// Its certificate is not accepted any more, purges do not wait for it, and its name is free.
#[utoipa::path(delete, path = "/v1/nodes/{name}", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, body = Gone), (status = "default", body = Problem)))]
pub(crate) async fn retire(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Gone>, Problem> {
    caller.may(Role::Admin)?;
    let cell = Node::cell(&name);
    let Some((node, version)) = cells::load::<Node>(&*shared.journal, &cell).await? else {
        let view = shared.view.get();
        return Err(Problem::unknown(
            "there is no node of this name",
            &name,
            view.nodes.keys().map(String::as_str),
            "perigee nodes lists them",
        ));
    };
    let mut commit = Commit::swap(cell, version, None);
    audit::note(&mut commit, caller.name(), "node.retire", &name, None)?;
    cells::commit(&*shared.journal, commit).await?;
    shared.view.forget(&node.key);
    let _noted_and_shown = shared.refresh_view().await;
    shared.forget_retired();
    Ok(Json(Gone { name, gone: true }))
}

// --- The feed ---

/// Which records a relay asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JournalQuery {
    /// Records above this position.
    after: u64,
    /// How many at most.
    limit: usize,
}

/// A part of the journal, for relays
#[utoipa::path(get, path = "/v1/journal", tag = "nodes", params(JournalQuery), security(()),
    responses((status = 200, description = "records", content_type = "application/json"),
        (status = 410, description = "the journal begins later by now", content_type = "application/json"),
        (status = "default", body = Problem)))]
pub(crate) async fn journal(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    query: Result<Query<JournalQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    shared.node_of(&client, false).await?;
    let Query(query) = query.map_err(|error| Problem::bad(error.body_text()).wanted("?after=7&limit=500"))?;
    let (status, text) = shared.hub.page(query.after, query.limit).await;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Follow the journal
///
/// Both bodies are lines of JSON and go on for as long as the node follows: what it says, and what it is told.
#[utoipa::path(post, path = "/v1/feed", tag = "nodes", security(()),
    responses((status = 200, description = "lines of JSON", content_type = "application/x-ndjson"),
        (status = "default", body = Problem)))]
pub(crate) async fn feed(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Problem> {
    let peer = match client.node.clone() {
        Some(peer) if peer.role == trust::Role::Control => {
            check_peer(&shared.view, &peer).map_err(|why| Problem::new(StatusCode::FORBIDDEN, why))?;
            take_in(&client, &peer)?;
            peer
        }
        Some(peer) => {
            shared.node_of(&client, false).await?;
            peer
        }
        None => {
            let error = "the connection has no certificate of the cluster";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, error));
        }
    };
    let told = shared.hub.serve(peer, request.into_body());
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(told)).into_response())
}

// --- Who has been heard of ---

/// Whether a feed may begin and go on: a control with a certificate that has not run out, or a node that has not been retired. Of a node
/// the certificate counts that it was given last, as it dials with that one only the next time; and the one that it shows, as an older copy
/// of the journal does not know the last one.
pub(crate) fn check_peer(view: &View, peer: &Peer) -> Result<(), String> {
    let shown_is_over = peer.is_expired(now_ms() / 1000);
    let is_over = match peer.role {
        trust::Role::Control => shown_is_over,
        _ => {
            let picture = view.get();
            let node = picture.nodes.get(&peer.name);
            let node = node.filter(|node| node.key == BASE64_STANDARD.encode(&peer.public_key));
            let given = node.ok_or_else(|| format!("{} has been retired", peer.name))?.certificate_until_ms;
            shown_is_over && given < now_ms()
        }
    };
    match is_over {
        true => Err(format!("the certificate of {} has run out", peer.name)),
        false => Ok(()),
    }
}

/// Whether a report may be believed: the node is enrolled, whoever says it may speak for it, and the receipt is signed by the
/// node's own key.
pub(crate) fn check_report(view: &View, journal: &str, peer: &Peer, report: &Report) -> Result<(), String> {
    let picture = view.get();
    let Some(node) = picture.nodes.get(&report.node) else {
        return Err(format!("{} is not enrolled", report.node));
    };
    let is_itself = peer.name == report.node && peer.role == node.role.as_trusted();
    if !is_itself && !matches!(peer.role, trust::Role::Control | trust::Role::Relay) {
        return Err(format!("{} speaks for {}", peer.name, report.node));
    }
    let has_peer = || picture.nodes.get(&peer.name).is_some_and(|node| node.role.as_trusted() == peer.role);
    if peer.role == trust::Role::Relay && !has_peer() {
        return Err(format!("the relay {} has been retired", peer.name));
    }
    let receipt = &report.receipt;
    let signed =
        receipt_signed(journal, &report.node, receipt.cursor.position, &receipt.cursor.digest, receipt.at_ms);
    let key = BASE64_STANDARD.decode(&node.key).unwrap_or_default();
    match trust::verify(&key, &signed, &receipt.signature) {
        true => Ok(()),
        false => Err(format!("the receipt of {} is not signed by its key", report.node)),
    }
}

impl Shared {
    /// Whether a node is in service, as far as is known: it beats each second. A control that has just begun has heard of nobody, and
    /// one that does not hear another control has not heard of that one's nodes: they must not take anybody for gone.
    pub(crate) fn is_in_service(&self, heard: Option<&Seen>) -> bool {
        heard.map_or_else(|| self.begun.elapsed(), |heard| heard.silent_for) <= OUT_OF_CONTACT
            || !self.unheard_controls().is_empty()
    }

    /// All nodes, with what was heard of them last.
    pub(crate) fn nodes_heard(&self) -> Vec<(Arc<Node>, Option<Seen>)> {
        let view = self.view.get();
        view.nodes.values().map(|node| (Arc::clone(node), self.hub.node(&node.name))).collect()
    }

    /// Returns once a report has come after this was called.
    pub(crate) fn receipts_changed(&self) -> impl Future<Output = ()> + use<> {
        let mut news = self.hub.news();
        async move {
            // It ends with the hub, and then so does everything.
            let _ended = news.changed().await;
        }
    }

    /// Forgets what nodes have said that are not enrolled any more.
    pub(crate) fn forget_retired(&self) {
        let view = self.view.get();
        for seen in self.hub.nodes() {
            if !view.nodes.contains_key(&seen.report.node) {
                self.hub.forget(&seen.report.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use journal::Journal;
    use journal::memory::Memory;

    use super::*;

    #[tokio::test]
    async fn a_feed_goes_on_with_the_newest_certificate_of_its_node_and_not_without() {
        let now = now_ms();
        let peer = |role, name: &str, until_ms: i64| Peer {
            name: name.to_owned(),
            role,
            pop: None,
            public_key: vec![7],
            valid: (0, until_ms / 1000),
        };
        let node = |name: &str, key: &[u8], until_ms| Node {
            name: name.to_owned(),
            role: NodeRole::Edge,
            pop: "fra".to_owned(),
            key: BASE64_STANDARD.encode(key),
            token: String::new(),
            enrolled_ms: 0,
            certificate_until_ms: until_ms,
        };
        let (journal, view) = (Memory::new("j", 1), View::default());
        for node in [
            node("renewed", &[7], now + 60_000),
            node("late", &[7], now - 60_000),
            node("older", &[7], now - 60_000),
            node("new", &[8], now + 60_000),
        ] {
            let cells = vec![(Node::cell(&node.name), Some(cells::value(&node).unwrap()))];
            journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
        }
        view.refresh(&journal).await.unwrap();
        let check = |role, name, until_ms| check_peer(&view, &peer(role, name, until_ms));
        let edge = trust::Role::Edge;
        assert_eq!(check(edge, "renewed", now - 60_000), Ok(()));
        assert_eq!(check(edge, "late", now - 60_000), Err("the certificate of late has run out".to_owned()));
        assert_eq!(
            check(edge, "older", now + 60_000),
            Ok(()),
            "the journal was put back, and knows the one before"
        );
        for gone in ["new", "none"] {
            assert_eq!(check(edge, gone, now + 60_000), Err(format!("{gone} has been retired")));
        }
        assert_eq!(check(trust::Role::Control, "c2", now + 60_000), Ok(()));
        assert!(check(trust::Role::Control, "c2", now - 60_000).is_err());
    }
}
