//! What is done to whom. Each fault is drawn from the seed, done, held for a while, and undone.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

use super::rig::{LOOK, POPS, Rig, SMALL_DISK};
use super::{Options, POP_FORGOTTEN, Phase};
use crate::cluster::Process;
use crate::draw::Draw;
use crate::shop::Manner;

/// How long a stuttering process stands still, and then goes on.
const STILL: Duration = Duration::from_millis(400);
const GOES_ON: Duration = Duration::from_millis(100);
/// Descriptors that a process with few of them may open beside those that it has.
const FILES_MORE: u64 = 3;
/// Bytes that are changed in a damaged file.
const DAMAGED_BYTES: usize = 64;
/// Kbit/s of a narrow line.
const NARROW: u32 = 400;
/// Longest wait for a roll-out that nobody may take.
const UNDONE_WITHIN: Duration = Duration::from_secs(90);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// As by a loss of power; later it is started again.
    Kill,
    /// Ended as a service manager does, and started again.
    Restart,
    /// Its program is put anew in its own place.
    Upgrade,
    /// It stands still, and holds its connections.
    Freeze,
    /// It answers with errors.
    Fail,
    /// It stands still for four fifths of the time.
    Stutter,
    /// Nothing comes from it or to it.
    Cut,
    /// It reaches no control and no relay.
    CutFromControl,
    /// It does not reach the origin.
    CutFromOrigin,
    /// It does not reach the shield.
    CutFromShield,
    /// Its line is narrow.
    Narrow,
    /// Its disk is full of something else.
    FillDisk,
    /// It can open few files and sockets more.
    FewFiles,
    /// Killed, and what it has cached on disk is damaged when it starts.
    DamageStore,
    /// Killed, and what it knows of its cluster is damaged when it starts.
    DamageState,
    /// A configuration with errors is applied.
    BadConfiguration,
    /// A configuration is applied that edges cannot use.
    UnusableConfiguration,
    /// The next one is rolled out, or the one that is being rolled out is taken back.
    RollOut,
}

/// Who it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whom {
    Edge(usize),
    /// All edges of a PoP, by one of them.
    Pop(usize),
    Control(usize),
    Controls,
    Relay,
    Etcd(usize),
    /// All members but one; where there is one, that.
    EtcdMajority,
    Router(usize),
    Origin,
    Cluster,
}

/// What may be done to whom: the kind of each, where numbers are drawn, and how often it is among others.
const KINDS: [(What, Whom, usize); 41] = [
    (What::Kill, Whom::Edge(0), 3),
    (What::Restart, Whom::Edge(0), 2),
    (What::Upgrade, Whom::Edge(0), 2),
    (What::Freeze, Whom::Edge(0), 3),
    (What::Stutter, Whom::Edge(0), 2),
    (What::Cut, Whom::Edge(0), 2),
    (What::CutFromControl, Whom::Edge(0), 2),
    (What::CutFromOrigin, Whom::Edge(0), 2),
    (What::CutFromShield, Whom::Edge(0), 2),
    (What::Narrow, Whom::Edge(0), 2),
    (What::FillDisk, Whom::Edge(0), 2),
    (What::FewFiles, Whom::Edge(0), 2),
    (What::DamageStore, Whom::Edge(0), 3),
    (What::DamageState, Whom::Edge(0), 2),
    (What::Kill, Whom::Pop(0), 2),
    (What::Freeze, Whom::Pop(0), 1),
    (What::Cut, Whom::Pop(0), 2),
    (What::Kill, Whom::Control(0), 2),
    (What::Freeze, Whom::Control(0), 2),
    (What::Cut, Whom::Control(0), 2),
    (What::Stutter, Whom::Control(0), 1),
    (What::Kill, Whom::Controls, 2),
    (What::Freeze, Whom::Controls, 1),
    (What::FewFiles, Whom::Control(0), 1),
    (What::Kill, Whom::Relay, 2),
    (What::Freeze, Whom::Relay, 2),
    (What::Cut, Whom::Relay, 2),
    (What::Kill, Whom::Etcd(0), 2),
    (What::Freeze, Whom::Etcd(0), 2),
    (What::Cut, Whom::Etcd(0), 2),
    (What::Kill, Whom::Router(0), 1),
    (What::Freeze, Whom::Router(0), 1),
    (What::Cut, Whom::Router(0), 1),
    (What::Restart, Whom::Router(0), 1),
    (What::FewFiles, Whom::Router(0), 1),
    (What::Fail, Whom::Origin, 2),
    (What::Freeze, Whom::Origin, 2),
    (What::Kill, Whom::EtcdMajority, 1),
    (What::BadConfiguration, Whom::Cluster, 2),
    (What::UnusableConfiguration, Whom::Cluster, 2),
    (What::RollOut, Whom::Cluster, 5),
];

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    what: What,
    whom: Whom,
    /// As the cluster calls those whom it is done to.
    names: Vec<String>,
    hold: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, names) = (self.what, self.names.join(", "));
        match (self.whom, self.hold) {
            (Whom::Cluster, _) => write!(f, "{what:?}"),
            (Whom::Origin, hold) => write!(f, "{what:?} the origin for {:.1} s", hold.as_secs_f64()),
            (_, Duration::ZERO) => write!(f, "{what:?} {names}"),
            (_, hold) => write!(f, "{what:?} {names} for {:.1} s", hold.as_secs_f64()),
        }
    }
}

/// How often each was done.
#[derive(Default)]
pub(super) struct FaultsDone {
    /// By what and the kind of whom; what is still to be done first of a round, so that a short run does different ones.
    counts: BTreeMap<(What, &'static str), usize>,
}

impl fmt::Display for FaultsDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((what, whom), count) in &self.counts {
            rows.entry(format!("{what:?}")).or_default().push(format!("{whom} {count}"));
        }
        rows.iter().try_for_each(|(what, row)| writeln!(f, "{what:<22} {}", row.join(", ")))
    }
}

impl What {
    /// Whether only namespaces let it be done.
    fn needs_namespaces(self) -> bool {
        use What::{Cut, CutFromControl, CutFromOrigin, CutFromShield, FillDisk, Narrow};
        matches!(self, Cut | CutFromControl | CutFromOrigin | CutFromShield | Narrow | FillDisk)
    }
}

impl Whom {
    fn kind(self) -> &'static str {
        match self {
            Whom::Edge(_) => "edge",
            Whom::Pop(_) => "PoP",
            Whom::Control(_) => "control",
            Whom::Controls => "all controls",
            Whom::Relay => "relay",
            Whom::Etcd(_) => "etcd",
            Whom::EtcdMajority => "most of etcd",
            Whom::Origin => "origin",
            Whom::Router(_) => "router",
            Whom::Cluster => "cluster",
        }
    }
}

impl Fault {
    /// The next. What has been done least is more likely, so that each has its turn.
    pub(super) fn drawn(rig: &mut Rig, done: &mut FaultsDone, options: &Options) -> Fault {
        let can_cut = rig.ground.can_cut();
        let is_possible = |(what, whom, _): &&(What, Whom, usize)| {
            (can_cut || !what.needs_namespaces())
                && (options.etcd > 0 || !matches!(whom, Whom::Etcd(_) | Whom::EtcdMajority))
        };
        let mut chances = Vec::new();
        for (what, whom, weight) in KINDS.iter().filter(is_possible) {
            let count = done.counts.get(&(*what, whom.kind())).copied().unwrap_or_default();
            chances.push((*what, *whom, (weight * 60 / (1 + 3 * count)).max(1)));
        }
        let sum = chances.iter().map(|(_, _, chance)| chance).sum();
        let mut drawn = rig.draw.below(sum);
        let (what, whom, _) = chances
            .into_iter()
            .find(|(_, _, chance)| {
                let is_it = drawn < *chance;
                drawn = drawn.saturating_sub(*chance);
                is_it
            })
            .expect("what is drawn lies below the sum");
        let whom = match whom {
            Whom::Edge(_) if what == What::FillDisk => Whom::Edge(SMALL_DISK),
            Whom::Edge(_) => Whom::Edge(rig.draw.below(POPS.len())),
            Whom::Pop(_) => Whom::Pop(rig.draw.below(POPS.len())),
            Whom::Control(_) => Whom::Control(rig.draw.below(rig.cluster.controls().len())),
            Whom::Etcd(_) => Whom::Etcd(rig.draw.below(options.etcd)),
            Whom::Router(_) => Whom::Router(rig.draw.below(rig.cluster.routers().len())),
            other => other,
        };
        let hold = match (what, whom) {
            (What::Restart | What::Upgrade | What::DamageStore | What::DamageState, _)
            | (_, Whom::Cluster) => Duration::ZERO,
            (_, Whom::Pop(_)) => POP_FORGOTTEN + Duration::from_millis(5_000 + rig.draw.below(15_000) as u64),
            _ => Duration::from_millis(1_500 + rig.draw.below(12_000) as u64),
        };
        let mut fault = Fault { what, whom, names: Vec::new(), hold: hold.min(options.hold_max) };
        fault.names = rig.targets(&fault).iter().map(|process| process.name.clone()).collect();
        fault
    }
}

impl Fault {
    /// What it may take longer until all agree: who knows nothing but that it died with a configuration on trial waits before it tries that
    /// again, so that control hears of the death.
    pub(super) fn more_to_agree(&self) -> Duration {
        if self.what == What::DamageState { Duration::from_secs(10) } else { Duration::ZERO }
    }
}

impl Rig {
    /// Whom it is done to; nobody when it is the cluster.
    fn targets(&mut self, fault: &Fault) -> Vec<&mut Process> {
        let cluster = &mut self.cluster;
        match fault.whom {
            Whom::Edge(index) => vec![&mut cluster.edges_mut()[index]],
            Whom::Pop(index) => {
                let of = |(edge, pop): (_, &&str)| (*pop == POPS[index]).then_some(edge);
                cluster.edges_mut().iter_mut().zip(&POPS).filter_map(of).collect()
            }
            Whom::Control(index) => vec![&mut cluster.controls_mut()[index]],
            Whom::Controls => cluster.controls_mut().iter_mut().collect(),
            Whom::Relay => cluster.relay_mut().into_iter().collect(),
            Whom::Etcd(index) => vec![&mut cluster.etcd_mut()[index]],
            Whom::EtcdMajority => {
                let most = (cluster.etcd().len() - 1).max(1);
                cluster.etcd_mut().iter_mut().take(most).collect()
            }
            Whom::Router(index) => vec![&mut cluster.routers_mut()[index]],
            Whom::Origin | Whom::Cluster => Vec::new(),
        }
    }

    /// Does it, holds it, and undoes it.
    pub(super) fn do_fault(&mut self, fault: &Fault, done: &mut FaultsDone) {
        *done.counts.entry((fault.what, fault.whom.kind())).or_default() += 1;
        // While a PoP is lost, visitors are counted.
        if matches!(fault.whom, Whom::Pop(_)) {
            self.world.enter(Phase::PopLost(Instant::now()));
        }
        match fault.what {
            What::Kill => {
                self.targets(fault).into_iter().for_each(Process::kill);
                self.hold(fault);
                self.targets(fault).into_iter().for_each(Process::restart);
            }
            What::Restart => {
                self.targets(fault).into_iter().for_each(Process::stop);
                self.targets(fault).into_iter().for_each(Process::restart);
            }
            What::Upgrade => {
                let Whom::Edge(index) = fault.whom else { return };
                if let Err(why) = self.cluster.upgrade_edge(index) {
                    println!("    the old process serves on: {why}");
                }
            }
            What::Fail => self.with_origin(fault, Manner::Fails),
            What::Freeze if fault.whom == Whom::Origin => self.with_origin(fault, Manner::Silent),
            What::Freeze => {
                self.targets(fault).into_iter().for_each(|process| process.freeze());
                self.hold(fault);
                self.targets(fault).into_iter().for_each(|process| process.thaw());
            }
            What::Stutter => {
                let until = Instant::now() + fault.hold;
                while Instant::now() < until && !self.is_interrupted() {
                    self.targets(fault).into_iter().for_each(|process| process.freeze());
                    sleep(STILL);
                    self.targets(fault).into_iter().for_each(|process| process.thaw());
                    sleep(GOES_ON);
                }
            }
            What::Cut => self.while_so(fault, |rig, name, is_cut| rig.ground.cut(name, is_cut)),
            What::CutFromControl | What::CutFromOrigin | What::CutFromShield => {
                let cluster = &self.cluster;
                let from = match fault.what {
                    What::CutFromOrigin => vec![self.origin.ip()],
                    What::CutFromShield => {
                        let edges = cluster.edges().iter().zip(&POPS).filter(|(_, pop)| **pop == "ams");
                        edges.map(|(edge, _)| edge.address.ip()).collect()
                    }
                    _ => {
                        let controls = cluster.controls().iter().map(|control| control.address.ip());
                        controls.chain([self.ground.address("relay")]).collect()
                    }
                };
                self.while_so(fault, |rig, name, is_cut| {
                    from.iter().try_for_each(|address| rig.ground.cut_between(name, *address, is_cut))
                });
            }
            What::Narrow => {
                self.while_so(fault, |rig, name, is_so| rig.ground.narrow(name, is_so.then_some(NARROW)))
            }
            What::FillDisk => self.while_so(fault, |rig, _, is_so| match &rig.small_disk {
                Some(disk) if is_so => fill(&disk.join("something-else")),
                Some(disk) => fs::remove_file(disk.join("something-else")),
                None => Err(std::io::Error::other("there is no small disk")),
            }),
            What::FewFiles => {
                let limits =
                    self.targets(fault).into_iter().map(|process| few_files(process)).collect::<Vec<_>>();
                self.hold(fault);
                for (process, before) in self.targets(fault).into_iter().zip(limits) {
                    if let (Some(pid), Some(before)) = (process.pid(), before) {
                        let _ = prlimit(Some(pid), Resource::Nofile, before);
                    }
                }
            }
            What::DamageStore | What::DamageState => {
                let names = fault.names.clone();
                self.targets(fault).into_iter().for_each(Process::kill);
                for name in &names {
                    let files = self.files_of(name, fault.what);
                    let mut draw = Draw(self.draw.next());
                    for file in files {
                        if let Err(error) = damage(&file, &mut draw) {
                            println!("    {} stays as it is: {error}", file.display());
                        }
                    }
                }
                self.targets(fault).into_iter().for_each(Process::restart);
            }
            What::BadConfiguration | What::UnusableConfiguration | What::RollOut => {
                let done = match fault.what {
                    What::BadConfiguration => self.apply_bad(),
                    What::UnusableConfiguration => self.apply_unusable(),
                    _ => self.roll_out(),
                };
                if let Err(why) = done {
                    self.world.violation("applied", || why);
                }
            }
        }
    }

    /// Waits for as long as it is to last, unless all is to end.
    fn hold(&mut self, fault: &Fault) {
        let until = Instant::now() + fault.hold;
        while Instant::now() < until && !self.is_interrupted() {
            sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
        self.world.enter(Phase::Disturbed);
    }

    /// The origin is like this for a while.
    fn with_origin(&mut self, fault: &Fault, manner: Manner) {
        *self.world.shop.manner.lock() = manner;
        self.hold(fault);
        *self.world.shop.manner.lock() = Manner::Well;
    }

    /// Makes something so for each whom it is done to, holds it, and makes it not so.
    fn while_so(&mut self, fault: &Fault, make: impl Fn(&Rig, &str, bool) -> std::io::Result<()>) {
        for is_so in [true, false] {
            for name in &fault.names {
                if let Err(error) = make(self, name, is_so) {
                    println!("    not done: {error}");
                }
            }
            if is_so {
                self.hold(fault);
            }
        }
    }

    /// The files of an edge that are to be damaged.
    fn files_of(&self, name: &str, what: What) -> Vec<PathBuf> {
        let state = self.cluster.state(name);
        let roots = match what {
            What::DamageStore => match &self.small_disk {
                Some(disk) if name == self.cluster.edges()[SMALL_DISK].name => vec![disk.join("store")],
                _ => vec![state.join("store")],
            },
            // Keys and certificates are secrets, which are never replaced silently.
            _ => vec![
                state.join("purges"),
                state.join("cluster/place"),
                state.join("cluster/running"),
                state.join("cluster/trial"),
                state.join("cluster/configurations"),
            ],
        };
        let mut files = Vec::new();
        for root in roots {
            match fs::read_dir(&root) {
                Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
                Err(_) if root.is_file() => files.push(root),
                Err(_) => {}
            }
        }
        files.retain(|file| file.is_file());
        files
    }

    // --- Configurations ---

    /// The number that the next configuration will have.
    fn next_number(&mut self) -> Result<u64, String> {
        let versions = self.ask(&Method::GET, "/v1/configurations", "")?;
        let numbers = versions["versions"].as_array().into_iter().flatten();
        Ok(numbers.filter_map(|version| version["number"].as_u64()).max().unwrap_or_default() + 1)
    }

    /// Applies one, at the first control that answers.
    fn apply(&mut self, text: &str, stage: &str) -> Result<Applied, String> {
        let path = self.cluster.directory().join("next.toml");
        fs::write(&path, text).map_err(|error| error.to_string())?;
        let path = path.display().to_string();
        let mut why = String::new();
        for control in 0..self.cluster.controls().len() {
            let arguments = ["apply", &path, "--stage", stage, "--reason", "under fire", "--json"];
            let output = self.cluster.try_perigee(control, &arguments);
            let [answer, said] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
            match applied(output.status.success(), &answer, &said) {
                Ok(applied) => return Ok(applied),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// With errors: control has to refuse it for them, and nobody may ever run it.
    fn apply_bad(&mut self) -> Result<(), String> {
        let number = self.next_number()?;
        let good = self.configuration(number, "");
        let (bad, what) = match self.draw.below(5) {
            0 => (good.replace("origin = \"http", "origin = \"gopher"), "gopher"),
            1 => (good.replace("[[site]]", "[[site"), "[[site"),
            2 => (good.replace("shield = \"ams\"", "shield = \"nowhere\""), "nowhere"),
            // Wherever it is cut: what is wrong first may be another thing each time.
            3 => (good[..good.len() / 2].to_owned() + "\u{0}", ""),
            _ => {
                let second = "[[site]]\nname = \"shop\"\ndomains = [\"second.example\"]\norigin = \"http://127.0.0.1:9\"\n";
                (good + second, "shop")
            }
        };
        match self.apply(&bad, "all")? {
            Applied::Refused(errors) if errors.iter().any(|error| error.contains(what)) => Ok(()),
            Applied::Refused(errors) => {
                Err(format!("control refuses a configuration for other errors than {what:?}: {errors:?}"))
            }
            Applied::Begun => {
                self.world.violation("refused", || {
                    format!("control has taken a configuration with errors, number {number}")
                });
                Ok(())
            }
        }
    }

    /// Applies one that control can find nothing wrong with.
    fn apply_good(&mut self, text: &str, stage: &str) -> Result<(), String> {
        match self.apply(text, stage)? {
            Applied::Begun => Ok(()),
            Applied::Refused(errors) => Err(format!("control refuses a configuration: {errors:?}")),
        }
    }

    /// Without errors that control could see, but with a file that no edge has: the first edge has to refuse it.
    fn apply_unusable(&mut self) -> Result<(), String> {
        let rollout = self.rollout()?;
        if rollout["state"] == "running" {
            if rollout["stable"].is_null() {
                println!("    not done: the first configuration is still being rolled out");
                return Ok(());
            }
            self.undo();
        }
        let number = self.next_number()?;
        self.world.refused.lock().insert(number);
        let more = format!(
            "[[site]]\nname = \"partner\"\ndomains = [\"partner.example\"]\norigin = \"http://{}\"\nhttps = \"redirect\"\n\
             client_certificate = \"required\"\nclient_ca = \"/nowhere/authority.pem\"\n",
            self.origin
        );
        let text = self.configuration(number, &more);
        let stage = ["edge", "all"][self.draw.below(2)];
        self.apply_good(&text, stage)?;
        let deadline = Instant::now() + UNDONE_WITHIN;
        while !self.rollout().is_ok_and(|rollout| rollout["state"] == "undone") {
            if Instant::now() > deadline {
                let rollout = self.rollout().unwrap_or_default();
                let words = format!("an unusable configuration is not taken back: {rollout}");
                self.world.violation("refused", || words);
                self.undo();
                break;
            }
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn roll_out(&mut self) -> Result<(), String> {
        let rollout = self.rollout()?;
        if rollout["state"] == "running" {
            println!(
                "    configuration {} is at stage {}: {}",
                rollout["version"], rollout["stage"], rollout["waiting_for"]
            );
            if !rollout["stable"].is_null() && self.draw.below(6) == 0 {
                self.undo();
            }
            return Ok(());
        }
        println!("    configuration {} was {}: {}", rollout["version"], rollout["state"], rollout["harm"]);
        let number = self.next_number()?;
        let text = self.configuration(number, "");
        let stage = ["edge", "pop", "all"][self.draw.below(3)];
        self.apply_good(&text, stage)?;
        println!("    configuration {number} begins at stage {stage}");
        Ok(())
    }

    fn undo(&mut self) {
        if let Err(why) = self.ask(&Method::POST, "/v1/rollouts/current/undo", "{}") {
            println!("    it cannot be taken back: {why}");
        }
    }

    fn rollout(&mut self) -> Result<Value, String> {
        self.ask(&Method::GET, "/v1/rollouts/current", "")
    }
}

/// What has become of a configuration that was applied.
#[derive(Debug, PartialEq, Eq)]
enum Applied {
    /// It is being rolled out.
    Begun,
    /// Control has found these errors in it: each with the line in which it stands.
    Refused(Vec<String>),
}

/// What `perigee apply --json` says by how it ended, its output and its errors. Whatever else went wrong is an error in words: a control
/// that has broken down has refused nothing.
fn applied(is_success: bool, answer: &str, said: &str) -> Result<Applied, String> {
    if is_success {
        return Ok(Applied::Begun);
    }
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let findings = answer["diagnostics"].as_array().into_iter().flatten();
    let errors = findings.filter(|finding| finding["severity"] == "error");
    let errors: Vec<String> =
        errors.map(|finding| format!("{}: {}", finding["line_text"], finding["message"])).collect();
    match errors.is_empty() {
        true => Err(said.trim().replace('\n', "; ")),
        false => Ok(Applied::Refused(errors)),
    }
}

/// Writes until there is no room.
fn fill(path: &Path) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![0x5a; 1 << 16];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Lets it open few files more. What it was allowed before.
fn few_files(process: &Process) -> Option<Rlimit> {
    let pid = process.pid()?;
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).ok()?.count() as u64;
    let most = getrlimit(Resource::Nofile).maximum;
    let few = Rlimit { current: Some(open + FILES_MORE), maximum: most };
    prlimit(Some(pid), Resource::Nofile, few).ok()
}

/// Changes some bytes of a file, most of them near each other, as a bad block does.
fn damage(path: &Path, draw: &mut Draw) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    for turn in 0..DAMAGED_BYTES as u64 {
        let at = if turn % 16 == 0 { draw.below(length as usize) as u64 } else { file.stream_position()? };
        let mut byte = [0];
        file.seek(SeekFrom::Start(at.min(length.saturating_sub(1))))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Current(-1))?;
        file.write_all(&[byte[0] ^ (1 << draw.below(8))])?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_control_finds_wrong_with_a_configuration_is_a_refusal() {
        let found = r#"{"error": "the configuration cannot be used", "diagnostics": [
            {"severity": "warning", "line_text": "ttl = \"1s\"", "message": "short"},
            {"severity": "error", "line_text": "shield = \"nowhere\"", "message": "there is no such PoP"}]}"#;
        let Ok(Applied::Refused(errors)) = applied(false, found, "error: 422") else {
            panic!("it is refused")
        };
        assert!(errors.len() == 1 && errors[0].contains("nowhere"), "{errors:?}");
        assert_eq!(applied(true, "{}", ""), Ok(Applied::Begun));
        let warned = r#"{"error": "etcd is away", "diagnostics": [{"severity": "warning"}]}"#;
        for answer in ["", "{}", r#"{"error": "etcd is away", "next": "repeat it"}"#, warned] {
            let why = applied(false, answer, "error: 503\n  next: repeat it\n");
            assert_eq!(why, Err("error: 503;   next: repeat it".to_owned()), "{answer}");
        }
    }
}
