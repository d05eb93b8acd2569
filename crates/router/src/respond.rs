//! One query in, one answer out: for UDP and TCP alike, without waiting.
//!
//! Records of PoPs are made when the state is, one stretch of bytes per PoP and type with a pointer to the question's name as owner,
//! so that an answer is a header, the question, a copy, and OPT. Signatures depend on the name: each is made when it is first asked for
//! and kept by the responder, of which every thread has its own.
//!
//! Behind a PoP's addresses comes one of its spare's, where it has one ([`World::spares`]): who can't connect to the first tries the next.
//!
//! A PoP that is another CDN is a CNAME, whatever is asked for (RFC 1034 §3.6.2); at the zone's own name, where none may stand, its addresses.
//!
//! What bounds its use as an amplifier: answers by UDP are at most 1,232 bytes, ANY is answered with one record (RFC 8482), and one network
//! (/24, /56) gets no more than `rate` answers of one kind per second; of those beyond, every second one is told to come by TCP.
//! Who shows a cookie of ours (RFC 7873) is who it says, and isn't counted.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::{Pop, Snapshot};
use siphasher::sip::SipHasher24;

use crate::sign::{RENEW_SECS, Signer, nsec};
use crate::table::{Found, Table, View, World};
use crate::wire::{
    Bad, Edns, QUESTION_NAME, Query, UDP_BYTES_MAX, UDP_BYTES_PLAIN, name_of, rcode, read, rtype,
    write_record,
};
use crate::zone::{Lookup, Node, Zone, address_data, https_data};

/// Addresses of a PoP in one answer: more would not fit beside a signature, and no client tries more. Its spare's comes on top.
pub(crate) const ADDRESSES_MAX: usize = 8;
/// How long answers are kept while a PoP's state changes.
pub const FLAPPING_TTL: u32 = 10;
/// Signatures that a responder keeps; when there are more, it begins anew.
const SIGNATURES_MAX: usize = 65_536;
/// Networks whose answers are counted, per responder: two MiB.
const RATE_SLOTS: usize = 1 << 16;
/// How long a cookie of ours is good (RFC 9018 §4.3), and how far ahead of us its maker's clock may be.
const COOKIE_SECS: u32 = 3_600;
const COOKIE_AHEAD_SECS: u32 = 300;

/// Everything that an answer depends on; replaced as a whole.
#[derive(Debug)]
pub struct State {
    /// The zone.
    pub zone: Zone,
    /// PoPs and locations.
    pub world: Arc<World>,
    /// Where clients go, for each of [`Zone::groups`].
    pub tables: Vec<Table>,
    /// The spare of each PoP, for each of [`Zone::groups`].
    pub spares: Vec<Vec<Option<u16>>>,
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Whether each edge is up.
    pub up: BTreeMap<IpAddr, bool>,
    /// From what the tables were made, for whoever asks why.
    pub view: View,
    /// Answers of each PoP.
    pub pops: Vec<PopAnswers>,
    /// TTL of what is chosen.
    pub ttl: u32,
    /// The zone's key, if it is signed.
    pub signer: Option<Arc<Signer>>,
    /// Whether clients' networks are listened to.
    pub client_subnet: bool,
    /// Answers of a kind per second to one network; 0 is no limit.
    pub rate: u32,
    /// This server's name (NSID).
    pub node: Box<str>,
    /// From which cookies are made.
    pub cookie_secret: [u8; 16],
}

/// A PoP's records.
#[derive(Debug, Default)]
pub struct PopAnswers {
    /// Of another CDN, its name on the wire, and the record.
    cname: Option<(Vec<u8>, Vec<u8>)>,
    sets: [Vec<Vec<u8>>; 3],
    ttl: u32,
    plain: [Vec<u8>; 3],
}

const CHOSEN: [u16; 3] = [rtype::A, rtype::AAAA, rtype::HTTPS];

impl PopAnswers {
    /// Of a PoP whose living edges are these.
    pub fn new(pop: &Pop, edges: &[IpAddr], ttl: u32, https: bool) -> PopAnswers {
        let Some(cname) = &pop.cname else { return PopAnswers::of_edges(edges, ttl, https) };
        let mut record = Vec::new();
        // A name that is too long for DNS is refused with the configuration.
        let target = name_of(cname).unwrap_or_else(|| vec![0]);
        write_record(&mut record, &QUESTION_NAME, rtype::CNAME, ttl, &target);
        // What it says of HTTP/2 and HTTP/3 is its own affair.
        PopAnswers { cname: Some((target, record)), ..PopAnswers::of_edges(edges, ttl, false) }
    }

    fn of_edges(edges: &[IpAddr], ttl: u32, https: bool) -> PopAnswers {
        let mut answers = PopAnswers { ttl, ..PopAnswers::default() };
        for edge in edges {
            let (rtype, data) = address_data(*edge);
            let set = &mut answers.sets[usize::from(rtype == rtype::AAAA)];
            if set.len() < ADDRESSES_MAX {
                set.push(data);
            }
        }
        if https {
            answers.sets[2].push(https_data(edges));
        }
        for (index, set) in answers.sets.iter().enumerate() {
            set.iter().for_each(|data| {
                write_record(&mut answers.plain[index], &QUESTION_NAME, CHOSEN[index], ttl, data)
            });
        }
        answers
    }

    fn types(&self) -> impl Iterator<Item = u16> {
        CHOSEN.into_iter().zip(&self.sets).filter(|(_, set)| !set.is_empty()).map(|(rtype, _)| rtype)
    }
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Its sender may be somebody else's.
    Udp,
    /// Its sender is who it says.
    Tcp,
}

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since 1970, for signatures and cookies.
    pub wall_secs: u32,
    /// Monotonic, for rates.
    pub mono_ms: u64,
}

macro_rules! counters {
    ($($name:ident: $doc:literal,)*) => {
        /// What was done, for metrics.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: AtomicU64,)*
        }

        impl Counters {
            /// Name, text and value of each.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc, self.$name.load(Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    queries: "Queries that were read.",
    answers: "Answers with what was asked for.",
    nodata: "Answers that there is no such record.",
    nxdomain: "Answers that there is no such name, whatever code says so.",
    refused: "Answers that the name is another zone's, or the question not ours.",
    formerr: "Answers that the query could not be read.",
    dropped: "Packets that are no query.",
    limited: "Answers that were not given, as their network had too many.",
    truncated: "Answers that told to come by TCP.",
    client_subnet: "Queries that named their client's network.",
    tcp: "Queries by TCP.",
    signatures: "Signatures made.",
}

/// Answers queries; one per thread.
pub struct Responder {
    counters: Arc<Counters>,
    signatures: HashMap<Vec<u8>, (u32, Vec<u8>)>,
    key: Vec<u8>,
    rates: Rates,
    /// Of each of [`CHOSEN`], which of a PoP's addresses came first the last time, and which of its spare's: whoever asks for A and AAAA alternately
    /// gets all of both.
    turns: [usize; 3],
}

/// What stands in the answer section, before OPT.
struct Reply {
    rcode: u16,
    answers: u16,
    authorities: u16,
    scope: u8,
    /// There is no such name, also where a signed answer has another code for that.
    is_nothing: bool,
}

impl Reply {
    /// Without records.
    fn of(rcode: u16) -> Reply {
        Reply { rcode, answers: 0, authorities: 0, scope: 0, is_nothing: false }
    }
}

impl Responder {
    /// One that counts in `counters`, and begins with the address after `turn`, any number.
    pub fn new(counters: Arc<Counters>, turn: usize) -> Responder {
        let (signatures, key, rates) = (HashMap::new(), Vec::new(), Rates::default());
        Responder { counters, signatures, key, rates, turns: [turn; 3] }
    }

    /// What was made with another zone, key or TTL is of no use any more. To be called when the state has changed.
    pub fn forget(&mut self) {
        self.signatures.clear();
    }

    /// Answers `bytes`, into `out`, which is emptied first. Returns whether there is an answer.
    pub fn respond(
        &mut self,
        state: &State,
        bytes: &[u8],
        from: IpAddr,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        let counters = Arc::clone(&self.counters);
        let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Relaxed);
        let query = match read(bytes) {
            Ok(query) => query,
            Err(Bad::Drop) => {
                count(&counters.dropped);
                return false;
            }
            Err(Bad::Refuse(code)) => {
                count(&counters.formerr);
                // No question: it could not be read. Smaller than any query, so it is not worth a limit.
                out.extend_from_slice(&bytes[..2]);
                out.extend_from_slice(&[0x80 | (bytes[2] & 0x79), code as u8, 0, 0, 0, 0, 0, 0, 0, 0]);
                return true;
            }
        };
        count(&counters.queries);
        if transport == Transport::Tcp {
            count(&counters.tcp);
        }
        out.extend_from_slice(&query.id);
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(query.question);
        let body = out.len();
        let edns = query.edns.unwrap_or_default();
        if edns.subnet.is_some() {
            count(&counters.client_subnet);
        }
        let mut reply = match edns.version {
            0 => self.fill(state, &query, &edns, from, now, out),
            _ => Reply::of(rcode::BADVERS),
        };
        count(match (reply.rcode, reply.answers) {
            _ if reply.is_nothing => &counters.nxdomain,
            (rcode::NOERROR, 1..) => &counters.answers,
            (rcode::NOERROR, _) => &counters.nodata,
            _ => &counters.refused,
        });
        let known = cookie_is_ours(state, &edns, from, now);
        let mut truncate = false;
        if transport == Transport::Udp && state.rate > 0 && !known {
            match self.rates.admit(from, kind_of(&query, &reply), state.rate, now.mono_ms) {
                Admit::Answer => {}
                Admit::Truncate => truncate = true,
                Admit::Drop => {
                    count(&counters.limited);
                    return false;
                }
            }
        }
        let with_opt = query.edns.is_some();
        let limit = match (transport, with_opt) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, true) => usize::from(edns.udp_bytes).clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX),
            (Transport::Udp, false) => UDP_BYTES_PLAIN,
        };
        let opt_at = out.len();
        if with_opt {
            write_opt(state, &edns, reply.rcode, reply.scope, from, now, out);
        }
        if truncate || out.len() > limit {
            count(&counters.truncated);
            truncate = true;
            out.drain(body..opt_at);
            (reply.answers, reply.authorities) = (0, 0);
        }
        let authoritative = u8::from(!matches!(reply.rcode, rcode::REFUSED | rcode::BADVERS));
        out[2] = 0x80 | authoritative << 2 | u8::from(truncate) << 1 | u8::from(query.rd);
        out[3] = (reply.rcode & 0xf) as u8;
        out[5] = 1;
        out[6..8].copy_from_slice(&reply.answers.to_be_bytes());
        out[8..10].copy_from_slice(&reply.authorities.to_be_bytes());
        out[11] = u8::from(with_opt);
        true
    }

    fn fill(
        &mut self,
        state: &State,
        query: &Query<'_>,
        edns: &Edns<'_>,
        from: IpAddr,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Reply {
        let mut reply = Reply::of(rcode::NOERROR);
        if query.class != 1 || matches!(query.rtype, rtype::AXFR | rtype::IXFR | rtype::OPT) {
            return Reply::of(rcode::REFUSED);
        }
        let name = query.name.as_bytes();
        let signed = edns.dnssec_ok.then_some(state.signer.as_deref()).flatten();
        let node = match state.zone.find(name) {
            Lookup::Outside => return Reply::of(rcode::REFUSED),
            Lookup::Node(node) => node,
            Lookup::Nothing => {
                // Signed, such a name exists and has nothing (RFC 9824 §3), unless the asker knows better.
                if signed.is_none() || edns.compact_ok {
                    reply.rcode = rcode::NXDOMAIN;
                }
                reply.is_nothing = true;
                self.deny(state, signed, (name, query.rtype), vec![rtype::NXNAME], now, &mut reply, out);
                return reply;
            }
        };
        let wanted = CHOSEN.iter().position(|rtype| *rtype == query.rtype);
        let mut pop = node.pop;
        if let Some(group) = node.group {
            let (client, bits) = client_of(state, edns, from);
            let Found { pop: found, scope } = state.tables[group].find(&state.world, client, bits);
            pop = Some(found);
            // A record that is the same for everybody says so, by a scope of 0.
            let depends = wanted.is_some() || (state.zone.aliased[group] && name != state.zone.apex);
            if depends && uses_subnet(state, edns) {
                reply.scope = scope;
            }
        }
        if let Some(found) = pop.filter(|_| name != state.zone.apex)
            && let answers = &state.pops[usize::from(found)]
            && let Some((target, record)) = &answers.cname
        {
            out.extend_from_slice(record);
            let of = (rtype::CNAME, found, 0);
            let records = [std::slice::from_ref(target)];
            reply.answers = 1 + self.sign(signed, name, of, answers.ttl, &records, now, out);
            return reply;
        }
        if query.rtype == rtype::ANY || (query.rtype == rtype::RRSIG && signed.is_some()) {
            // One record that says why there are no more (RFC 8482 §4.2), with its signature.
            let data = b"\x07RFC8482\0".to_vec();
            write_record(out, &QUESTION_NAME, rtype::HINFO, crate::zone::STATIC_TTL, &data);
            let (of, ttl) = ((rtype::HINFO, u16::MAX, 0), crate::zone::STATIC_TTL);
            reply.answers = 1 + self.sign(signed, name, of, ttl, &[&[data]], now, out);
            return reply;
        }
        if let (Some(found), Some(index)) = (pop, wanted) {
            let answers = &state.pops[usize::from(found)];
            let set = &answers.sets[index];
            if !set.is_empty() {
                self.turns[index] = self.turns[index].wrapping_add(1);
                let turn = self.turns[index];
                write_rotated(&answers.plain[index], set.len(), turn, out);
                let spare = node.group.and_then(|group| state.spares[group][usize::from(found)]);
                let spare = spare.filter(|_| query.rtype != rtype::HTTPS);
                let (more, at) = match spare.map(|spare| &state.pops[usize::from(spare)]) {
                    Some(spare) => write_one(&spare.plain[index], &spare.sets[index], turn, out),
                    None => (&[][..], 0),
                };
                reply.answers = (set.len() + more.len()) as u16;
                let of = (query.rtype, found, at);
                reply.answers += self.sign(signed, name, of, answers.ttl, &[set, more], now, out);
                return reply;
            }
        }
        let set = node.set(query.rtype).or_else(|| node.set(rtype::CNAME));
        if let Some(set) = set {
            out.extend_from_slice(&set.plain);
            reply.answers = set.records.len() as u16;
            let of = (set.rtype, u16::MAX, 0);
            reply.answers += self.sign(signed, name, of, set.ttl, &[&set.records], now, out);
            return reply;
        }
        self.deny(
            state,
            signed,
            (name, query.rtype),
            types_of(state, node, query.rtype),
            now,
            &mut reply,
            out,
        );
        reply
    }

    /// Writes SOA and, signed, NSEC: there is nothing but `types`. Who asks for NSEC gets it as the answer.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the answer depends on")]
    fn deny(
        &mut self,
        state: &State,
        signed: Option<&Signer>,
        (name, asked): (&[u8], u16),
        mut types: Vec<u16>,
        now: Now,
        reply: &mut Reply,
        out: &mut Vec<u8>,
    ) {
        let soa = &state.zone.soa;
        types.extend([rtype::RRSIG, rtype::NSEC]);
        if let Some(signer) = signed.filter(|_| asked == rtype::NSEC) {
            reply.answers = self.write_nsec(signer, name, &types, soa.ttl, now, out);
            if reply.answers > 0 {
                reply.rcode = rcode::NOERROR;
                return;
            }
        }
        write_record(out, &state.zone.apex, rtype::SOA, soa.ttl, &soa.records[0]);
        reply.authorities = 1;
        let Some(signer) = signed else { return };
        let of = (rtype::SOA, u16::MAX, 0);
        if let Some(data) = self.signature(signer, &state.zone.apex, of, soa.ttl, &[&soa.records], now) {
            write_record(out, &state.zone.apex, rtype::RRSIG, soa.ttl, data);
            reply.authorities += 1;
        }
        reply.authorities += self.write_nsec(signer, name, &types, soa.ttl, now, out);
    }

    /// Writes NSEC of the question's name and its signature; returns how many records that were.
    fn write_nsec(
        &mut self,
        signer: &Signer,
        name: &[u8],
        types: &[u16],
        ttl: u32,
        now: Now,
        out: &mut Vec<u8>,
    ) -> u16 {
        let Some(data) = nsec(name, types) else { return 0 };
        write_record(out, &QUESTION_NAME, rtype::NSEC, ttl, &data);
        // Random names come once each: keeping their signatures would only push others out.
        let Some(data) = signer.rrsig(name, rtype::NSEC, ttl, &[data], now.wall_secs) else { return 1 };
        self.counters.signatures.fetch_add(1, Relaxed);
        write_record(out, &QUESTION_NAME, rtype::RRSIG, ttl, &data);
        2
    }

    /// Writes RRSIG for a set of the question's name; returns how many records that were.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the signature depends on")]
    fn sign(
        &mut self,
        signer: Option<&Signer>,
        name: &[u8],
        of: (u16, u16, u8),
        ttl: u32,
        records: &[&[Vec<u8>]],
        now: Now,
        out: &mut Vec<u8>,
    ) -> u16 {
        let Some(signer) = signer else { return 0 };
        let Some(data) = self.signature(signer, name, of, ttl, records, now) else { return 0 };
        write_record(out, &QUESTION_NAME, rtype::RRSIG, ttl, data);
        1
    }

    /// The signature over a set, made now or kept. `of`: its type, the PoP it names, and which of the spare's addresses.
    fn signature(
        &mut self,
        signer: &Signer,
        name: &[u8],
        of: (u16, u16, u8),
        ttl: u32,
        records: &[&[Vec<u8>]],
        now: Now,
    ) -> Option<&[u8]> {
        self.key.clear();
        self.key.extend_from_slice(&of.0.to_be_bytes());
        self.key.extend_from_slice(&of.1.to_be_bytes());
        self.key.push(of.2);
        self.key.extend_from_slice(name);
        let fresh = |made: u32| now.wall_secs.wrapping_sub(made) < RENEW_SECS;
        if !self.signatures.get(&self.key).is_some_and(|(made, _)| fresh(*made)) {
            let data = signer.rrsig(name, of.0, ttl, &records.concat(), now.wall_secs)?;
            self.counters.signatures.fetch_add(1, Relaxed);
            if self.signatures.len() >= SIGNATURES_MAX {
                self.signatures.clear();
            }
            self.signatures.insert(self.key.clone(), (now.wall_secs, data));
        }
        self.signatures.get(&self.key).map(|(_, data)| &data[..])
    }
}

/// Addresses in turn, so that clients who take the first don't all take the same. Records of a set are equally long.
fn write_rotated(plain: &[u8], count: usize, turn: usize, out: &mut Vec<u8>) {
    let at = plain.len() / count * (turn % count);
    out.extend_from_slice(&plain[at..]);
    out.extend_from_slice(&plain[..at]);
}

/// One of a spare's addresses, each in turn, so that one edge there doesn't get all who come. What was written, none or one, and which it is.
fn write_one<'a>(plain: &[u8], set: &'a [Vec<u8>], turn: usize, out: &mut Vec<u8>) -> (&'a [Vec<u8>], u8) {
    if set.is_empty() {
        return (set, 0);
    }
    let (at, length) = (turn % set.len(), plain.len() / set.len());
    out.extend_from_slice(&plain[at * length..][..length]);
    (&set[at..=at], at as u8)
}

/// The types of a name that lacks `missing`. Where the client decides, all that somebody may get: a validating resolver keeps the denial for
/// all its clients (RFC 8198).
fn types_of(state: &State, node: &Node, missing: u16) -> Vec<u16> {
    let mut types: Vec<u16> = node.sets.iter().map(|set| set.rtype).collect();
    match node.pop {
        Some(pop) => types.extend(state.pops[usize::from(pop)].types()),
        None if node.group.is_some() => types.extend(CHOSEN.iter().filter(|rtype| **rtype != missing)),
        None => {}
    }
    types
}

fn uses_subnet(state: &State, edns: &Edns<'_>) -> bool {
    state.client_subnet && edns.subnet.is_some_and(|subnet| subnet.bits > 0 && subnet.address.is_some())
}

/// Whose answer it is, and how many bits of the address are known.
fn client_of(state: &State, edns: &Edns<'_>, from: IpAddr) -> (IpAddr, u8) {
    match edns.subnet {
        Some(subnet) if uses_subnet(state, edns) => (subnet.address.unwrap_or(from), subnet.bits),
        _ => (from, 128),
    }
}

fn write_opt(
    state: &State,
    edns: &Edns<'_>,
    code: u16,
    scope: u8,
    from: IpAddr,
    now: Now,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&[0, 0, rtype::OPT as u8]);
    out.extend_from_slice(&(UDP_BYTES_MAX as u16).to_be_bytes());
    let flags = u8::from(edns.dnssec_ok) << 7 | u8::from(edns.compact_ok) << 6;
    out.extend_from_slice(&[(code >> 4) as u8, 0, flags, 0, 0, 0]);
    let length_at = out.len() - 2;
    let mut option = |code: u16, parts: &[&[u8]]| {
        out.extend_from_slice(&code.to_be_bytes());
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.extend_from_slice(&(length as u16).to_be_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
    };
    if edns.nsid {
        option(3, &[state.node.as_bytes()]);
    }
    if let Some(subnet) = edns.subnet.filter(|_| state.client_subnet) {
        option(8, &[&subnet.option[..3], &[scope.min(subnet.bits)], &subnet.option[4..]]);
    }
    if let Some((client, _)) = edns.cookie {
        option(10, &[client, &server_cookie(state, client, from, now.wall_secs)]);
    }
    let length = (out.len() - length_at - 2) as u16;
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
}

// --- Cookies ---

/// As all servers with the same secret make it (RFC 9018 §4).
fn server_cookie(state: &State, client: &[u8], from: IpAddr, made_secs: u32) -> [u8; 16] {
    let mut cookie = [0; 16];
    cookie[0] = 1;
    cookie[4..8].copy_from_slice(&made_secs.to_be_bytes());
    let mut hasher = SipHasher24::new_with_key(&state.cookie_secret);
    hasher.write(client);
    hasher.write(&cookie[..8]);
    match from.to_canonical() {
        IpAddr::V4(v4) => hasher.write(&v4.octets()),
        IpAddr::V6(v6) => hasher.write(&v6.octets()),
    }
    cookie[8..].copy_from_slice(&hasher.finish().to_le_bytes());
    cookie
}

fn cookie_is_ours(state: &State, edns: &Edns<'_>, from: IpAddr, now: Now) -> bool {
    let Some((client, server)) = edns.cookie else { return false };
    let Some(made) =
        server.get(4..8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes))
    else {
        return false;
    };
    // Serial arithmetic, as the clock may wrap (RFC 1982).
    let age = now.wall_secs.wrapping_sub(made) as i32;
    (-(COOKIE_AHEAD_SECS as i32)..=COOKIE_SECS as i32).contains(&age)
        && server == server_cookie(state, client, from, made)
}

// --- Rates ---

/// Who asked how often lately: a bucket per network and kind of answer, in a table of fixed size. Two that share a slot share
/// its bucket: that costs one of them answers it could have had, by TCP at the latest.
#[derive(Default)]
struct Rates {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u32,
    level: f32,
    at_ms: u64,
    over: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Admit {
    Answer,
    Truncate,
    Drop,
}

impl Rates {
    fn admit(&mut self, from: IpAddr, kind: u64, rate: u32, now_ms: u64) -> Admit {
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); RATE_SLOTS];
        }
        let network = match from.to_canonical() {
            IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8),
            IpAddr::V6(v6) => crate::location::first_64(v6) >> 8 | 1 << 63,
        };
        let hash = (network ^ kind.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = hash ^ hash >> 29;
        let slot = &mut self.slots[hash as usize % RATE_SLOTS];
        let tag = (hash >> 32) as u32;
        if slot.tag != tag {
            // Whoever was here and is still above its rate keeps the slot, or a flood could hide behind others.
            let idle = now_ms.saturating_sub(slot.at_ms) > 1_000;
            if idle || slot.level < 1.0 {
                *slot = Slot { tag, at_ms: now_ms, ..Slot::default() };
            }
        }
        let leaked = now_ms.saturating_sub(slot.at_ms) as f32 * rate as f32 / 1e3;
        slot.level = (slot.level - leaked).max(0.0);
        slot.at_ms = now_ms;
        if slot.level + 1.0 <= rate as f32 {
            slot.level += 1.0;
            return Admit::Answer;
        }
        slot.over = slot.over.wrapping_add(1);
        if slot.over.is_multiple_of(2) { Admit::Truncate } else { Admit::Drop }
    }
}

/// What is counted together: answers about one name, and all that there is nothing of.
fn kind_of(query: &Query<'_>, reply: &Reply) -> u64 {
    match reply.answers {
        0 => u64::from(reply.rcode) << 1,
        _ => {
            query
                .name
                .as_bytes()
                .iter()
                .fold(1, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
                | 1
        }
    }
}

/// For the fuzz target: a responder with a small signed zone takes any bytes; what it answers must be readable and no longer than allowed.
#[cfg(any(fuzzing, test))]
pub mod fuzzing;

#[cfg(test)]
mod tests;
