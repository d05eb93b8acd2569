//! A small signed zone, asked with any bytes.

use std::sync::{Arc, OnceLock};

use model::Snapshot;

use super::*;
use crate::location::Location;
use crate::table::View;

/// Two PoPs and another CDN, a site for the former and one for all, everything switched on.
pub const CONFIG: &str = r#"
[[pop]]
name = "fra"
location = "FRA"
edges = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
networks = ["10.1.0.0/16"]

[[pop]]
name = "nrt"
location = "NRT"
edges = ["198.51.100.1"]
networks = ["10.2.0.0/16", "2001:db8:2::/48"]

[[pop]]
name = "other"
cname = "shop.other.example"
edges = ["203.0.113.9"]
networks = ["10.3.0.0/16"]

[dns]
zone = "cdn.example"
nameservers = { "ns1.cdn.example" = "192.0.2.53" }
dnssec = true
https = true
caa = "letsencrypt.org"
records = '''
txt TXT "hello"
fra TXT "a PoP"
long TXT "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
long TXT "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
alias CNAME shop
'''

[[site]]
name = "shop"
domains = ["*.shop.cdn.example"]
origin = "http://o.example"

[[site]]
name = "both"
domains = ["cdn.example"]
origin = "http://o.example"
pops = ["fra", "other"]
"#;

/// The state of that configuration.
pub fn state() -> Arc<State> {
    static STATE: OnceLock<Arc<State>> = OnceLock::new();
    Arc::clone(STATE.get_or_init(|| Arc::new(state_of(CONFIG, 0.0))))
}

/// The same, where PoPs have spares however far they are.
pub(super) fn state_with_spares() -> Arc<State> {
    static STATE: OnceLock<Arc<State>> = OnceLock::new();
    Arc::clone(STATE.get_or_init(|| Arc::new(state_of(CONFIG, 1e3))))
}

/// The state of a configuration where PoPs have spares within so many ms.
pub(super) fn state_of(config: &str, spare_ms: f64) -> State {
    let parsed = Snapshot::parse_cluster(config, "fuzz");
    let snapshot = parsed.snapshot.expect("a configuration that is good");
    let dns = snapshot.routing.dns.clone().expect("it has a zone");
    let apex = crate::wire::name_of(&dns.zone).expect("it is short");
    let key = Signer::generate().expect("chance is at hand");
    let signer = Arc::new(Signer::new(&key, &apex).expect("the key was just made"));
    let zone = Zone::build(&snapshot, 7, Some(&signer)).expect("its records are good");
    let world = Arc::new(World::new(snapshot.routing.pops.clone(), Arc::new(Location::empty())));
    let tables = zone.groups.iter().map(|group| Table::build(&world, group, &View::default())).collect();
    let view = View::default();
    let spares = zone.groups.iter().map(|group| world.spares(group, &view, spare_ms)).collect();
    let pops = world.pops.iter().map(|pop| PopAnswers::new(pop, &pop.edges, 30, true)).collect();
    State {
        zone,
        world,
        tables,
        spares,
        snapshot: Arc::new(snapshot),
        up: BTreeMap::new(),
        view: View::default(),
        pops,
        ttl: 30,
        signer: Some(signer),
        client_subnet: true,
        rate: 0,
        node: "ns1".into(),
        cookie_secret: [7; 16],
    }
}

/// Asks with any bytes, with and without spares. What comes must be a message that echoes the id, is no longer than allowed, and has the
/// records that it counts.
pub fn respond(bytes: &[u8]) {
    for (state, transport) in [
        (state(), Transport::Udp),
        (state(), Transport::Tcp),
        (state_with_spares(), Transport::Udp),
        (state_with_spares(), Transport::Tcp),
    ] {
        let mut responder = Responder::new(Arc::default(), 0);
        let mut out = Vec::new();
        let now = Now { wall_secs: 1_800_000_000, mono_ms: 0 };
        if !responder.respond(&state, bytes, IpAddr::from([192, 0, 2, 77]), transport, now, &mut out) {
            continue;
        }
        assert!(transport == Transport::Tcp || out.len() <= UDP_BYTES_MAX, "{}", out.len());
        assert_eq!(out[..2], bytes[..2]);
        let message = domain::base::Message::from_octets(&out[..]).expect("it has a header");
        let counts = message.header_counts();
        let (mut records, mut count) = (0, 0);
        count +=
            usize::from(counts.ancount()) + usize::from(counts.nscount()) + usize::from(counts.arcount());
        if counts.qdcount() == 1 {
            for record in message.iter() {
                record.expect("each record can be read");
                records += 1;
            }
            assert_eq!(records, count);
        }
    }
}

/// Reads any bytes as a head of HTTP. A head that is complete is found however much follows, and not before it is there.
pub fn http_head(bytes: &[u8]) {
    let Ok(Some((request, head, body))) = crate::http::parse(bytes) else { return };
    assert!(head <= bytes.len() && body <= crate::http::BODY_BYTES_MAX);
    assert!(matches!(crate::http::parse(&bytes[..head - 1]), Ok(None)));
    assert!(crate::http::parse(&bytes[..head]).is_ok_and(|again| again == Some((request, head, body))));
}
