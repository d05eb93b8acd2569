//! A whole cluster as processes of its own on loopback: etcd servers, controls, a relay, edges, routers; and faults done to them.
//! Everything that was started is ended when it is dropped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use journal::sqlite::Sqlite;
use journal::{Commit, Journal};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use trust::fingerprint;

use crate::authority::free_address as free;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(90);

const DISK: &str = "[[store.disk]]\nsize = \"256MiB\"\n";

/// How many there are of each.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Members of etcd; 0: one control, with a journal in SQLite.
    pub etcd: usize,
    /// Controls.
    pub controls: usize,
    /// Edges that follow a control.
    pub edges: usize,
    /// Edges that follow a relay, which is there if there are any.
    pub relayed: usize,
    /// Whether edges have disks.
    pub disks: bool,
}

/// Where the processes of a cluster run.
pub trait Ground: Send + Sync {
    /// An address for the process of this name, at which nobody listens.
    fn free(&self, name: &str) -> SocketAddr;

    /// An address for the visitors of an edge of this name: the port is that of all edges, where each has an address of its own.
    fn service(&self, name: &str) -> SocketAddr {
        self.free(name)
    }

    /// An address for the admin API of an edge, which is reached from its own machine.
    fn admin(&self, name: &str) -> SocketAddr {
        self.free(name)
    }

    /// How a command is run as the process of this name.
    fn command(&self, _name: &str, command: Vec<String>) -> Vec<String> {
        command
    }

    /// Whether what is started has process groups of its own: what a terminal says to this one's, such as Ctrl-C, is not said to them. They
    /// have to end with this process by other means then.
    fn is_apart(&self) -> bool {
        false
    }
}

/// All at 127.0.0.1.
struct OneMachine;

impl Ground for OneMachine {
    fn free(&self, _name: &str) -> SocketAddr {
        free()
    }
}

/// An edge that is to be.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'s> {
    /// Its PoP.
    pub pop: &'s str,
    /// Whether it follows the relay, which has to be there.
    pub is_relayed: bool,
    /// The lines of `[store]`, and what follows them.
    pub store: &'s str,
}

/// A cluster that runs.
pub struct Cluster {
    directory: PathBuf,
    ground: Arc<dyn Ground>,
    is_kept: bool,
    perigee: PathBuf,
    etcd: Vec<Process>,
    controls: Vec<Process>,
    relay: Option<Process>,
    edges: Vec<Process>,
    routers: Vec<Process>,
    token: String,
    authority: String,
}

/// One of its processes.
pub struct Process {
    /// Its name in the cluster.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where an edge's or a router's admin API is.
    pub admin: Option<SocketAddr>,
    /// Where other edges reach it, if it is one.
    pub tier: Option<SocketAddr>,
    command: Vec<String>,
    is_apart: bool,
    log: PathBuf,
    child: Option<Child>,
    /// The process that has taken the child's place by an upgrade.
    successor: Option<Pid>,
}

impl Process {
    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        if self.is_apart {
            command.process_group(0);
        }
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{}: {error}", self.command[0])));
        self.successor = None;
    }

    fn await_listening(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.ended();
            assert!(ended.is_none(), "{} has ended with {ended:?}:\n{}", self.name, self.log());
            assert!(Instant::now() < deadline, "{} does not listen:\n{}", self.name, self.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// As a loss of power would, but for what the system has not written yet.
    pub fn kill(&mut self) {
        if let Some(successor) = self.successor.take() {
            let _ = kill_process(successor, Signal::KILL);
            while is_alive(successor) {
                sleep(Duration::from_millis(5));
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.child.is_some() && self.ended().is_none() {
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.name, self.log());
            sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<String> {
        match self.successor {
            Some(successor) => (!is_alive(successor)).then(|| "the process that was upgraded to".to_owned()),
            None => {
                let child = self.child.as_mut()?.try_wait().ok().flatten();
                child.map(|status| status.to_string())
            }
        }
    }

    /// The id of the process that serves.
    pub fn pid(&self) -> Option<Pid> {
        self.successor.or_else(|| Pid::from_raw(self.child.as_ref()?.id() as i32))
    }

    /// Starts it again, and waits until it listens.
    pub fn restart(&mut self) {
        self.kill();
        self.start();
        self.await_listening();
    }

    /// Stops its time: it holds its connections, and says nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }
}

fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    // What is dead as a whole may have threads that still end, and hold its files and sockets.
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).map_or(0, Iterator::count);
    state.is_some_and(|state| state != "Z" || threads > 1)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether etcd is installed.
pub fn has_etcd() -> bool {
    Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Cluster {
    /// Starts one from nothing, with `perigee` as its program: all have joined when this returns, and no site is served yet.
    pub fn start(perigee: &Path, shape: Shape) -> Cluster {
        Cluster::start_on(Arc::new(OneMachine), perigee, shape)
    }

    /// The same, elsewhere.
    pub fn start_on(ground: Arc<dyn Ground>, perigee: &Path, shape: Shape) -> Cluster {
        let unique = format!("perigee-cluster-{}-{}", std::process::id(), free().port());
        let directory = std::env::temp_dir().join(unique);
        fs::create_dir_all(&directory).expect("a directory");
        let mut cluster = Cluster {
            directory,
            ground,
            is_kept: false,
            perigee: perigee.to_owned(),
            etcd: Vec::new(),
            controls: Vec::new(),
            relay: None,
            edges: Vec::new(),
            routers: Vec::new(),
            token: String::new(),
            authority: String::new(),
        };
        cluster.start_etcd(shape.etcd);
        for number in 1..=shape.controls {
            cluster.start_control(number);
        }
        if shape.relayed > 0 {
            cluster.start_relay();
        }
        let join = cluster.join_token(&["--role", "edge", "--pop", "one"], shape.edges + shape.relayed);
        for number in 1..=shape.edges + shape.relayed {
            let store = format!("memory = \"64MiB\"\n{}", if shape.disks { DISK } else { "" });
            let seat = Seat { pop: "one", is_relayed: number > shape.edges, store: &store };
            cluster.start_edge(number, seat, &join);
        }
        cluster
    }

    fn start_etcd(&mut self, count: usize) {
        let members = (1..=count).map(|number| {
            let name = format!("e{number}");
            let (client, peer) = (self.ground.free(&name), self.ground.free(&name));
            (name, client, peer)
        });
        let members: Vec<_> = members.collect();
        let initial: Vec<_> = members.iter().map(|(name, _, peer)| format!("{name}=http://{peer}")).collect();
        for (name, client, peer) in &members {
            let directory = self.directory.join(name).display().to_string();
            let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
            let command = [
                "etcd",
                "--name",
                name,
                "--data-dir",
                &directory,
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
                "--initial-cluster",
                &initial.join(","),
                "--log-level",
                "error",
                // As 3.5 does by itself: one that was cut off unseats no leader when it is back.
                "--pre-vote",
            ];
            let process = self.process(name, *client, None, command.map(str::to_owned).to_vec());
            self.etcd.push(process);
        }
        self.etcd.iter_mut().for_each(Process::await_listening);
    }

    fn process(
        &self,
        name: &str,
        address: SocketAddr,
        admin: Option<SocketAddr>,
        command: Vec<String>,
    ) -> Process {
        let log = self.directory.join(format!("{name}.log"));
        let command = self.ground.command(name, command);
        let mut process = Process {
            name: name.to_owned(),
            address,
            admin,
            tier: None,
            command,
            is_apart: self.ground.is_apart(),
            log,
            child: None,
            successor: None,
        };
        process.start();
        process
    }

    fn start_control(&mut self, number: usize) {
        let name = format!("c{number}");
        let address = self.ground.free(&name);
        let state = self.directory.join(&name);
        let journal = match self.etcd.is_empty() {
            true => format!("sqlite = {:?}", state.join("journal.sqlite")),
            false => {
                let endpoints: Vec<_> =
                    self.etcd.iter().map(|member| format!("http://{}", member.address)).collect();
                format!("[journal.etcd]\nendpoints = {endpoints:?}")
            }
        };
        let journal = if self.etcd.is_empty() { format!("[journal]\n{journal}") } else { journal };
        if let Some(first) = self.controls.first() {
            let secret = "cluster-secret";
            let of_first = self.directory.join(&first.name).join(secret);
            fs::create_dir_all(&state).expect("a directory");
            fs::copy(of_first, state.join(secret)).expect("the cluster's secret");
        }
        let config = self.directory.join(format!("{name}.toml"));
        let text = format!("name = {name:?}\nlisten = \"{address}\"\nstate = {state:?}\n{journal}\n");
        fs::write(&config, text).expect("a configuration");
        let command = self.command(&["control", "--config", &config.display().to_string()]);
        let mut process = self.process(&name, address, None, command);
        process.await_listening();
        self.controls.push(process);
        if number == 1 {
            self.wait("control has made a token", || {
                state.join("admin-token").exists() && state.join("ca.pem").exists()
            });
            let read = |name: &str| fs::read_to_string(state.join(name)).expect("what control has made");
            self.token = read("admin-token").trim().to_owned();
            let authority = CertificateDer::from_pem_slice(read("ca.pem").as_bytes()).expect("a certificate");
            self.authority = fingerprint(&authority);
        }
    }

    /// A file with a token that lets so many nodes join.
    fn join_token(&self, what: &[&str], uses: usize) -> PathBuf {
        let uses = uses.max(1).to_string();
        let mut arguments = vec!["enroll", "--uses", &uses];
        arguments.extend(what);
        let urls = self.control_urls();
        for url in &urls {
            arguments.extend(["--node-control", url]);
        }
        let path = self.directory.join(format!("join-{}", free().port()));
        fs::write(&path, self.perigee(&arguments)).expect("a token");
        path
    }

    /// Starts the relay, which joins.
    pub fn start_relay(&mut self) {
        let name = "relay".to_owned();
        let address = self.ground.free(&name);
        let join = self.join_token(&["--role", "relay"], 1);
        let config = self.directory.join("relay.toml");
        let state = self.directory.join(&name);
        let controls = self.control_urls();
        let text =
            format!("name = {name:?}\nlisten = \"{address}\"\nstate = {state:?}\ncontrol = {controls:?}\n");
        fs::write(&config, text).expect("a configuration");
        let (config, join) = (config.display().to_string(), join.display().to_string());
        let command = self.command(&["relay", "--config", &config, "--token", &join]);
        let mut process = self.process(&name, address, None, command);
        process.await_listening();
        self.relay = Some(process);
    }

    fn start_edge(&mut self, number: usize, seat: Seat<'_>, join: &Path) {
        let name = format!("edge-{number}");
        let (address, ground) = (self.ground.service(&name), &self.ground);
        let (admin, tier) = (ground.admin(&name), ground.free(&name));
        let Seat { pop, is_relayed, store } = seat;
        let state = self.directory.join(&name);
        let config = self.directory.join(format!("{name}.toml"));
        let follows = match &self.relay {
            Some(relay) if is_relayed => vec![format!("https://{}", relay.address)],
            _ => self.control_urls(),
        };
        let text = format!(
            "[cluster]\ncontrol = {follows:?}\npop = {pop:?}\n[edge]\nnode = {name:?}\nlisten = \"{address}\"\nlisten_tier = \"{tier}\"\nadmin = \"{admin}\"\n\
             workers = 1\n[store]\n{store}"
        );
        fs::write(&config, text).expect("a configuration");
        let [config, join, state] = [config.as_path(), join, &state].map(|path| path.display().to_string());
        let command = self.command(&["edge", "--config", &config, "--token", &join, "--state", &state]);
        let mut process = self.process(&name, address, Some(admin), command);
        process.tier = Some(tier);
        process.await_listening();
        self.edges.push(process);
    }

    /// Starts another edge, in a PoP, which joins. Its index among the edges.
    pub fn start_edge_in(&mut self, pop: &str) -> usize {
        self.add_edge(Seat { pop, is_relayed: false, store: "memory = \"64MiB\"\n" })
    }

    /// Starts another edge, which joins. Its index among the edges.
    pub fn add_edge(&mut self, seat: Seat<'_>) -> usize {
        let join = self.join_token(&["--role", "edge", "--pop", seat.pop], 1);
        self.start_edge(self.edges.len() + 1, seat, &join);
        self.edges.len() - 1
    }

    /// Starts a router, which joins; `location` is its location data. Its index among the routers.
    pub fn start_router(&mut self, location: Option<&Path>) -> usize {
        let name = format!("ns{}", self.routers.len() + 1);
        let (address, admin) = (self.ground.free(&name), self.ground.free(&name));
        let join = self.join_token(&["--role", "router"], 1);
        let (config, state) = (self.directory.join(format!("{name}.toml")), self.directory.join(&name));
        let location = location.map_or_else(String::new, |path| format!("location = {path:?}\n"));
        let controls = self.control_urls();
        let text = format!(
            "node = {name:?}\nlisten = [\"{address}\"]\nadmin = \"{admin}\"\nstate = {state:?}\nworkers = 1\n{location}\
             [cluster]\ncontrol = {controls:?}\n"
        );
        fs::write(&config, text).expect("a configuration");
        let (config, join) = (config.display().to_string(), join.display().to_string());
        let command = self.command(&["router", "--config", &config, "--token", &join]);
        let mut process = self.process(&name, address, Some(admin), command);
        process.await_listening();
        self.routers.push(process);
        self.routers.len() - 1
    }

    fn command(&self, arguments: &[&str]) -> Vec<String> {
        let program = self.perigee.display().to_string();
        std::iter::once(program).chain(arguments.iter().map(|text| (*text).to_owned())).collect()
    }

    // --- What is asked of it ---

    /// URLs of the controls.
    pub fn control_urls(&self) -> Vec<String> {
        self.controls.iter().map(|control| format!("https://{}", control.address)).collect()
    }

    /// The fingerprint of its authority, and the token of its first administrator.
    pub fn access(&self) -> (&str, &str) {
        (&self.authority, &self.token)
    }

    /// Its edges.
    pub fn edges(&self) -> &[Process] {
        &self.edges
    }

    /// Lines of a configuration: its edges as nodes of PoPs of these names, each with so many of them, in order.
    pub fn pops(&self, pops: &[(&str, usize)]) -> String {
        let (mut text, mut left) = (String::new(), self.edges.as_slice());
        for (number, (pop, count)) in pops.iter().enumerate() {
            let nodes;
            (nodes, left) = left.split_at(*count);
            text.push_str(&format!(
                "[[pop]]\nname = {pop:?}\nlocation = [1.0, 2.0]\nedges = \"192.0.2.{number}\"\n"
            ));
            for node in nodes {
                let tier = node.tier.expect("an edge has an address for the others");
                text.push_str(&format!("[[pop.node]]\nname = {:?}\ntier = \"{tier}\"\n", node.name));
            }
        }
        text
    }

    /// Its edges, to do something to.
    pub fn edges_mut(&mut self) -> &mut [Process] {
        &mut self.edges
    }

    /// Its routers.
    pub fn routers(&self) -> &[Process] {
        &self.routers
    }

    /// Its routers, to do something to.
    pub fn routers_mut(&mut self) -> &mut [Process] {
        &mut self.routers
    }

    /// Its controls.
    pub fn controls(&self) -> &[Process] {
        &self.controls
    }

    /// Its controls, to do something to.
    pub fn controls_mut(&mut self) -> &mut [Process] {
        &mut self.controls
    }

    /// All that there is, to do something to.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        let above = self.etcd.iter_mut().chain(&mut self.controls).chain(&mut self.relay);
        above.chain(&mut self.edges).chain(&mut self.routers)
    }

    /// Adds to a control's configuration, and starts it again.
    pub fn add_to_control(&mut self, index: usize, text: &str) {
        let control = &mut self.controls[index];
        let path = self.directory.join(format!("{}.toml", control.name));
        let before = fs::read_to_string(&path).expect("a configuration");
        fs::write(&path, format!("{before}{text}")).expect("a configuration");
        control.restart();
    }

    /// Changes the configuration of an edge's own, and starts it again.
    pub fn configure_edge(&mut self, index: usize, change: impl Fn(&str) -> String) {
        let edge = &mut self.edges[index];
        let path = self.directory.join(format!("{}.toml", edge.name));
        let before = fs::read_to_string(&path).expect("a configuration");
        fs::write(&path, change(&before)).expect("a configuration");
        edge.restart();
    }

    /// Where it keeps everything.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Members of etcd.
    pub fn etcd(&self) -> &[Process] {
        &self.etcd
    }

    /// Members of etcd, to do something to.
    pub fn etcd_mut(&mut self) -> &mut [Process] {
        &mut self.etcd
    }

    /// Its relay, to do something to.
    pub fn relay_mut(&mut self) -> Option<&mut Process> {
        self.relay.as_mut()
    }

    /// Runs a command of the program as the administrator, at the control of this number. What it printed, and how it ended.
    pub fn try_perigee(&self, control: usize, arguments: &[&str]) -> Output {
        self.ready_perigee(control, arguments).output().expect("the program")
    }

    /// As [`Cluster::try_perigee`], and not yet started.
    pub fn ready_perigee(&self, control: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.perigee);
        command.args(arguments).env("PERIGEE_CONTROL", format!("https://{}", self.controls[control].address));
        command.env("PERIGEE_AUTHORITY", &self.authority).env("PERIGEE_TOKEN", &self.token);
        if self.authority.is_empty() {
            let authority = self.directory.join("c1").join("ca.pem");
            command.env("PERIGEE_AUTHORITY", authority);
        }
        command.stdin(Stdio::null());
        if self.ground.is_apart() {
            command.process_group(0);
        }
        command
    }

    /// As [`Cluster::try_perigee`] at the first control; it must succeed.
    pub fn perigee(&self, arguments: &[&str]) -> String {
        let output = self.try_perigee(0, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "perigee {arguments:?}: {error}\n{}", self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Puts a configuration in force everywhere at once, and waits until every edge and router runs it.
    pub fn apply(&self, text: &str) {
        let path = self.directory.join("cluster.toml");
        fs::write(&path, text).expect("a configuration");
        self.perigee(&["apply", &path.display().to_string(), "--stage", "all", "--reason", "a test"]);
        let number = self.newest_version();
        self.wait("every edge and router runs it", || {
            let nodes = self.nodes();
            let runs = |name: &str| {
                nodes.iter().any(|node| node["name"] == name && node["running"].as_u64() == Some(number))
            };
            self.edges.iter().chain(&self.routers).all(|process| runs(&process.name))
        });
    }

    /// Makes what is rolled out stable, as minutes of good behaviour would: in the journal of a control that is stopped for it. With
    /// SQLite alone.
    pub fn make_stable(&mut self) {
        let path = self.directory.join(&self.controls[0].name).join("journal.sqlite");
        self.controls[0].kill();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let chance: journal::Chance = Arc::new(|| 0);
            let journal = Sqlite::open(&path, &chance).expect("the journal");
            let read = async |name: &str| {
                let cell = journal.cell(name).await.expect("a cell").expect("a cell");
                (cell.name, serde_json::from_slice::<serde_json::Value>(&cell.value).expect("a value"))
            };
            let (rollout, mut promoted) = read("rollout").await;
            promoted["stage"] = "promoted".into();
            let (plan, _) = read("plan").await;
            let stable = serde_json::json!({ "stable": promoted["version"] });
            let record = serde_json::json!({ "by": "test", "at_ms": 1, "change": { "plan": &stable } });
            let values = [(rollout, promoted), (plan, stable)];
            let cells = values.map(|(name, value)| (name, Some(value.to_string().into_bytes()))).to_vec();
            let commit = Commit { cells, record: Some(record.to_string()), ..Commit::default() };
            journal.commit(commit).await.expect("to be written");
        });
        drop(runtime);
        self.controls[0].restart();
    }

    /// Begins to roll a configuration out, as `perigee apply` does: staged. Its number.
    pub fn roll_out(&self, text: &str, reason: &str) -> u64 {
        let path = self.directory.join("cluster.toml");
        fs::write(&path, text).expect("a configuration");
        self.perigee(&["apply", &path.display().to_string(), "--reason", reason]);
        self.newest_version()
    }

    /// Leaves its directory behind when it is dropped, for who looks at what has happened.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Has an edge put its program anew in its own place, as after an update.
    ///
    /// # Errors
    /// What `perigee upgrade` says when the old process serves on.
    pub fn upgrade_edge(&mut self, index: usize) -> Result<(), String> {
        let name = self.edges[index].name.clone();
        let state = self.state(&name).display().to_string();
        let command = self.ground.command(&name, self.command(&["upgrade", "--state", &state]));
        let mut upgrade = Command::new(&command[0]);
        upgrade.args(&command[1..]).stdin(Stdio::null());
        if self.ground.is_apart() {
            upgrade.process_group(0);
        }
        let output = upgrade.output();
        let output = output.map_err(|error| format!("{}: {error}", command[0]))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let pid = said.split("(process ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
        match pid.and_then(Pid::from_raw) {
            Some(pid) if output.status.success() => {
                self.edges[index].successor = Some(pid);
                Ok(())
            }
            _ => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
        }
    }

    /// The state directory of a process of this name.
    pub fn state(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The nodes as the first control knows them.
    pub fn nodes(&self) -> Vec<serde_json::Value> {
        let text = self.perigee(&["nodes", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        value["nodes"].as_array().cloned().unwrap_or_else(|| panic!("no nodes in {text}"))
    }

    fn newest_version(&self) -> u64 {
        let text = self.perigee(&["versions", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let numbers = value["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|version| version["number"].as_u64());
        numbers.max().unwrap_or_else(|| panic!("no versions in {text}"))
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "it never came that {what}\n{}", self.logs());
            sleep(Duration::from_millis(50));
        }
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let all = self.controls.iter().chain(&self.relay).chain(&self.edges).chain(&self.routers);
        let end = |process: &Process| {
            let log = process.log();
            let lines: Vec<_> = log.lines().rev().take(12).collect();
            format!("--- {}\n{}\n", process.name, lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        all.map(end).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nodes before those whom they would call for.
        self.routers.clear();
        self.edges.clear();
        self.relay = None;
        self.controls.clear();
        self.etcd.clear();
        if !self.is_kept {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
