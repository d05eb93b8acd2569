//! Several edges as tiers: whom a fetch asks before it asks the origin, in which words, and what it takes for an answer.
//!
//! ```text
//! visitor ─► edge ─► owner of the key in the PoP ─► shield: owner of the key there ─► fall-back shield ─► origin
//!             └─────── passed over: gone, slow, or older than a purge that is known here ──────┘
//! ```
//!
//! A request between edges is an ordinary request with [`Asked`] beside it, and goes through the ordinary machine: so an owner
//! or a shield answers from its cache, joins a fetch that is under way, or begins one. Nobody asks further back than its own
//! place: an owner asks no owner and a shield no other PoP, so nothing runs in circles. Who is asked instead of an owner, because that one
//! has more to do or could not be reached from there, asks the owner once more.
//!
//! What goes between edges besides what is HTTP's own, in fields that begin with `Perigee-Tier-` and that no visitor and no
//! origin can say:
//!
//! | field | in | says |
//! |---|---|---|
//! | `Perigee-Tier-Hop` | request | `peer` or `shield`: in whose place it is asked |
//! | `Perigee-Tier-Position` | request | the answer must know of purges up to here, or (`now`) be validated |
//! | `Perigee-Tier-Passes` | request | the asker keeps nothing of the answer, so it may be encoded as its visitor likes |
//! | `Perigee-Tier-Instead` | request | the owner has more to do or was not reached, and is to be asked for what the one asked has not |
//! | `Perigee-Tier-Position` | answer | it does know of those up to here |
//! | `Perigee-Tier-Ttl` | answer | seconds for which it is fresh; negative when stale |
//! | `Perigee-Tier-Timing` | answer | what the hops behind took, as in Server-Timing |
//! | `Perigee-Tier-Failed` | answer | it is no answer of the origin's: why there is none |

mod trust;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use model::positions::NOW;
use model::rule::ClientCertificate;
use model::tiers::{Node, rank, spread};
use model::{Origin, OriginGroup, Scheme, Site, Snapshot};
use observe::{Hop, HopEnd};
use semantics::fields::is_one_of;
use semantics::key::{KeySeed, hash, normalise_host};
use semantics::{Fields, Outcome, Why, hop};

use crate::answer::Answer;
use crate::fetch::{self, Job, sent_target};
use crate::flight::Flight;
use crate::loaded::RuleAt;
use crate::lookup;
use crate::origin::{FetchError, OriginRequest, OriginResponse, Patience, RequestBody};
use crate::request::{Request, RequestId};
use crate::tracing::{self, Asking};
use crate::worker::{Shared, Worker};

pub(crate) use self::trust::Certified;
pub use self::trust::TierIdentity;

/// How the fields between edges begin.
const PREFIX: &[u8] = b"perigee-tier-";
const HOP: &str = "Perigee-Tier-Hop";
const POSITION: &str = "Perigee-Tier-Position";
const PASSES: &str = "Perigee-Tier-Passes";
const INSTEAD: &str = "Perigee-Tier-Instead";
const TTL: &str = "Perigee-Tier-Ttl";
const TIMING: &str = "Perigee-Tier-Timing";
const FAILED: &str = "Perigee-Tier-Failed";

/// Nodes of a PoP that are asked for a key, one after the other. Both gone at once is an outage of the place.
const NODES_ASKED_MAX: usize = 2;

/// Time for a connection to another edge, TLS included: three round trips of a third of the earth.
const CONNECT: Duration = Duration::from_millis(1000);

/// Time for another edge's answer, at least: an owner may wait for a shield and that for an origin. That it lives is seen by pings
/// meanwhile, so one that is gone or stands still is passed over within seconds.
const FIRST_BYTE_MIN: Duration = Duration::from_secs(120);

/// How much longer an edge is waited for than it waits itself: it is to say what has failed, and not to be given up first.
const LONGER: Duration = Duration::from_secs(5);

/// How long a connection to another edge is kept without use.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// Exchanges at a time with one edge, per worker: streams of one connection.
pub(crate) const STREAMS_MAX: u32 = 1000;

/// A site with `max_purge_lag` takes no copy that was not validated while nothing was heard for this long: what another node
/// has not heard either would count twice. Control is heard every second.
const SILENCE_MAX: Duration = Duration::from_secs(5);

// --- The tiers of a configuration ---

/// The tiers as this node sees them. None on an edge that is no node of a PoP.
pub(crate) struct Tiers {
    /// Its PoP, as an index.
    pop: usize,
    /// This node in it.
    node: usize,
    /// How to ask each other node, by its name.
    hops: HashMap<Box<str>, OriginGroup>,
}

impl Tiers {
    pub(crate) fn of(snapshot: &Snapshot) -> Option<Tiers> {
        let own = &*snapshot.edge.node;
        let pops = &snapshot.routing.pops;
        let is_own = |node: &Node| *node.name == *own;
        let pop = pops.iter().position(|pop| pop.nodes.iter().any(is_own))?;
        let node = pops[pop].nodes.iter().position(is_own)?;
        let others = pops.iter().flat_map(|pop| &pop.nodes).filter(|node| !is_own(node));
        let hops = others.map(|node| (node.name.clone(), group_of(node))).collect();
        Some(Tiers { pop, node, hops })
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &OriginGroup> {
        self.hops.values()
    }
}

/// Another edge as an origin: pools, breaker and time-outs are the same.
fn group_of(node: &Node) -> OriginGroup {
    let timeouts = model::origin::Timeouts {
        connect: CONNECT,
        keep_alive: KEEP_ALIVE,
        ..model::origin::Timeouts::default()
    };
    OriginGroup::of(Origin {
        scheme: Scheme::Https,
        host: node.address.ip().to_string().into(),
        port: node.address.port(),
        path_prefix: "".into(),
        host_override: None,
        http2: true,
        tls: model::origin::Tls { node: Some(node.name.clone()), ..model::origin::Tls::default() },
        timeouts,
        connections_max: STREAMS_MAX,
    })
}

/// How long another edge is waited for: longer than it may wait for the site's origins, with the budget and fail-overs, and a peer
/// longer than the shield that it may ask, and one that is asked instead of the owner longer than that.
fn patience_for(origins: &OriginGroup, next: &Next<'_>) -> Patience {
    let longer = match (next.hop, next.is_instead) {
        (Hop::Peer, true) => 4 * LONGER,
        (Hop::Peer, false) => 3 * LONGER,
        (Hop::Shield, true) => 2 * LONGER,
        (Hop::Shield, false) => LONGER,
    };
    let of_all = |time: fn(&model::origin::Timeouts) -> Duration| {
        origins.origins.iter().map(move |origin| time(&origin.timeouts))
    };
    let turns = origins.budget.as_ref().map_or(Duration::ZERO, |budget| budget.queue);
    let answer: Duration =
        of_all(|timeouts| timeouts.connect + timeouts.first_byte).map(|time| time + turns).sum();
    let total = origins.origins.first().and_then(|origin| origin.timeouts.total);
    Patience {
        first_byte: answer.max(FIRST_BYTE_MIN) + longer,
        idle: of_all(|timeouts| timeouts.idle).max().unwrap_or_default() + longer,
        total: total.map(|total| total + longer),
    }
}

// --- Asked by another edge ---

/// What is known of a request that came from another edge.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// In whose place this node is asked.
    pub(crate) hop: Hop,
    /// Purges that the answer must know of: a position of the journal, 0 for none, or [`NOW`].
    pub(crate) demand: u64,
    /// Whether the answer is passed on to a visitor and not kept: then it may be an encoded copy. Whoever keeps it gets identity, of
    /// which all codings and all ranges can be made.
    pub(crate) passes_on: bool,
    /// Whether it is asked instead of the key's owner, which has more to do or was not reached.
    pub(crate) is_instead: bool,
}

/// Who the visitor is, as the edge says that has asked.
pub(crate) struct OnBehalf {
    pub(crate) client: IpAddr,
    pub(crate) secure: bool,
    pub(crate) id: RequestId,
}

/// What an edge says of its visitor to the next one.
const SAID_ANEW: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-request-id"];

impl Asked {
    /// Takes the fields of tiers out of a request that came from another edge. `None` when it says not what it should.
    pub(crate) fn take(fields: &mut Fields) -> Option<(Asked, OnBehalf)> {
        let text = |name| std::str::from_utf8(fields.get(name)?).ok();
        let hop = match fields.get(HOP)? {
            b"peer" => Hop::Peer,
            b"shield" => Hop::Shield,
            _ => return None,
        };
        let demand = text(POSITION).map_or(Some(0), read_position)?;
        let passes_on = fields.contains(PASSES);
        let is_instead = fields.contains(INSTEAD);
        let on_behalf = OnBehalf {
            client: text("x-forwarded-for")?.parse().ok()?,
            secure: fields.get("x-forwarded-proto")? == b"https",
            id: RequestId(u64::from_str_radix(text("x-request-id")?, 16).ok()?),
        };
        strip(fields);
        // Said anew to whoever is asked next, and no words of the visitor's.
        fields.retain(|name, _| !is_one_of(name, &SAID_ANEW));
        Some((Asked { hop, demand, passes_on, is_instead }, on_behalf))
    }
}

fn read_position(text: &str) -> Option<u64> {
    if text == "now" { Some(NOW) } else { text.parse().ok() }
}

fn write_position(fields: &mut Fields, position: u64) {
    match position {
        NOW => fields.append_unchecked(POSITION.as_bytes(), b"now"),
        position => fields.append_unchecked(POSITION.as_bytes(), position.to_string().as_bytes()),
    }
}

/// Takes off what only edges say to each other.
pub(crate) fn strip(fields: &mut Fields) {
    if fields.iter().any(|(name, _)| is_ours(name)) {
        fields.retain(|name, _| !is_ours(name));
    }
}

/// Whether a field is of those that only edges say to each other.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    name.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX))
}

/// What must be known to whoever answers a request; 0 for nothing, as to all visitors.
fn demand_of(request: &Request) -> u64 {
    request.asked.as_ref().map_or(0, |asked| asked.demand)
}

/// Whether something stored must be validated first, because another edge knows of a purge that this one has not heard of.
pub(crate) fn lags_behind(shared: &Shared, request: &Request) -> bool {
    request.asked.is_some() && shared.purge_positions.read().lags_behind(demand_of(request))
}

/// What a fetch that begins for `request` will know of besides this node's own position: what it is asked to know.
pub(crate) fn raised(shared: &Shared, request: &Request) -> u64 {
    if request.asked.is_none() { 0 } else { shared.purge_positions.read().raised(demand_of(request)) }
}

/// Whether `request` may have what a fetch brings that has begun for another.
pub(crate) fn may_follow(shared: &Shared, request: &Request, flight: &Flight) -> bool {
    request.asked.is_none()
        || shared.purge_positions.read().may_follow(demand_of(request), flight.position, flight.raised)
}

/// Appends to an answer for another edge what that wants to know of it.
pub(crate) fn write_told(out: &mut Vec<u8>, shared: &Shared, request: &Request, answer: &Answer) {
    let Some(asked) = &request.asked else { return };
    let mut fields = Fields::new();
    let claim = answer.position.map_or(0, |position| shared.purge_positions.read().claim(position));
    let claim = claim.max(answer.raised);
    write_position(&mut fields, claim);
    if let Some(ttl) = answer.note.ttl {
        fields.append_unchecked(TTL.as_bytes(), ttl.to_string().as_bytes());
    }
    // What this edge says by a rule of its own, the other one would have said by itself, if it had the same rule.
    if matches!(answer.note.why.outcome(), Outcome::Error | Outcome::Local) {
        fields.append_unchecked(FAILED.as_bytes(), answer.note.why.as_str().as_bytes());
    }
    let own_ms = request.started.elapsed().as_secs_f64() * 1000.0;
    let mut timing = format!("{};dur={own_ms:.3}", asked.hop.as_str());
    if let Some(origin) = &answer.origin {
        timing.push_str(", ");
        timing.push_str(&origin.timing());
    }
    fields.append_unchecked(TIMING.as_bytes(), timing.as_bytes());
    out.extend_from_slice(fields.as_block());
}

// --- Asking ---

/// What another edge has told of an answer that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// In whose place it was asked.
    pub(crate) hop: Hop,
    /// Its name.
    pub(crate) node: Box<str>,
    /// The own position up to which the answer is good.
    pub(crate) position: u64,
    /// Seconds for which it is fresh.
    pub(crate) ttl: Option<i64>,
    /// What the hops behind took.
    pub(crate) timing: Option<Box<str>>,
    /// Whether it is to be kept here, as was decided before it was asked for.
    pub(crate) is_kept: bool,
}

/// One edge that is asked before the origin is.
struct Next<'a> {
    hop: Hop,
    node: &'a str,
    group: &'a OriginGroup,
    is_instead: bool,
    is_second: bool,
}

/// What came of asking one.
enum Ended {
    Answered(Box<OriginResponse>),
    /// It was not reached, or broke off.
    Gone,
    /// It has no answer that can be taken.
    Declined,
}

/// Why an answer of another edge is not taken.
enum Declined {
    /// It is older than a purge that this node knows: to be asked again with this demand.
    Behind(u64),
    /// The other edge has no answer, and the next may have one.
    Refused(Why),
    /// The origin has none.
    Failed(Why),
}

/// Fetches for a job: from the tiers, as far as there are any, and at last from the origin. `except` names an edge that is not
/// to be asked.
///
/// Errors say which hop failed. Bounded by the time-outs of each; a hop that fails or declines is passed over and counted.
pub(crate) async fn fetch(
    job: &Job,
    except: Option<&str>,
    on_informational: impl Fn(u16, Fields),
) -> Result<OriginResponse, FetchError> {
    if let Some(tiers) = job.at.loaded.tiers()
        && !job.is_direct
        && job.at.rule().client_certificate == ClientCertificate::Off
        && job.request.method.is_cacheable()
    {
        // Nor one that has asked: while two do not know the same nodes, each can take the other for the owner, and both would wait.
        let may_be_asked = |next: &Next<'_>| {
            let has_asked =
                job.request.asked.is_some() && hop::cdn_passes(&job.request.fields, next.node) > 0;
            Some(next.node) != except && !has_asked
        };
        let mut is_owner_gone = false;
        for mut next in next_hops(job, tiers).into_iter().filter(may_be_asked) {
            // It may reach the owner all the same.
            next.is_instead |= next.is_second && is_owner_gone;
            is_owner_gone = match ask(job, &next).await? {
                Ended::Answered(response) => return Ok(*response),
                Ended::Gone => true,
                Ended::Declined => false,
            };
        }
    }
    let mut request = job.origin_request();
    let asking = Asking::begin(&job.worker, &job.request, tracing::FETCH, job.why, &mut request.fields);
    let mut fetched = job.worker.origins.fetch(&job.at.rule().origin, request, on_informational).await;
    Asking::ended(asking, &mut fetched);
    fetched
}

/// Asks one edge. An error says that the origin has no answer.
async fn ask(job: &Job, next: &Next<'_>) -> Result<Ended, FetchError> {
    let worker = &job.worker;
    let count = |end| worker.observer.hop_ended(next.hop, end);
    let mut demand = demanded(job);
    let is_kept = is_kept(job, next.hop);
    // Asked again at most once: who knows of a purge then and has an older copy is of no use.
    for _ in 0..2 {
        let mut request = hop_request(job, next, demand, is_kept);
        let asking = Asking::begin(worker, &job.request, next.hop.as_str(), job.why, &mut request.fields);
        let asking = asking.map(|asking| asking.of_node(next.node));
        let mut fetched = worker.origins.fetch(next.group, request, |_, _| {}).await;
        Asking::ended(asking, &mut fetched);
        let response = match fetched {
            Ok(response) => response,
            Err(error) => {
                count(HopEnd::Gone);
                worker.log_failure(&job.request, &error);
                return Ok(Ended::Gone);
            }
        };
        match accept(job, next, response, is_kept) {
            Ok(response) => {
                count(HopEnd::Answered);
                return Ok(Ended::Answered(Box::new(response)));
            }
            Err(Declined::Behind(wanted)) => {
                count(HopEnd::Behind);
                if wanted <= demand {
                    return Ok(Ended::Declined);
                }
                demand = wanted;
            }
            Err(Declined::Refused(why)) => {
                count(HopEnd::Refused);
                worker.log_failure(&job.request, &FetchError::relayed(next.node, why));
                return Ok(Ended::Declined);
            }
            Err(Declined::Failed(why)) => {
                count(HopEnd::Failed);
                return Err(FetchError::relayed(next.node, why));
            }
        }
    }
    Ok(Ended::Declined)
}

/// The edges to ask, in order.
fn next_hops<'a>(job: &'a Job, tiers: &'a Tiers) -> Vec<Next<'a>> {
    let (loaded, worker, key) = (&job.at.loaded, &job.worker, key_of(job));
    let asked = job.request.asked.as_ref();
    let load = |node: &Node| tiers.hops.get(&node.name).map_or(0, |group| worker.origins.in_flight(group));
    let load = worker.hot_keys.borrow().is_hot(key).then_some(&load as &dyn Fn(&Node) -> u32);
    let places = places(&loaded.snapshot, tiers, job.at.site(), key, asked, load);
    let next = |place: Place<'a>| {
        let Place { hop, node, is_instead, is_second } = place;
        tiers.hops.get(&node.name).map(|group| Next { hop, node: &node.name, group, is_instead, is_second })
    };
    places.into_iter().filter_map(next).collect()
}

/// One node that has a place before the origin.
struct Place<'a> {
    hop: Hop,
    node: &'a Node,
    /// It comes before the owner, which is to be asked by it.
    is_instead: bool,
    /// It comes next after the owner, in a shield.
    is_second: bool,
}

/// Where to ask for a key before the origin, in order. `asked`: how this node was asked itself; `load`: of a hot key, what each node
/// has to do.
fn places<'a>(
    snapshot: &'a Snapshot,
    tiers: &Tiers,
    site: &Site,
    key: u64,
    asked: Option<&Asked>,
    load: Option<&dyn Fn(&Node) -> u32>,
) -> Vec<Place<'a>> {
    let own_pop = &snapshot.routing.pops[tiers.pop];
    let mut places = Vec::new();
    if asked.is_none_or(|asked| asked.is_instead) {
        let order = rank(key, &own_pop.nodes);
        let owner = order[0];
        // Who comes before this node. Without any, it is the owner. By load it never becomes one: then each node whose peers are busy
        // would ask further back for what a peer has.
        let mut before: Vec<usize> = order.into_iter().take_while(|index| *index != tiers.node).collect();
        if asked.is_some() {
            before.truncate(1);
        } else if let Some(load) = load {
            spread(&mut before, |index| load(&own_pop.nodes[index]));
        }
        let first = before.first().copied();
        let hop = asked.map_or(Hop::Peer, |asked| asked.hop);
        places.extend(before.into_iter().take(NODES_ASKED_MAX).map(|index| Place {
            hop,
            node: &own_pop.nodes[index],
            is_instead: Some(index) == first && index != owner,
            is_second: false,
        }));
    }
    if asked.is_none_or(|asked| asked.hop != Hop::Shield) {
        for pop in site.shields_from(own_pop).iter().filter_map(|name| snapshot.routing.pop_named(name)) {
            let order = rank(key, &pop.nodes).into_iter().take(NODES_ASKED_MAX);
            places.extend(order.enumerate().map(|(turn, index)| Place {
                hop: Hop::Shield,
                node: &pop.nodes[index],
                is_instead: false,
                is_second: turn == 1,
            }));
        }
    }
    places
}

/// What decides about the owner: the same on every node, unlike what responses are stored under.
fn key_of(job: &Job) -> u64 {
    let mut text = Vec::with_capacity(128);
    lookup::write_request_key(&mut text, &job.at, &job.request);
    common_hash(&text)
}

/// The hash of a key text that all nodes compute alike.
fn common_hash(text: &[u8]) -> u64 {
    hash(&KeySeed([0; 16]), text) as u64
}

/// Counts a request that the cache could not answer, if there are tiers: what many ask for is kept also where it is not owned.
pub(crate) fn note_miss(worker: &Worker, has_tiers: bool, text: &[u8]) {
    if has_tiers {
        worker.hot_keys.borrow_mut().touch(common_hash(text));
    }
}

/// Whether this node is to keep what it was answered: what it owns, stands in for, or was asked for by others; what it has had
/// before; and what many ask it for. The rest is kept by one node for all.
fn is_kept(job: &Job, hop: Hop) -> bool {
    hop != Hop::Peer
        || job.request.asked.is_some()
        || job.stale.is_some()
        || job.worker.hot_keys.borrow().is_hot(key_of(job))
}

/// Whether an answer that is not kept may be an encoded copy. Not for parts, which are of identity, nor for who has something and asks
/// whether it is still the same: that is known of all codings only where the identity is.
fn may_be_encoded(job: &Job) -> bool {
    let conditions = ["if-none-match", "if-match", "if-range", "range"];
    job.range.is_none() && !conditions.iter().any(|name| job.request.fields.contains(name))
}

/// What the answer must know of: what this node knows, and what it is asked to know.
fn demanded(job: &Job) -> u64 {
    let (shared, request) = (&job.worker.shared, &job.request);
    let is_silent = || shared.heard.silence(&shared.clock).is_some_and(|silence| silence > SILENCE_MAX);
    if job.at.site().max_purge_lag.is_some() && is_silent() {
        return NOW;
    }
    let tags = job.stale.as_ref().map_or(&[][..], |stale| stale.tags());
    let known = lookup::with_subject(shared, &job.at, request, tags, 0, |subject| {
        shared.purge_positions.read().demands(&shared.purges.read(), subject)
    });
    known.max(demand_of(request))
}

/// Judges what another edge has answered: what it tells is taken off, and noted beside the answer if that is taken.
fn accept(
    job: &Job,
    next: &Next<'_>,
    mut response: OriginResponse,
    is_kept: bool,
) -> Result<OriginResponse, Declined> {
    let text = |name| std::str::from_utf8(response.fields.get(name)?).ok();
    if let Some(failed) = text(FAILED) {
        let why = Why::ALL.iter().copied().find(|why| why.as_str() == failed).unwrap_or(Why::Internal);
        response.body.close();
        return Err(match why {
            // What a shield cannot reach, another may.
            Why::OriginConnect if next.hop == Hop::Shield => Declined::Refused(why),
            Why::OriginConnect
            | Why::OriginTimeout
            | Why::OriginProtocol
            | Why::OriginDown
            | Why::OriginBudget => Declined::Failed(why),
            why => Declined::Refused(why),
        });
    }
    let Some(claim) = text(POSITION).and_then(read_position) else {
        // No edge says so little.
        response.body.close();
        return Err(Declined::Refused(Why::Internal));
    };
    let ttl = text(TTL).and_then(|ttl| ttl.parse().ok());
    let timing = text(TIMING).map(Into::into);
    let taken = position_of(job, &response.fields, claim).map_err(Declined::Behind);
    let position = match taken {
        Ok(position) => position,
        Err(declined) => {
            response.body.close();
            return Err(declined);
        }
    };
    strip(&mut response.fields);
    response.fields.remove("x-request-id");
    response.told =
        Some(Box::new(Told { hop: next.hop, node: next.node.into(), position, ttl, timing, is_kept }));
    Ok(response)
}

/// The own position up to which a copy with this claim is good; or what to demand, because it is older than a purge.
fn position_of(job: &Job, fields: &Fields, claim: u64) -> Result<u64, u64> {
    let (shared, request) = (&job.worker.shared, &job.request);
    let tags = match fetch::tags_of(&job.worker, &job.at, fields) {
        // It cannot be told by what it may have been purged.
        None if claim != NOW => return Err(NOW),
        tags => tags.unwrap_or_default(),
    };
    lookup::with_subject(shared, &job.at, request, &tags, 0, |subject| {
        let (positions, purges) = (shared.purge_positions.read(), shared.purges.read());
        positions.accepts(&purges, subject, claim, demand_of(request), job.position)
    })
}

/// The request as another edge gets it: the visitor's own words, so that it comes to the same rule, key and variant there.
fn hop_request(job: &Job, next: &Next<'_>, demand: u64, is_kept: bool) -> OriginRequest {
    let (worker, request) = (&job.worker, &job.request);
    let mut fields = request.fields.clone();
    job.retain_for_hop(&mut fields);
    fetch::append_way(&mut fields, worker, request);
    fields.append_unchecked(HOP.as_bytes(), next.hop.as_str().as_bytes());
    if next.is_instead {
        fields.append_unchecked(INSTEAD.as_bytes(), b"1");
    }
    if demand > 0 {
        write_position(&mut fields, demand);
    }
    if !is_kept && may_be_encoded(job) {
        fields.append_unchecked(PASSES.as_bytes(), b"1");
    }
    if job.askers.are_in_background() {
        // Whoever asks the origin for it is to know that nobody waits who has nothing.
        fields.remove("priority");
        fields.append_unchecked(b"Priority", b"u=7");
    }
    job.add_conditions(&mut fields);
    OriginRequest {
        method: request.method.as_str().into(),
        target: sent_target(&job.at, request).into(),
        host: normalise_host(&request.authority).into(),
        fields,
        body: RequestBody::Empty,
        retry_safe: true,
        takes_trailers: false,
        on_behalf_of: None,
        upgrade: None,
        askers: job.askers.clone(),
        patience: Some(patience_for(&job.at.rule().origin, next)),
    }
}

/// Which nodes are asked for a key text before the origin is, in order, with the place in which they are: for explanations.
pub(crate) fn explain(at: &RuleAt, text: &[u8]) -> Vec<(Hop, String)> {
    let Some(tiers) = at.loaded.tiers() else { return Vec::new() };
    let places = places(&at.loaded.snapshot, tiers, at.site(), common_hash(text), None, None);
    places.into_iter().map(|place| (place.hop, place.node.name.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_edges_say_what_only_edges_say() {
        let mut fields = Fields::new();
        for name in [
            "Perigee-Tier-Hop",
            "PERIGEE-Tier-Position",
            "perigee-tier-any",
            "Perigee-Cache-Control",
            "X-Perigee-Tier-Hop",
        ] {
            fields.append_unchecked(name.as_bytes(), b"1");
        }
        strip(&mut fields);
        let left: Vec<_> = fields.iter().map(|(name, _)| name.to_vec()).collect();
        assert_eq!(left, [b"Perigee-Cache-Control".to_vec(), b"X-Perigee-Tier-Hop".to_vec()]);
    }

    #[test]
    fn a_request_between_edges_says_who_asks_for_whom() {
        let words = |hop: &str, position: &str, client: &str| -> Fields {
            [
                ("Perigee-Tier-Hop", hop),
                ("Perigee-Tier-Position", position),
                ("X-Forwarded-For", client),
                ("X-Forwarded-Proto", "https"),
                ("X-Request-Id", "00000000000000ff"),
                ("Accept", "*/*"),
            ]
            .into_iter()
            .collect()
        };
        let mut fields = words("peer", "17", "192.0.2.7");
        let (asked, on_behalf) = Asked::take(&mut fields).unwrap();
        assert_eq!((asked.hop, asked.demand), (Hop::Peer, 17));
        assert_eq!(on_behalf.client, IpAddr::from([192, 0, 2, 7]));
        assert!(on_behalf.secure && on_behalf.id == RequestId(255));
        assert_eq!(fields.iter().count(), 1, "what is left is the visitor's");
        assert_eq!(Asked::take(&mut words("shield", "now", "::1")).unwrap().0.demand, NOW);
        for (hop, position, client) in
            [("origin", "1", "::1"), ("peer", "-1", "::1"), ("peer", "1", "somebody"), ("peer", "x", "::1")]
        {
            assert!(Asked::take(&mut words(hop, position, client)).is_none(), "{hop} {position} {client}");
        }
    }
}
