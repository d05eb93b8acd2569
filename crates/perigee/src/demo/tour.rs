//! What happens on the tour: a price is changed and purged, a PoP dies and comes back; each time the demo looks by itself whether what it
//! has said is true, and says what it has seen.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use model::Draw;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, local, off_thread, prove};
use super::map::{self, CITIES, POPS};
use super::place::Ports;
use super::screen::Screen;
use super::shop::pages::{dollars, price_on};
use super::visitors::{Scene, WATCHED};
use crate::failure::Failure;
use client::http::{parse_answer, send};

/// Time for the last receipt: a node that has just died is waited for until it is out of contact, 30 s later.
const RECEIPTS_PATIENCE: Duration = Duration::from_secs(60);
/// Time for visitors to be sent elsewhere: probes, the TTL of answers, and a slow machine.
const MOVE_PATIENCE: Duration = Duration::from_secs(60);
/// For how long pages are counted before it is said what they showed.
const PAGES_COUNTED: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Time and bytes of one answer of a page.
const PAGE_TIME_MAX: Duration = Duration::from_secs(10);
const PAGE_BYTES_MAX: u64 = 1024 * 1024;

/// What tasks of the tour have in common.
pub(super) struct Tour {
    pub(super) scene: Rc<Scene>,
    pub(super) screen: Rc<Screen>,
    pub(super) cluster: RefCell<Cluster>,
    pub(super) ports: Ports,
    /// For programs: what was done, and what came of it.
    pub(super) events: RefCell<Vec<Value>>,
    pub(super) draw: RefCell<Draw>,
}

impl Tour {
    // --- A price ---

    /// Changes a price in the shop, has its pages purged, shows the receipts and looks at each edge.
    pub(super) async fn change_price(self: Rc<Self>) {
        if let Err(failure) = self.try_to_change_price().await {
            self.screen.say(&format!("The price could not be changed everywhere.\n{failure}"));
        }
    }

    async fn try_to_change_price(&self) -> Result<(), Failure> {
        let shop = &self.scene.shop;
        let (name, old) = (&shop.goods()[WATCHED - 1].name, shop.price(WATCHED));
        let new = loop {
            let drawn = 1000 + 100 * self.draw.borrow_mut().below(90);
            if drawn != old {
                break drawn;
            }
        };
        self.scene.tally.price_changed(new);
        let form = format!("cents={new}");
        let request = format!(
            "POST /products/{WATCHED} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        );
        fetch(local(self.ports.office), request).await?;
        let held = self.prices_at_edges(old).await;
        self.screen.say(&format!(
            "“{name}” costs {} now, no longer {}: so says the shop. {held} edges have pages in their caches that say otherwise.",
            dollars(new),
            dollars(old)
        ));
        let (tag, begun) = (format!("product-{WATCHED}"), Instant::now());
        let client = self.cluster.borrow().client();
        let purge = json!({ "tag": tag, "reason": "a new price" });
        let accepted = {
            let client = client.clone();
            off_thread(move || Ok(client.post("/v1/purges", &purge)?)).await?
        };
        self.screen.say(&format!(
            "Purge of surrogate key {tag}: in the journal at position {}",
            accepted["position"]
        ));
        let said = RefCell::new(String::new());
        let status = prove(&client, &accepted["position"], RECEIPTS_PATIENCE, |status| {
            let laggards = names(&status["laggards"]);
            if *said.borrow() != laggards {
                self.screen.say(&format!("  waiting for {laggards}"));
                said.replace(laggards);
            }
        })
        .await?;
        let took_ms = begun.elapsed().as_millis() as u64;
        for receipt in status["receipts"].as_array().into_iter().flatten() {
            let signature = receipt["signature"].as_str().unwrap_or_default();
            self.screen.say(&format!(
                "  {:6} has it, signed {}…",
                crate::cluster::cell(&receipt["node"]),
                crate::visible(signature.get(..24).unwrap_or(signature))
            ));
        }
        let event = json!({
            "event": "price", "product": WATCHED, "cents": new, "old_cents": old, "position": accepted["position"],
            "state": status["state"], "proven_ms": took_ms, "receipts": status["receipts"].as_array().map_or(0, Vec::len),
            "out_of_contact": status["out_of_contact"].as_array().map_or(0, Vec::len),
        });
        self.events.borrow_mut().push(event);
        if status["state"] != "done" {
            self.screen.say(&format!("  not proven: {} have not signed", names(&status["laggards"])));
            return Ok(());
        }
        self.scene.tally.price_proven();
        let away = match names(&status["out_of_contact"]) {
            away if away.is_empty() => String::new(),
            away => {
                format!(" ({away} cannot be reached, and will validate all they have before they serve it)")
            }
        };
        let wrong = self.prices_at_edges(old).await;
        self.screen.say(&format!(
            "Proven by every edge in service after {took_ms} ms{away}. Asked again: {wrong} edges show the old price."
        ));
        sleep(PAGES_COUNTED).await;
        let (pages, wrong) = self.scene.tally.price_pages();
        self.screen.say(&format!(
            "Since the last receipt visitors have seen that price {pages} times; the old one {wrong} times, ever."
        ));
        Ok(())
    }

    /// How many of the edges that answer show this price.
    async fn prices_at_edges(&self, cents: u64) -> usize {
        let edges: Vec<(String, SocketAddr)> = self.cluster.borrow().edge_addresses().collect();
        let mut count = 0;
        for (_, address) in edges {
            let request = format!(
                "GET /products/{WATCHED} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.scene.host
            );
            let page = fetch(address, request).await;
            count += usize::from(page.is_ok_and(|page| price_on(&page, WATCHED) == Some(cents)));
        }
        count
    }

    // --- A PoP ---

    /// Kills a PoP that runs, or starts one that does not.
    pub(super) fn turn_pop(self: &Rc<Self>, pop: usize) {
        let runs = self.cluster.borrow().pop_runs(pop);
        if runs {
            self.cluster.borrow_mut().kill_pop(pop);
            self.screen.say(&format!("{}: all its edges were killed.", POPS[pop].city));
            tokio::task::spawn_local(Rc::clone(self).follow_death(pop));
            return;
        }
        let started = self.cluster.borrow_mut().start_pop_again(pop);
        match started {
            Ok(()) => {
                self.screen.say(&format!(
                    "{}: its edges start again, with what their disks have kept.",
                    POPS[pop].city
                ));
                tokio::task::spawn_local(Rc::clone(self).follow_return(pop));
            }
            Err(failure) => self.screen.say(&failure.to_string()),
        }
    }

    /// Says when the router sends nobody to a PoP any more, and when its visitors have pages from elsewhere.
    pub(super) async fn follow_death(self: Rc<Self>, pop: usize) {
        let begun = Instant::now();
        let cities: Vec<usize> =
            (0..CITIES.len()).filter(|city| self.scene.tally.served(*city) == Some(pop)).collect();
        let is_gone = async |city: usize| {
            let found = self.scene.resolvers.ask_anew(city).await;
            found.is_ok_and(|addresses| addresses.iter().all(|address| map::pop_of(*address) != Some(pop)))
        };
        let name = POPS[pop].city;
        for city in 0..CITIES.len() {
            while !is_gone(city).await {
                if begun.elapsed() > MOVE_PATIENCE || self.cluster.borrow().pop_runs(pop) {
                    self.screen.say(&format!("{name}: the router still sends visitors there."));
                    return;
                }
                sleep(LOOK).await;
            }
        }
        let noticed = begun.elapsed();
        self.screen.say(&format!(
            "{name}: {:.1} s later the router sends nobody there; resolvers may believe the old answer for 5 s.",
            noticed.as_secs_f64()
        ));
        let mut elsewhere: Vec<(usize, usize)> = Vec::new();
        for city in &cities {
            loop {
                if let Some(served) =
                    self.scene.tally.served_since(*city, begun).filter(|served| *served != pop)
                {
                    elsewhere.push((*city, served));
                    break;
                }
                if begun.elapsed() > MOVE_PATIENCE || self.cluster.borrow().pop_runs(pop) {
                    break;
                }
                sleep(LOOK).await;
            }
        }
        let moved = begun.elapsed();
        let seconds = moved.as_secs_f64();
        self.screen.say(&match (cities.len(), elsewhere.len()) {
            (0, _) => format!("{name}: nobody had been sent there."),
            (all, some) if all == some => {
                format!(
                    "{name}: {seconds:.1} s after its death the last of its cities has had a page from elsewhere: {}.",
                    by_pop(&elsewhere)
                )
            }
            (all, some) => format!(
                "{name}: {seconds:.1} s after its death {some} of its {all} cities have had a page from elsewhere: {}.",
                by_pop(&elsewhere)
            ),
        });
        self.events.borrow_mut().push(json!({
            "event": "pop_killed", "pop": POPS[pop].name, "noticed_ms": noticed.as_millis() as u64,
            "moved_ms": moved.as_millis() as u64, "cities": cities.len(), "cities_served_elsewhere": elsewhere.len(),
        }));
    }

    /// Says when the router sends visitors to a PoP again.
    async fn follow_return(self: Rc<Self>, pop: usize) {
        let begun = Instant::now();
        loop {
            let mut back = Vec::new();
            for city in 0..CITIES.len() {
                let found = self.scene.resolvers.ask_anew(city).await.unwrap_or_default();
                if found.iter().any(|address| map::pop_of(*address) == Some(pop)) {
                    back.push(city);
                }
            }
            if !back.is_empty() {
                self.screen.say(&format!(
                    "{}: it is healthy again, and gets its visitors back, city by city: {} first.",
                    POPS[pop].city, CITIES[back[0]].name
                ));
                let event = json!({ "event": "pop_back", "pop": POPS[pop].name, "after_ms": begun.elapsed().as_millis() as u64 });
                self.events.borrow_mut().push(event);
                return;
            }
            if begun.elapsed() > MOVE_PATIENCE || !self.cluster.borrow().pop_runs(pop) {
                self.screen.say(&format!("{}: the router sends nobody there yet.", POPS[pop].city));
                return;
            }
            sleep(LOOK).await;
        }
    }

    // --- Figures ---

    /// One line: hits, what the shop was spared, and how long a first page takes in a city (p50), another one each time.
    pub(super) fn figures(&self, seconds: u64) -> String {
        let summary = self.scene.tally.summary();
        let by_cdn = self.scene.shop.asked().by_cdn.load(std::sync::atomic::Ordering::Relaxed);
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        let city = (seconds / 2) as usize % CITIES.len();
        let (with, without) = self.scene.tally.medians_ms(city);
        let time =
            |ms: Option<u32>| ms.map_or("–".to_owned(), |ms| format!("{:.2} s", f64::from(ms) / 1000.0));
        let failed = match summary.failed_tries {
            0 => String::new(),
            count => format!(" │ {count} failed"),
        };
        format!(
            "{:02}:{:02} │ {} pages │ {:.1} % hits │ shop asked {by_cdn}×, spared {:.1} % │ {} {}, without CDN {}{failed}",
            seconds / 60,
            seconds % 60,
            summary.pages,
            percent(summary.hits, summary.requests),
            percent(summary.requests.saturating_sub(by_cdn), summary.requests),
            CITIES[city].name,
            time(with),
            time(without),
        )
    }

    /// Each city: by which PoP it is served, and how long a first page takes.
    pub(super) fn cities(&self) -> String {
        let ms = |ms: Option<u32>| ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        let rows: Vec<Vec<String>> = (0..CITIES.len())
            .map(|city| {
                let (with, without) = self.scene.tally.medians_ms(city);
                let pop = self.scene.tally.served(city).map_or("-", |pop| POPS[pop].name);
                vec![
                    CITIES[city].name.to_owned(),
                    CITIES[city].country.to_owned(),
                    pop.to_owned(),
                    ms(with),
                    ms(without),
                ]
            })
            .collect();
        crate::cluster::table(&["CITY", "", "POP", "FIRST PAGE P50", "WITHOUT CDN"], &rows)
    }
}

/// `Paris and London by iad, …`
fn by_pop(cities: &[(usize, usize)]) -> String {
    let one = |pop: usize| {
        let names: Vec<&str> =
            cities.iter().filter(|(_, served)| *served == pop).map(|(city, _)| CITIES[*city].name).collect();
        (!names.is_empty()).then(|| format!("{} by {}", names.join(", "), POPS[pop].city))
    };
    (0..POPS.len()).filter_map(one).collect::<Vec<_>>().join("; ")
}

/// The names of nodes in a list of control's.
fn names(nodes: &Value) -> String {
    let names = nodes.as_array().into_iter().flatten().map(|node| crate::cluster::cell(&node["node"]));
    names.collect::<Vec<_>>().join(", ")
}

/// The body of a good answer.
async fn fetch(address: SocketAddr, request: String) -> Result<String, Failure> {
    off_thread(move || {
        let strange = |what: String| Failure::new(format!("{address}: {what}"), "");
        let answer = send(address, request.as_bytes(), PAGE_BYTES_MAX, PAGE_TIME_MAX)
            .map_err(|error| strange(error.to_string()))?;
        match parse_answer(&answer) {
            Ok((200, body)) => Ok(String::from_utf8_lossy(body).into_owned()),
            Ok((status, _)) => Err(strange(format!("it answers {status}"))),
            Err(what) => Err(strange(format!("the answer {what}"))),
        }
    })
    .await
}
