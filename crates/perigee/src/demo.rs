//! `perigee demo`: a whole CDN on this machine, with a shop behind it and visitors in front of it, and a tour through it.
//!
//! ```text
//! this process                                            processes of their own
//!   visitors ── DNS ─────────────────────────────────────► router
//!      │  └─ lines: city to PoP ─────────────────────────► edges of three PoPs ◄── changes ── control
//!      │                                                     │  └─ lines: PoP to PoP, the shield's ─► edges
//!      └─ lines: city to shop ─► shop ◄─ lines: PoP to shop ─┘
//! ```
//!
//! The edges, the router and the control are the product, run as anybody would run them. The shop, the visitors and the long lines between
//! all of them are here, on one thread. Nothing outlives the demo: children end with it, the directory goes away.

mod cluster;
mod line;
mod map;
mod place;
mod process;
mod resolver;
mod screen;
mod shop;
mod tally;
mod tour;
mod visitors;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use model::Draw;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::{Instant, interval, sleep};
use tokio_rustls::TlsConnector;
use trust::pinned_client_config;

use cluster::{Cluster, local, off_thread};
use line::{Line, Uplink};
use map::{CITIES, POPS};
use place::{Place, Ports};
use resolver::Resolvers;
use screen::{Keys, Screen};
use shop::{Door, Shop};
use tally::Tally;
use tour::Tour;
use visitors::{Scene, WATCHED};

use crate::failure::Failure;

pub(crate) use process::tie_to_demo;

/// Visitors per second, unless somebody says otherwise: some 30 requests per second, which leaves two cores their rest.
const VISITORS_PER_SECOND: f64 = 1.0;
/// The most that may be asked for: about what one thread can play.
const VISITORS_PER_SECOND_MAX: f64 = 50.0;
/// The longest run that may be asked for: a week.
const MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;

const EXAMPLES: &str = "\
Examples:
  perigee demo                             until Ctrl-C; keys and commands are said at the start
  perigee demo --minutes 2 --json          what was seen, for programs
  perigee demo --seed 7 --rate 5           other visitors, and more of them

Needs Linux, no other program and no rights. Everything listens on 127.0.0.0/8, and nothing is left behind.";

/// `perigee demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// What decides who comes when and looks at what [default: drawn, and said]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End by itself after so many minutes [default: at Ctrl-C]
    #[arg(long, value_name = "N", value_parser = parse_minutes)]
    minutes: Option<f64>,
    /// Visitors per second, on average
    #[arg(long, value_name = "N", default_value_t = VISITORS_PER_SECOND, value_parser = parse_rate)]
    rate: f64,
    /// Take the ports from this one on [default: ports that are free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=65500))]
    port_base: Option<u16>,
    /// Print what was seen as JSON at the end; all else goes to standard error
    #[arg(long)]
    json: bool,
}

fn parse_minutes(text: &str) -> Result<f64, String> {
    parse_number(text, MINUTES_MAX)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    parse_number(text, VISITORS_PER_SECOND_MAX)
}

fn parse_number(text: &str, max: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= max);
    number.ok_or_else(|| format!("not a number above 0 and up to {max}"))
}

impl Demo {
    /// Runs it until somebody or something says stop.
    pub(crate) fn run(self) -> Result<(), Failure> {
        // One thread, and this one: children end with the thread that has made them.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("no runtime: {error}"), ""))?;
        let done = LocalSet::new().block_on(&runtime, self.play());
        // A thread may still wait for an answer; the process is about to end.
        runtime.shutdown_background();
        done
    }

    async fn play(self) -> Result<(), Failure> {
        let mut stop = Stop::new()?;
        let seed = match self.seed {
            Some(seed) => seed,
            None => draw_seed()?,
        };
        let screen = Rc::new(Screen::new(self.json));
        let place = Place::make()?;
        let ports = Ports::choose(self.port_base)?;
        screen.say(&format!(
            "A shop in {}, its CDN in {}, visitors in {} cities. Seed {seed}.",
            map::SHOP_CITY,
            POPS.iter().map(|pop| pop.city).collect::<Vec<_>>().join(", "),
            CITIES.len()
        ));
        let scene = open_shop(ports).await?;
        let mut draw = Draw(seed);
        let viewer = Rc::new(Cell::new(0));
        open_doors(&scene, ports, &viewer).await?;
        let begin = async {
            let shop = Arc::clone(&scene.shop);
            let open = off_thread(move || {
                shop.draw();
                Ok(())
            });
            let cluster = async {
                let cluster =
                    Cluster::start(place.path(), ports, |text| screen.say(&format!("  {text}"))).await?;
                scene.resolvers.wait(cluster::PATIENCE).await?;
                screen.say("  the router answers DNS");
                Ok(cluster)
            };
            tokio::try_join!(cluster, open)
        };
        let cluster = tokio::select! {
            biased;
            () = stop.wanted() => return Ok(()),
            begun = begin => begun?.0,
        };
        let tour = Rc::new(Tour {
            scene: Rc::clone(&scene),
            screen: Rc::clone(&screen),
            cluster: RefCell::new(cluster),
            ports,
            events: RefCell::default(),
            draw: RefCell::new(draw.fork()),
        });
        let dashboard = tour.dashboard().await?;
        let env = tour.write_env(&place)?;
        let guide = || tour.guide(&env, dashboard.as_deref(), viewer.get());
        screen.say(&guide());
        tokio::task::spawn_local(visitors::look_without_cdn(Rc::clone(&scene), draw.fork()));
        tokio::task::spawn_local(visitors::come(Rc::clone(&scene), self.rate, draw));
        let begun = Instant::now();
        self.watch(&tour, &mut stop, &viewer, &guide).await?;
        self.end(tour, seed, begun.elapsed())
    }

    /// Keys, figures, deaths; until the end.
    async fn watch(
        &self,
        tour: &Rc<Tour>,
        stop: &mut Stop,
        viewer: &Cell<usize>,
        guide: &dyn Fn() -> String,
    ) -> Result<(), Failure> {
        let mut keys = Keys::listen();
        let mut ticks = interval(Duration::from_secs(1));
        let begun = Instant::now();
        let end = async {
            match self.minutes {
                Some(minutes) => sleep(Duration::from_secs_f64(minutes * 60.0)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            // Nothing is lost by what is dropped: keys, ticks and signals are waited for anew.
            let key = tokio::select! {
                biased;
                () = stop.wanted() => return Ok(()),
                () = &mut end => return Ok(()),
                key = keys.next() => key,
                _ = ticks.tick() => {
                    tour.report_ended();
                    tour.screen.show_figures(&tour.figures(begun.elapsed().as_secs()));
                    continue;
                }
            };
            match key {
                'p' => drop(tokio::task::spawn_local(Rc::clone(tour).change_price())),
                '1'..='9' => {
                    let pop = key as usize - '1' as usize;
                    if pop < POPS.len() {
                        tour.turn_pop(pop);
                    }
                }
                'c' => tour.screen.say(&tour.cities()),
                'm' => {
                    viewer.set((viewer.get() + 1) % CITIES.len());
                    tour.screen.say(&format!("You sit in {} now.", CITIES[viewer.get()].name));
                }
                'r' => {
                    let started = tour.cluster.borrow_mut().start_all_again()?;
                    let what =
                        if started.is_empty() { "nothing: all run".to_owned() } else { started.join(", ") };
                    tour.screen.say(&format!("Started again: {what}."));
                }
                'h' | '?' => tour.screen.say(&guide()),
                'q' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Ends everything, and says what was seen.
    fn end(&self, tour: Rc<Tour>, seed: u64, ran: Duration) -> Result<(), Failure> {
        let by_cdn = tour.scene.shop.asked().by_cdn.load(Ordering::Relaxed);
        let mut seen = tour.scene.tally.json(by_cdn);
        seen["seed"] = json!(seed);
        seen["seconds"] = json!(ran.as_secs());
        seen["events"] = json!(*tour.events.borrow());
        let (_, wrong) = tour.scene.tally.price_pages();
        let strange = seen["carts_of_others_seen"].as_u64().unwrap_or_default();
        tour.screen.say(&tour.figures(ran.as_secs()));
        tour.stop();
        if self.json {
            crate::print(&format!("{seen:#}\n"))?;
        }
        if wrong > 0 || strange > 0 {
            return Err(Failure::new(
                format!(
                    "visitors have seen an old price {wrong} times after every edge had signed that it is gone, and \
                     {strange} times somebody else's cart; wanted 0 and 0"
                ),
                format!("this is a mistake of Perigee: report it with the seed, {seed}"),
            ));
        }
        Ok(())
    }
}

impl Tour {
    /// Ends all processes of the cluster.
    fn stop(&self) {
        self.cluster.borrow_mut().stop();
    }

    /// Says what has ended although nobody wanted it to.
    fn report_ended(self: &Rc<Self>) {
        let ended = self.cluster.borrow_mut().ended();
        for (pop, words) in ended {
            self.screen.say(&words);
            let what = match pop {
                Some(pop) if self.cluster.borrow().pop_runs(pop) => {
                    "Its neighbours in the PoP take its visitors."
                }
                Some(pop) => {
                    tokio::task::spawn_local(Rc::clone(self).follow_death(pop));
                    "Its visitors are sent to another PoP."
                }
                None => {
                    "Visitors are served on: neither control nor router is in a request's way. New visitors need the router, \
                         changes need control."
                }
            };
            self.screen.say(&format!("{what} Key r starts again what has ended."));
        }
    }

    /// Where the dashboard is for a browser of this machine, if this control has one.
    async fn dashboard(&self) -> Result<Option<String>, Failure> {
        let (client, profile) = {
            let cluster = self.cluster.borrow();
            (cluster.client(), cluster.profile().clone())
        };
        if !off_thread(move || Ok(client.serves("/dashboard/"))).await? {
            return Ok(None);
        }
        let listener = listen_on(local(self.ports.dashboard)).await?;
        let tls = pinned_client_config(&profile.authority, &[b"http/1.1"])
            .map_err(|error| Failure::new(format!("TLS: {error}"), ""))?;
        tokio::task::spawn_local(pass_to_control(
            listener,
            local(self.ports.control),
            TlsConnector::from(tls),
        ));
        Ok(Some(format!("http://localhost:{}/dashboard/#token={}", self.ports.dashboard, profile.token)))
    }

    /// Where commands of this program find the cluster: a file for the shell.
    fn write_env(&self, place: &Place) -> Result<PathBuf, Failure> {
        let cluster = self.cluster.borrow();
        let profile = cluster.profile();
        let env = place.path().join("env");
        let lines = format!(
            "export PERIGEE_CONTROL={} PERIGEE_AUTHORITY={} PERIGEE_TOKEN={}\n",
            profile.control, profile.authority, profile.token
        );
        trust::write_new(&env, lines.as_bytes()).map_err(|error| {
            Failure::new(format!("{}: cannot be written: {error}", env.display()), "is there room?")
        })?;
        Ok(env)
    }

    /// What there is to see now, and how, for who sits in `city`.
    fn guide(&self, env: &Path, dashboard: Option<&str>, city: usize) -> String {
        let Ports { visitors, straight, office, dns, .. } = self.ports;
        let cluster = self.cluster.borrow();
        let program = std::env::current_exe().map_or("perigee".to_owned(), |path| path.display().to_string());
        let pids: Vec<String> =
            cluster.pids().into_iter().map(|(name, pid)| format!("{name} {pid}")).collect();
        let keys: Vec<String> =
            POPS.iter().enumerate().map(|(number, pop)| format!("{} {}", number + 1, pop.city)).collect();
        let dashboard = dashboard.map_or(String::new(), |url| format!("   {url}\n      the dashboard\n"));
        format!(
            "
1  Look
   http://localhost:{visitors}/
      the shop through the CDN, as if you sat in {} (key m: in another city)
   http://localhost:{straight}/
      the same without it
{dashboard}
2  Ask
   curl -sI http://localhost:{visitors}/photos/{WATCHED}.png | grep -i cache-status
   dig @127.0.0.1 -p {dns} www.shop.example +subnet={}/{}
      where the router sends visitors from {}
   . {} && {program} nodes

3  Change a price, and purge
   key p, or yourself:
   curl -d cents=1900 http://127.0.0.1:{office}/products/{WATCHED}
   . {} && {program} purge --cluster --tag product-{WATCHED} --wait

4  Kill a PoP, and start it again
   keys {}; or kill -9 one of: {}

Keys: p price   1 2 3 PoPs   c cities   m move   r start again what has ended   h this again   q end
",
            CITIES[city].name,
            map::network(city),
            map::NETWORK_BITS,
            CITIES[city].name,
            env.display(),
            env.display(),
            keys.join(", "),
            pids.join(", ")
        )
    }
}

/// The signals that end the demo: Ctrl-C, the system's, and the terminal's when it is closed.
struct Stop(Vec<tokio::signal::unix::Signal>);

impl Stop {
    fn new() -> Result<Self, Failure> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>();
        let signals =
            signals.map_err(|error| Failure::new(format!("signals cannot be received: {error}"), ""))?;
        Ok(Stop(signals))
    }

    async fn wanted(&mut self) {
        std::future::poll_fn(|cx| {
            let heard = self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if heard { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

fn draw_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failure::new("the system gives no chance", "choose one yourself: --seed 1"))?;
    Ok(u32::from_le_bytes(bytes).into())
}

async fn listen_on(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let message = format!("{address} cannot be listened on: {error}");
        Failure::new(message, "start the demo again: it takes other ports")
    })
}

/// The shop and its back office, each at a port.
async fn open_shop(ports: Ports) -> Result<Rc<Scene>, Failure> {
    let shop = Arc::new(Shop::new());
    for (port, door) in [(ports.shop, Door::Front), (ports.office, Door::Office)] {
        tokio::task::spawn_local(Arc::clone(&shop).serve(listen_on(local(port)).await?, door));
    }
    Ok(Rc::new(Scene {
        host: format!("localhost:{}", ports.visitors),
        port: ports.visitors,
        shop_address: local(ports.shop),
        shop,
        uplink: Arc::new(Uplink::new(map::SHOP_UPLINK_BITS_PER_SECOND)),
        resolvers: Resolvers::new(local(ports.dns), cluster::DOMAIN),
        tally: Tally::new(),
    }))
}

/// Where a browser of this machine comes in, as if it stood in the viewer's city; and where edges come in, each as from its PoP.
async fn open_doors(scene: &Rc<Scene>, ports: Ports, viewer: &Rc<Cell<usize>>) -> Result<(), Failure> {
    let to_shop = {
        let (scene, viewer) = (Rc::clone(scene), Rc::clone(viewer));
        move |from: SocketAddr| {
            let one_way = match map::pop_of(from.ip()) {
                Some(pop) => map::pop_to_shop(pop),
                None => map::city_to_shop(viewer.get()),
            };
            let line = Line { one_way, uplink: Some(Arc::clone(&scene.uplink)) };
            std::future::ready(Some((scene.shop_address, line)))
        }
    };
    tokio::task::spawn_local(line::listen(listen_on(local(ports.straight)).await?, to_shop));
    for (pop, edge) in map::edges() {
        let far = SocketAddr::new(map::edge_address(pop, edge), ports.tier);
        let to_edge = move |from: SocketAddr| {
            let from = map::pop_of(from.ip());
            let line = from.map(|from| Line { one_way: map::pop_to_pop(from, pop), uplink: None });
            std::future::ready(line.map(|line| (far, line)))
        };
        let door = SocketAddr::new(map::tier_door(pop, edge), ports.tier);
        tokio::task::spawn_local(line::listen(listen_on(door).await?, to_edge));
    }
    let to_pop = {
        let (scene, viewer) = (Rc::clone(scene), Rc::clone(viewer));
        move |_from: SocketAddr| {
            let (scene, city) = (Rc::clone(&scene), viewer.get());
            async move {
                let address = scene.resolvers.resolve(city).await.ok()?.first().copied()?;
                let line = Line { one_way: map::city_to_pop(city, map::pop_of(address)?), uplink: None };
                Some((SocketAddr::new(address, scene.port), line))
            }
        }
    };
    tokio::task::spawn_local(line::listen(listen_on(local(ports.visitors)).await?, to_pop));
    Ok(())
}

/// Passes connections on to control, which speaks TLS under an authority that no browser knows. On loopback, where nobody else listens.
async fn pass_to_control(listener: TcpListener, control: SocketAddr, tls: TlsConnector) {
    loop {
        let Ok((mut near, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let tls = tls.clone();
        tokio::task::spawn_local(async move {
            let far = TcpStream::connect(control).await?;
            let mut far = tls.connect(ServerName::from(control.ip()), far).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
    }
}
