//! The demo's CDN: a control with its journal in SQLite, edges in each PoP, a router; each a process, set up by the commands and calls that
//! docs/control.md names. Nothing here is done in another way than an operator would do it.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Control;
use model::rollout::GROWTH;
use router::compile::Compiler;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::map::{self, POPS, SHIELD};
use super::place::Ports;
use super::process::{self, Process};
use crate::cluster::{Cluster as Reach, Profile};
use crate::failure::Failure;

/// Time for anything that must come while the cluster begins; a debug build on a busy machine is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Time for processes to end when they are asked to.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// The name that visitors ask the router for.
pub(super) const DOMAIN: &str = "www.shop.example";

/// The cluster.
pub(super) struct Cluster {
    directory: PathBuf,
    ports: Ports,
    control: Process,
    /// By PoP.
    edges: Vec<Vec<Process>>,
    router: Option<Process>,
    profile: Profile,
    client: Arc<Control>,
}

impl Cluster {
    /// Starts everything and waits until it serves. Call it on the main thread; `say` hears how far it is.
    pub(super) async fn start(directory: &Path, ports: Ports, say: impl Fn(&str)) -> Result<Self, Failure> {
        let mut control = start_control(directory, ports)?;
        let state = directory.join("control");
        let token = state.join("admin-token");
        wait_for("control to make its first token", &mut [&mut control], || {
            token.exists() && state.join("ca.pem").exists()
        })
        .await?;
        wait_for("control to listen", &mut [&mut control], || listens(local(ports.control))).await?;
        let url = format!("https://{}", local(ports.control));
        let profile = Reach::of(url, state.join("ca.pem").display().to_string(), token).profile()?;
        let client = Arc::new(profile.client()?);
        let mut cluster = Cluster {
            directory: directory.to_owned(),
            ports,
            control,
            edges: Vec::new(),
            router: None,
            profile,
            client,
        };
        say("control runs");
        cluster.write_location()?;
        for (number, pop) in POPS.iter().enumerate() {
            cluster.start_pop(number, pop).await?;
        }
        let edges: Vec<(String, SocketAddr)> = cluster.edge_addresses().collect();
        for (name, address) in &edges {
            let mut all: Vec<&mut Process> = cluster.edges.iter_mut().flatten().collect();
            wait_for(&format!("edge {name} to listen"), &mut all, || listens(*address)).await?;
        }
        say(&format!("{} edges in {} PoPs have joined it by token", edges.len(), POPS.len()));
        let version = cluster.apply().await?;
        cluster
            .wait_for_nodes(&format!("all edges to run configuration {version}"), |node| {
                node["running"].as_u64() == Some(version)
            })
            .await?;
        say(&format!("configuration {version} is rolled out to all of them"));
        cluster.start_router().await?;
        Ok(cluster)
    }

    // --- Beginning ---

    async fn start_pop(&mut self, number: usize, pop: &map::Pop) -> Result<(), Failure> {
        let wanted = json!({ "role": "edge", "pop": pop.name, "uses": pop.edges });
        let join = self.join_token(pop.name, wanted).await?;
        let mut edges = Vec::new();
        for edge in 0..pop.edges {
            let name = edge_name(pop, edge);
            let config = self.directory.join(format!("{name}.toml"));
            write(&config, &self.node_file(&name, number, edge))?;
            let state = self.directory.join(&name);
            let arguments = [
                "edge".into(),
                "--config".into(),
                config.into(),
                "--token".into(),
                join.clone().into(),
                "--state".into(),
                state.into(),
            ];
            edges.push(Process::start(&name, arguments.into(), &self.directory)?);
        }
        self.edges.push(edges);
        Ok(())
    }

    fn node_file(&self, name: &str, pop: usize, edge: usize) -> String {
        let (address, Ports { visitors, admin, tier, control, .. }) =
            (map::edge_address(pop, edge), self.ports);
        let pop = POPS[pop].name;
        format!(
            r#"[cluster]
control = ["https://{}"]
pop     = "{pop}"

[edge]
node   = "{name}"
listen = "{address}:{visitors}"
admin  = "{address}:{admin}"
# Here other edges come in: of the same PoP, and where this one is a shield.
listen_tier = "{address}:{tier}"
workers = 1
# Visitors come over lines that say whose they are.
trusted_proxies = ["127.0.0.0/8"]
# By this the lines to the shop and to other edges know how far it is.
origin_source = "{address}"
limits = {{ drain_timeout = "1s" }}
location = {:?}

[store]
memory = "64MiB"

[[store.disk]]
size = "64MiB"
"#,
            local(control),
            self.location_file()
        )
    }

    /// The cluster's configuration: what all nodes have in common.
    fn configuration(&self) -> String {
        let Ports { visitors, straight, tier, .. } = self.ports;
        let node = |pop: usize, edge: usize| {
            let (name, door) = (edge_name(&POPS[pop], edge), map::tier_door(pop, edge));
            format!("[[pop.node]]\nname = \"{name}\"\ntier = \"{door}:{tier}\"\n\n")
        };
        let pop = |(number, pop): (usize, &map::Pop)| {
            let edges: Vec<_> =
                (0..pop.edges).map(|edge| map::edge_address(number, edge).to_string()).collect();
            let nodes: String = (0..pop.edges).map(|edge| node(number, edge)).collect();
            let map::Pop { name, location, .. } = pop;
            format!("[[pop]]\nname = \"{name}\"\nlocation = \"{location}\"\nedges = {edges:?}\n\n{nodes}")
        };
        let pops: String = POPS.iter().enumerate().map(pop).collect();
        format!(
            r#"# The demo's cluster: three PoPs, one shop.

{pops}[dns]
zone = "shop.example"
nameservers = {{ "ns1.shop.example" = ["127.0.0.1"] }}
ttl = "5s"
https = false

[probe]
port = {visitors}

[[site]]
name = "shop"
domains = ["{DOMAIN}", "localhost"]
# The other PoPs ask this one before they ask the shop.
shield = "{SHIELD}"
# A long line leads there, which knows by the edge's address how far it is.
origin = "http://127.0.0.1:{straight}"
max_purge_lag = "10s"
stale_if_error = "1d"

[[site.rule]]
name = "static"
path = ["/static/*", "/photos/*", "/media/*"]
ttl = "1d"
stale_while_revalidate = "1h"
request_cookies = "none"
surrogate_keys = ["static"]

[[site.rule]]
name = "private"
path = ["/cart*", "/api/*"]
cache = false

[[site.rule]]
name = "login"
path = "/login"
methods = "POST"
cache = false

[[site.rule]]
name = "pages"
path = "/*"
query = "ignore"
request_cookies = "none"

[[site.test]]
get = "/photos/17.png"
expect = {{ rule = "static", ttl = "1d" }}

[[site.test]]
get = "/cart"
expect = {{ rule = "private", cache = false }}

[[site.test]]
get = "/products/17"
headers = {{ Cookie = "session=1" }}
response_headers = {{ CDN-Cache-Control = "max-age=3600" }}
expect = {{ rule = "pages", ttl = "1h", request_headers = {{ Cookie = false }} }}
"#
        )
    }

    /// Rolls the configuration out to all nodes at once, as `perigee apply --stage all` does. Its number.
    async fn apply(&self) -> Result<u64, Failure> {
        let text = self.configuration();
        let file = self.directory.join("cluster.toml");
        write(&file, &text)?;
        let source = file.display().to_string();
        let added = self
            .post(
                "/v1/configurations",
                json!({ "text": text, "reason": "the demo begins", "source": source }),
            )
            .await?;
        let version = added["version"]
            .as_u64()
            .ok_or_else(|| Failure::new(format!("control gave the configuration no number: {added}"), ""))?;
        // There is nothing before it to compare with, and caches that begin empty grow.
        let gates = json!({ "growth": GROWTH.max });
        let rollout =
            json!({ "version": version, "stage": "all", "reason": "the demo begins", "gates": gates });
        self.post("/v1/rollouts", rollout).await?;
        Ok(version)
    }

    /// What is to be known of networks, as `perigee geo build --list` makes it.
    fn write_location(&self) -> Result<(), Failure> {
        let location = self.location_file();
        let mut compiler = Compiler::new();
        compiler.list(&map::location_list(), "cities");
        let bytes = compiler.finish(0).encode(1).map_err(|error| unwritable(&location, &error))?;
        fs::write(&location, bytes).map_err(|error| unwritable(&location, &error))
    }

    async fn start_router(&mut self) -> Result<(), Failure> {
        let join = self.join_token("ns1", json!({ "role": "router", "name": "ns1" })).await?;
        let Ports { dns, router_admin, control, .. } = self.ports;
        let config = self.directory.join("ns1.toml");
        let text = format!(
            r#"node     = "ns1"
listen   = ["{}"]
admin    = "{}"
location = {:?}
state    = {:?}
workers  = 1

[cluster]
control  = ["https://{}"]
"#,
            local(dns),
            local(router_admin),
            self.location_file(),
            self.directory.join("ns1"),
            local(control)
        );
        write(&config, &text)?;
        let arguments = ["router".into(), "--config".into(), config.into(), "--token".into(), join.into()];
        let mut router = Process::start("ns1", arguments.into(), &self.directory)?;
        wait_for("the router to listen", &mut [&mut router], || listens(local(dns))).await?;
        self.router = Some(router);
        Ok(())
    }

    /// A file with a token by which nodes join.
    async fn join_token(&self, name: &str, wanted: Value) -> Result<PathBuf, Failure> {
        let made = self.post("/v1/enrolment-tokens", wanted).await?;
        let join = self.directory.join(format!("join-{name}"));
        trust::write_new(&join, made["token"].as_str().unwrap_or_default().as_bytes())
            .map_err(|error| unwritable(&join, &error))?;
        Ok(join)
    }

    async fn wait_for_nodes(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let nodes = self.fetch("/v1/nodes").await?;
            let all = nodes["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let edges = map::edges().count();
            if all.len() >= edges && all.iter().all(&is_so) {
                return Ok(());
            }
            if Instant::now() > until {
                let found = format!("waited {} s for {what}; found {nodes}", PATIENCE.as_secs());
                return Err(Failure::new(found, "start it again on a machine that is less busy"));
            }
            sleep(LOOK).await;
        }
    }

    // --- What is asked of it ---

    fn location_file(&self) -> PathBuf {
        self.directory.join("location.geo")
    }

    /// How to reach control, and be let in.
    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// POST to control's API.
    async fn post(&self, target: &str, body: Value) -> Result<Value, Failure> {
        let (client, target) = (Arc::clone(&self.client), target.to_owned());
        off_thread(move || Ok(client.post(&target, &body)?)).await
    }

    /// The way to control's API, for what takes longer than the cluster can be held.
    pub(super) fn client(&self) -> Arc<Control> {
        Arc::clone(&self.client)
    }

    async fn fetch(&self, target: &str) -> Result<Value, Failure> {
        let (client, target) = (Arc::clone(&self.client), target.to_owned());
        off_thread(move || Ok(client.fetch(&target)?)).await
    }

    /// Each edge's name, and where it serves visitors.
    pub(super) fn edge_addresses(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        let port = self.ports.visitors;
        map::edges().map(move |(pop, edge)| {
            (edge_name(&POPS[pop], edge), SocketAddr::new(map::edge_address(pop, edge), port))
        })
    }

    // --- What is done to it ---

    /// Whether any edge of a PoP runs.
    pub(super) fn pop_runs(&self, pop: usize) -> bool {
        self.edges[pop].iter().any(Process::runs)
    }

    /// Kills all edges of a PoP, as a loss of power would.
    pub(super) fn kill_pop(&mut self, pop: usize) {
        self.edges[pop].iter_mut().for_each(Process::kill);
    }

    /// Starts all of a PoP's edges that do not run.
    pub(super) fn start_pop_again(&mut self, pop: usize) -> Result<(), Failure> {
        self.edges[pop].iter_mut().filter(|edge| !edge.runs()).try_for_each(Process::start_again)
    }

    /// Starts whatever does not run.
    pub(super) fn start_all_again(&mut self) -> Result<Vec<String>, Failure> {
        let mut started = Vec::new();
        for process in self.processes().filter(|process| !process.runs()) {
            process.start_again()?;
            started.push(process.name.clone());
        }
        Ok(started)
    }

    /// What has ended since the last look although nobody here ended it: what it is, its PoP, and in words how.
    pub(super) fn ended(&mut self) -> Vec<(Option<usize>, String)> {
        let mut ended = Vec::new();
        let pops = self
            .edges
            .iter_mut()
            .enumerate()
            .flat_map(|(pop, edges)| edges.iter_mut().map(move |edge| (Some(pop), edge)));
        let others = [&mut self.control].into_iter().chain(&mut self.router).map(|process| (None, process));
        for (pop, process) in pops.chain(others) {
            if let Some(status) = process.has_ended() {
                ended.push((
                    pop,
                    format!("{} has ended ({status}); it said last:\n{}", process.name, process.last_words()),
                ));
            }
        }
        ended
    }

    /// The processes' names and numbers.
    pub(super) fn pids(&self) -> Vec<(String, u32)> {
        let all = [&self.control].into_iter().chain(&self.router).chain(self.edges.iter().flatten());
        all.filter_map(|process| Some((process.name.clone(), process.pid()?))).collect()
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        // Nodes before those whom they would call for.
        self.edges.iter_mut().flatten().chain(&mut self.router).chain([&mut self.control])
    }

    /// Ends everything.
    pub(super) fn stop(&mut self) {
        process::stop_all(self.processes(), END_PATIENCE);
    }
}

/// Waits for the last receipt of a purge, and tells `hear` of each state in which it is. What control says of it at the end.
///
/// # Errors
/// Control cannot be reached.
pub(super) async fn prove(
    client: &Arc<Control>,
    position: &Value,
    patience: Duration,
    hear: impl Fn(&Value),
) -> Result<Value, Failure> {
    let until = Instant::now() + patience;
    loop {
        let (client, target) = (Arc::clone(client), format!("/v1/purges/{position}?wait=2s"));
        let status = off_thread(move || Ok(client.fetch(&target)?)).await?;
        if status["state"] == "done" || Instant::now() > until {
            return Ok(status);
        }
        hear(&status);
    }
}

/// Does on another thread what waits.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::new(format!("a thread of the demo has ended: {error}"), "")))
}

fn start_control(directory: &Path, ports: Ports) -> Result<Process, Failure> {
    let (config, state) = (directory.join("control.toml"), directory.join("control"));
    let text = format!(
        "name   = \"control-1\"\nlisten = \"{}\"\nstate  = {state:?}\n\n[journal]\nsqlite = {:?}\n",
        local(ports.control),
        state.join("journal.sqlite")
    );
    write(&config, &text)?;
    Process::start("control", vec!["control".into(), "--config".into(), config.into()], directory)
}

fn edge_name(pop: &map::Pop, edge: usize) -> String {
    format!("{}-{}", pop.name, edge + 1)
}

/// A port on this machine.
pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port)
}

fn listens(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, LOOK).is_ok()
}

async fn wait_for(
    what: &str,
    processes: &mut [&mut Process],
    is_so: impl Fn() -> bool,
) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        for process in processes.iter_mut() {
            if let Some(status) = process.has_ended() {
                let words = process.last_words();
                return Err(Failure::new(
                    format!(
                        "{} has ended ({status}) before the demo began; it said last:\n{words}",
                        process.name
                    ),
                    "do what it says, and start the demo again",
                ));
            }
        }
        if Instant::now() > until {
            return Err(Failure::new(
                format!("waited {} s for {what}", PATIENCE.as_secs()),
                "start it again on a machine that is less busy",
            ));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("{}: cannot be written: {error}", path.display()),
        "is there room? Name another place: TMPDIR=/var/tmp",
    )
}
