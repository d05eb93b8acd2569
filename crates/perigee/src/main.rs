//! The `perigee` binary: flags, exit codes and messages for people. Each subcommand is one module; what they do is in
//! the crates below.
//!
//! Exit codes: 0 when it was done, 1 when it could not be (one message on standard error says why), 2 when the command
//! line makes no sense.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

mod address;
mod advise;
mod apply;
mod audit;
mod batches;
mod certificate_list;
mod certificates;
mod check;
mod cluster;
mod configuration;
mod control;
mod demo;
mod diff;
mod doctor;
mod edge;
mod enroll;
mod explain;
mod failure;
mod geo;
mod import;
mod init;
mod integrate;
mod interrupt;
mod login;
mod manager;
mod measure;
mod member;
mod mesh;
mod nodes;
mod ocsp;
mod pace;
mod parity;
mod plan;
mod probe;
mod purge;
mod recorded;
mod reference;
mod relay;
mod replay;
mod rewrite;
mod rollback;
mod rollout;
mod route;
mod router;
mod running;
mod serve;
mod shells;
mod state;
mod stats;
mod store;
mod takeover;
mod token;
mod top;
mod upgrade;
mod upgrader;
mod versions;
mod warm;
mod whole;

/// Small allocations of many threads are what an edge does all day; the system's allocator is not made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A content delivery network that you run yourself.
#[derive(Debug, Parser)]
#[command(name = "perigee", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  perigee demo                                      see it: a whole CDN on this machine
  perigee serve --origin http://127.0.0.1:8000      put a cache in front of a website
  perigee init                                      write a first configuration
  nginx -T | perigee import nginx - --out perigee.toml   begin with what you have
  perigee parity --log access.log --old http://10.0.0.1 --new http://127.0.0.1:8080   compare both by recorded requests
  perigee check perigee.toml                        find every mistake in a configuration
  perigee explain http://127.0.0.1:8080/            say how a request would be answered, and why
  perigee purge --url http://127.0.0.1:8080/        drop what is stored for a URL
  perigee warm --sitemap https://www.shop.example/sitemap.xml --edge 203.0.113.10
  perigee replay --log access.log --config new.toml  predict what a configuration will do, from recorded requests
  perigee advise --log access.log --config perigee.toml   find what keeps a site from being cached well
  perigee measure http://shop.example/ --origin 127.0.0.1:8000 --via 127.0.0.1:8080   compare page loads
  perigee plan --countries shares.csv --origin FRA  say where to put PoPs, and what each brings
  perigee upgrade                                   replace the running edge by a new binary, without a pause
  perigee router --config cluster.toml              send visitors to the closest PoP, by DNS
  perigee store stat                                say what the cache holds on disk
  perigee control --config control.toml             run the control of a cluster
  perigee apply sites.toml --reason \"begin\" --wait  roll a configuration out to all its nodes";

#[derive(Debug, Subcommand)]
enum Command {
    /// See it: a whole CDN on this machine, with a shop behind it, visitors in front of it, and a tour
    Demo(demo::Demo),
    /// Serve websites from the cache, in front of their origins
    Serve(serve::Serve),
    /// Serve the websites of a cluster, as one of its nodes
    Edge(edge::Edge),
    /// Write a first configuration: three questions, or flags
    Init(init::Init),
    /// Make a configuration out of nginx's, CloudFront's, Cloudflare's or Varnish's, and say what becomes of each directive
    Import(import::Import),
    /// Ask two servers for what a log says was asked for, and say where their answers differ
    Parity(parity::ParityArgs),
    /// Find every mistake in a configuration file
    Check(check::CheckArgs),
    /// Drop what is stored: by URL, prefix, surrogate key, site, or all of it
    Purge(purge::Purge),
    /// Have edges fetch what visitors will ask for: from sitemaps, an access log or a list
    Warm(warm::Warm),
    /// Say how a running edge would answer a request, and why
    Explain(explain::Explain),
    /// List the certificates of a running edge: when they end, and what is in the way of new ones
    Certificates(certificate_list::Certificates),
    /// Say what recorded requests would have come to under a configuration
    Replay(replay::ReplayArgs),
    /// Say what keeps a site from being cached well, what to change, and what that will bring
    Advise(advise::AdviseArgs),
    /// Say how fast a page is, from its origin and through the CDN, in a real browser
    Measure(measure::MeasureArgs),
    /// Say where to put PoPs: which to add, what each brings and costs, and what is lost with each
    Plan(Box<plan::PlanArgs>),
    /// Start a new binary in the place of a running edge, without refusing a connection
    Upgrade(upgrade::UpgradeArgs),
    /// Answer DNS: send each visitor to the closest PoP that lives
    Router(router::RouterArgs),
    /// Say to which PoP a client is sent, and why
    Route(route::Route),
    /// Say how long the links between PoPs are, and which PoPs are not where they are said to be
    Mesh(mesh::MeshArgs),
    /// Make the data that says where networks are
    Geo(geo::Geo),
    /// Look at the cache on a disk: what it holds, and whether it is sound
    Store(store::Store),
    /// Make the static files of a site that is made beforehand come from another host
    Rewrite(rewrite::Rewrite),
    /// Say what to paste where, and which rules to use, to put a site behind Perigee
    Integrate(integrate::Integrate),
    /// Look at a live site, directly and through an edge, and say what stands in the way
    Doctor(doctor::Doctor),
    /// Run a control of a cluster: the API for operators, and what nodes follow
    Control(control::ControlArgs),
    /// Pass a cluster's changes on to the nodes of a region
    Relay(relay::RelayArgs),
    /// Keep where a cluster's control is, and how to be let in
    Login(login::Login),
    /// Roll a configuration out to the nodes of a cluster
    Apply(apply::Apply),
    /// Say what tells two configurations of a cluster apart
    Diff(diff::Diff),
    /// Say how the roll-out stands; begin, pause, resume or undo one
    Rollout(rollout::Rollout),
    /// Go back to an older configuration, at all edges at once
    Rollback(rollback::Rollback),
    /// List the configurations that a cluster has had
    Versions(versions::Versions),
    /// List the nodes of a cluster, or retire one
    Nodes(nodes::Nodes),
    /// Say what a cluster has served: by site, PoP, country and more; which URLs, and why not from the cache
    Stats(stats::Stats),
    /// Watch what a cluster serves
    Top(top::Top),
    /// Make a token by which nodes join a cluster
    Enroll(enroll::Enroll),
    /// List, make and revoke the tokens of operators and programs
    Token(token::Token),
    /// Say who did what in a cluster
    Audit(audit::Audit),
    /// Print what has a shell complete this program's words
    Completions(shells::Completions),
    /// Write the pages for man
    Man(shells::Man),
    /// Print a part of the reference, as Markdown: what this very binary can do
    Reference(reference::Reference),
}

fn main() -> ExitCode {
    demo::tie_to_demo();
    let done = match Arguments::parse().command {
        Command::Demo(demo) => demo.run(),
        Command::Serve(serve) => serve.run(),
        Command::Edge(edge) => edge.run(),
        Command::Init(init) => init.run(),
        Command::Import(import) => return ended(import.run()),
        Command::Parity(parity) => return ended(parity.run()),
        Command::Check(check) => return check::run(check),
        Command::Purge(purge) => purge.run(),
        Command::Warm(warm) => warm.run(),
        Command::Explain(explain) => explain.run(),
        Command::Certificates(list) => list.run(),
        Command::Replay(replay) => replay.run(),
        Command::Advise(advise) => advise.run(),
        Command::Measure(measure) => {
            return measure.run().unwrap_or_else(|failure| {
                eprintln!("{failure}");
                ExitCode::FAILURE
            });
        }
        Command::Plan(plan) => plan.run(),
        Command::Upgrade(upgrade) => upgrade.run(),
        Command::Router(router) => router.run(),
        Command::Route(route) => route.run(),
        Command::Mesh(mesh) => mesh.run(),
        Command::Geo(geo) => geo.run(),
        Command::Store(store) => return store.run(),
        Command::Rewrite(rewrite) => return ended(rewrite.run()),
        Command::Integrate(integrate) => return ended(integrate.run()),
        Command::Doctor(doctor) => return ended(doctor.run()),
        Command::Control(control) => control.run(),
        Command::Relay(relay) => relay.run(),
        Command::Login(login) => login.run(),
        Command::Apply(apply) => apply.run(),
        Command::Diff(diff) => diff.run(),
        Command::Rollout(rollout) => rollout.run(),
        Command::Rollback(rollback) => rollback.run(),
        Command::Versions(versions) => versions.run(),
        Command::Nodes(nodes) => nodes.run(),
        Command::Stats(stats) => stats.run(),
        Command::Top(top) => top.run(),
        Command::Enroll(enroll) => enroll.run(),
        Command::Token(token) => token.run(),
        Command::Audit(audit) => audit.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
        Command::Reference(reference) => reference.run(),
    };
    ended(done.map(|()| ExitCode::SUCCESS))
}

/// The exit code, with the failure on standard error.
fn ended(done: Result<ExitCode, failure::Failure>) -> ExitCode {
    done.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        ExitCode::FAILURE
    })
}

/// Ends the process as the command line's own errors do: message, usage of `serve`, exit code 2.
fn refuse_serve(message: &str) -> ! {
    let mut arguments = Arguments::command();
    // So that the usage begins with the name of the binary.
    arguments.build();
    let command = match arguments.find_subcommand_mut("serve") {
        Some(serve) => serve,
        None => &mut arguments,
    };
    command.error(ErrorKind::MissingRequiredArgument, message).exit()
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Prints to standard output. A reader that has gone away (`| head`) is no error.
fn print(text: &str) -> Result<(), failure::Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(failure::Failure::new(format!("standard output cannot be written: {error}"), ""))
        }
        _ => Ok(()),
    }
}

/// Without what could move a terminal's cursor: URLs are the visitors' words, stored fields the origin's.
fn visible(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// As [`visible`], for a text of several lines.
fn visible_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", visible(line))).collect()
}
