//! How long the way to visitors is: round trips of some of their connections, and what browsers time that run the beacon
//! ([`crate::beacon`]). Nothing here is in a request's way, and nothing is kept until somebody wants it ([`Measuring::start`]).
//!
//! A token is good for one report, from the network that it was given to, on the PoPs that stand in it: whoever wants to lie has to
//! load the script for each lie, and may from one network only so often. What is said is not believed for that (the router looks
//! whether light could have done it); but it can't be made up by the thousand.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aws_lc_rs::hmac;
use model::Snapshot;
use model::steering::{RoundTrips, TRIPS_MAX, network_of};
use parking_lot::Mutex;

use crate::beacon::{PATH, Token, key_for};
use crate::storage::chance;

/// Of so many connections the round trip of one is read: asking the kernel takes some 300 ns.
const CONNECTIONS_PER_SAMPLE: u32 = 16;
/// Networks and PoPs whose round trips wait for the next report: some seconds of a busy edge. What is more is dropped, and counted.
const HELD_MAX: usize = 8 * TRIPS_MAX;
/// How long a token is good: the script waits until its page has loaded.
const TOKEN_SECS: u64 = 120;
/// Reports of one network in [`TOKEN_SECS`].
const REPORTS_PER_NETWORK: u32 = 16;
/// Reports that are remembered in [`TOKEN_SECS`], so that none counts twice. Those beyond are refused. 4 MB at most.
const REPORTS_MAX: usize = 65_536;
/// PoPs that one beacon times.
const TARGETS: usize = 4;
/// Of so many that are next to this PoP, two are timed.
const NEIGHBOURS: usize = 7;
/// Longer round trips tell of a sleeping phone, not of a path.
const TRIP_MS_MAX: f64 = 2_000.0;

/// What an edge measures.
#[derive(Default)]
pub(crate) struct Measuring {
    started: OnceLock<Started>,
    connections: AtomicU32,
    dropped: AtomicU64,
}

struct Started {
    pop: Box<str>,
    key: hmac::Key,
    trips: Mutex<HashMap<(IpAddr, Box<str>), Sum>>,
    reports: Mutex<Reports>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    count: u32,
    ms: f64,
    failed: u32,
}

/// Reports of this stretch of [`TOKEN_SECS`], and of the one before.
#[derive(Default)]
struct Reports {
    stretch: u64,
    nonces: [HashSet<u64>; 2],
    by_network: HashMap<IpAddr, u32>,
}

impl Measuring {
    /// Begins to measure, at this PoP. `secret`: from which tokens are made; edges with the same one take each other's.
    pub(crate) fn start(&self, pop: &str, secret: &[u8]) {
        let key = key_for(secret, "perigee beacon");
        // It is started once.
        _ = self.started.set(Started {
            pop: pop.into(),
            key,
            trips: Mutex::default(),
            reports: Mutex::default(),
        });
    }

    /// Whether the round trip of this connection is to be read.
    pub(crate) fn wants_connection(&self, snapshot: &Snapshot) -> bool {
        self.started.get().is_some()
            && snapshot.routing.measure.connections
            && self.connections.fetch_add(1, Ordering::Relaxed).is_multiple_of(CONNECTIONS_PER_SAMPLE)
    }

    /// Notes the round trip of a connection, in µs; 0 when the kernel knows none.
    pub(crate) fn connection(&self, client: IpAddr, rtt_us: u32) {
        let ms = f64::from(rtt_us) / 1e3;
        if let Some(started) = self.started.get().filter(|_| rtt_us > 0 && ms <= TRIP_MS_MAX) {
            self.note(started, client, &started.pop, Some(ms));
        }
    }

    fn note(&self, started: &Started, client: IpAddr, pop: &str, ms: Option<f64>) {
        let mut trips = started.trips.lock();
        let key = (network_of(client), Box::from(pop));
        if trips.len() >= HELD_MAX && !trips.contains_key(&key) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let sum = trips.entry(key).or_default();
        match ms {
            Some(ms) => (sum.count, sum.ms) = (sum.count.saturating_add(1), sum.ms + ms),
            None => sum.failed = sum.failed.saturating_add(1),
        }
    }

    /// What was measured and has not been taken yet; at most [`TRIPS_MAX`] of it.
    pub(crate) fn take(&self) -> Vec<RoundTrips> {
        let Some(started) = self.started.get() else { return Vec::new() };
        let mut trips = started.trips.lock();
        let some: Vec<(IpAddr, Box<str>)> = trips.keys().take(TRIPS_MAX).cloned().collect();
        let taken = some.into_iter().filter_map(|key| {
            let Sum { count, ms, failed } = trips.remove(&key)?;
            Some(RoundTrips { network: key.0, pop: key.1.into(), count, sum_ms: ms, failed })
        });
        taken.collect()
    }

    /// Round trips that were not kept, since it was asked last.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

/// What browsers time, while they are asked to.
pub(crate) struct Timing<'m> {
    measuring: &'m Measuring,
    started: &'m Started,
}

impl Measuring {
    /// The part of the beacon that times PoPs; `None` where there is none.
    pub(crate) fn serves(&self, snapshot: &Snapshot) -> Option<Timing<'_>> {
        let started = self.started.get().filter(|_| snapshot.routing.measure.beacons)?;
        Some(Timing { measuring: self, started })
    }
}

impl Timing<'_> {
    /// The script's part, for a client.
    pub(crate) fn part(&self, snapshot: &Snapshot, client: IpAddr, now_secs: u64) -> String {
        let targets = targets(snapshot, &self.started.pop);
        let names: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
        script(&self.started.token(client, &names, now_secs), &targets)
    }

    /// Takes what a client reports.
    ///
    /// # Errors
    /// It does not count: with which status it is refused.
    pub(crate) fn take_report(&self, client: IpAddr, query: &str, now_secs: u64) -> Result<(), u16> {
        for (pop, ms) in self.started.report(client, query, now_secs)? {
            self.measuring.note(self.started, client, pop, ms);
        }
        Ok(())
    }
}

/// What a beacon times: names of PoPs, and by which URL (without a scheme: by the page's); the own one first, without one of its own.
fn targets<'s>(snapshot: &'s Snapshot, pop: &'s str) -> Vec<(&'s str, Option<String>)> {
    let pops = &snapshot.routing.pops;
    let zone = snapshot.routing.dns.as_ref().map(|dns| &dns.zone);
    let own = pops.iter().position(|known| *known.name == *pop);
    let (Some(own), Some(zone)) = (own, zone) else { return vec![(pop, None)] };
    let is_other = |index: &usize| {
        let pop = &pops[*index];
        *index != own && if pop.cname.is_some() { pop.beacon.is_some() } else { !pop.last_resort }
    };
    let mut others: Vec<usize> = (0..pops.len()).filter(is_other).collect();
    others.sort_by(|a, b| {
        // Another CDN is taken to be as near as can be: nothing but a beacon tells.
        let km = |index: &usize| pops[*index].location.zip(pops[own].location).map_or(0.0, |(a, b)| a.km(b));
        km(a).total_cmp(&km(b))
    });
    let mut draw = chance();
    let mut below = |end: usize| {
        let drawn = (draw & 0xffff_ffff) as usize % end;
        draw >>= 32;
        drawn
    };
    let mut chosen = vec![own];
    while chosen.len() < TARGETS && !others.is_empty() {
        let range = if chosen.len() < TARGETS - 1 { NEIGHBOURS.min(others.len()) } else { others.len() };
        chosen.push(others.remove(below(range)));
    }
    let url = |index: usize| match &pops[index].beacon {
        Some(url) => url.to_string(),
        None => format!("//{}.{zone}{PATH}", pops[index].name.to_ascii_lowercase()),
    };
    chosen.into_iter().map(|index| (&*pops[index].name, (index != own).then(|| url(index)))).collect()
}

/// Times each target three times, of which the first pays for the connection; and reports.
fn script(token: &Token, targets: &[(&str, Option<String>)]) -> String {
    let list: Vec<String> = targets
        .iter()
        .map(|(name, url)| {
            let url = url.as_ref().map_or_else(|| format!("o+\"{PATH}\""), |url| format!("\"{url}\""));
            format!("[\"{name}\",{url}]")
        })
        .collect();
    format!(
        "(async()=>{{const p=[{}];\n\
         if(document.readyState!=\"complete\")await new Promise(f=>addEventListener(\"load\",f));\n\
         const time=async b=>{{let m=1/0;for(let i=0;i<3;i++){{const c=new AbortController(),k=setTimeout(()=>c.abort(),3000),a=performance.now();\n\
         try{{await fetch(b+\"?\"+i,{{mode:\"no-cors\",cache:\"no-store\",credentials:\"omit\",signal:c.signal}})}}catch{{return\"x\"}}finally{{clearTimeout(k)}}\n\
         if(i)m=Math.min(m,performance.now()-a)}}return m.toFixed(1)}};\n\
         const r=[];for(const[n,b]of p)r.push(n+\"=\"+await time(b));\n\
         navigator.sendBeacon(o+\"{PATH}?{token}&\"+r.join(\"&\"))}})();\n",
        list.join(","),
    )
}

impl Started {
    fn purpose(&self, client: IpAddr, pops: &[&str]) -> String {
        format!("{} {} {}", self.pop, network_of(client), pops.join(" "))
    }

    fn token(&self, client: IpAddr, pops: &[&str], now_secs: u64) -> Token {
        Token::make(&self.key, now_secs + TOKEN_SECS, &self.purpose(client, pops))
    }

    /// What a report says, if its token is good; else the status of the refusal.
    fn report<'q>(
        &self,
        client: IpAddr,
        query: &'q str,
        now_secs: u64,
    ) -> Result<Vec<(&'q str, Option<f64>)>, u16> {
        let (token, results) = read_report(query).ok_or(400u16)?;
        let pops: Vec<&str> = results.iter().map(|(pop, _)| *pop).collect();
        let is_ours = token.is_for(&self.key, &self.purpose(client, &pops));
        if !is_ours || token.at < now_secs || token.at > now_secs + TOKEN_SECS {
            return Err(403);
        }
        self.reports.lock().admit(network_of(client), token.nonce, now_secs)?;
        Ok(results)
    }
}

impl Reports {
    /// Notes a report, unless it has come before or is too much.
    fn admit(&mut self, network: IpAddr, nonce: u64, now_secs: u64) -> Result<(), u16> {
        let stretch = now_secs / TOKEN_SECS;
        if stretch != self.stretch {
            // A token outlives the stretch that it was made in, but not the next one.
            self.nonces.swap(0, 1);
            self.nonces[0].clear();
            if stretch != self.stretch + 1 {
                self.nonces[1].clear();
            }
            self.by_network.clear();
            self.stretch = stretch;
        }
        if self.nonces.iter().any(|nonces| nonces.contains(&nonce)) {
            return Err(403);
        }
        let count = self.by_network.get(&network).copied().unwrap_or(0);
        if count >= REPORTS_PER_NETWORK || self.nonces[0].len() >= REPORTS_MAX {
            return Err(429);
        }
        self.by_network.insert(network, count + 1);
        self.nonces[0].insert(nonce);
        Ok(())
    }
}

type Report<'q> = (Token, Vec<(&'q str, Option<f64>)>);

/// Reads `TOKEN&fra=23.4&iad=x`.
pub(crate) fn read_report(query: &str) -> Option<Report<'_>> {
    let mut parts = query.split('&');
    let token = Token::read(parts.next()?)?;
    let mut results = Vec::new();
    for part in parts {
        let (pop, ms) = part.split_once('=')?;
        let ms = match ms {
            "x" => None,
            ms => Some(ms.parse::<f64>().ok().filter(|ms| *ms > 0.0 && *ms <= TRIP_MS_MAX)?),
        };
        if results.len() == TARGETS || results.iter().any(|(known, _)| *known == pop) {
            return None;
        }
        results.push((pop, ms));
    }
    (!results.is_empty()).then_some((token, results))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn started() -> (Measuring, IpAddr) {
        let measuring = Measuring::default();
        measuring.start("fra", &[7; 32]);
        (measuring, "203.0.113.7".parse().unwrap())
    }

    #[test]
    fn a_report_counts_once_from_where_its_token_was_given_while_that_is_good() {
        let (measuring, client) = started();
        let started = measuring.started.get().unwrap();
        let token = started.token(client, &["fra", "iad"], NOW);
        let query = format!("{token}&fra=20.5&iad=x");
        let neighbour: IpAddr = "203.0.113.200".parse().unwrap();
        let stranger: IpAddr = "198.51.100.1".parse().unwrap();
        let report =
            |client, query: &str, now| started.report(client, query, now).map(|results| results.len());
        assert_eq!(report(stranger, &query, NOW), Err(403));
        assert_eq!(report(client, &query, NOW + TOKEN_SECS + 1), Err(403), "too late");
        assert_eq!(report(client, &format!("{token}&fra=20.5&nrt=1"), NOW), Err(403), "not on this PoP");
        assert_eq!(report(client, &query.replace("20.5", "-1"), NOW), Err(400));
        assert_eq!(report(neighbour, &query, NOW), Ok(2));
        assert_eq!(report(client, &query, NOW), Err(403), "again");
        assert_eq!(report(client, &query, NOW + TOKEN_SECS), Err(403), "and later");
    }

    #[test]
    fn one_network_reports_so_often_and_no_more() {
        let (measuring, client) = started();
        let started = measuring.started.get().unwrap();
        let report = |client, now| {
            let query = format!("{}&fra=20", started.token(client, &["fra"], now));
            started.report(client, &query, now).map(drop)
        };
        for _ in 0..REPORTS_PER_NETWORK {
            assert_eq!(report(client, NOW), Ok(()));
        }
        assert_eq!(report(client, NOW), Err(429));
        assert_eq!(report("198.51.100.1".parse().unwrap(), NOW), Ok(()));
        assert_eq!(report(client, NOW + TOKEN_SECS), Ok(()));
    }

    #[test]
    fn what_is_held_is_bounded_and_taken_once() {
        let (measuring, client) = started();
        for _ in 0..3 {
            measuring.connection(client, 20_000);
        }
        measuring.connection(client, 0);
        let taken = measuring.take();
        assert_eq!((taken.len(), taken[0].count, taken[0].sum_ms, &*taken[0].pop), (1, 3, 60.0, "fra"));
        assert!(measuring.take().is_empty());
        for network in 0..HELD_MAX as u32 + 10 {
            measuring.connection(IpAddr::V4((0x0b00_0000 + (network << 8)).into()), 1_000);
        }
        assert_eq!(measuring.take_dropped(), 10);
        assert_eq!(measuring.take().len(), TRIPS_MAX);
    }
}
