//! `perigee edge`: an edge that is a node of a cluster. Its own file says where it listens and where control is; the cluster says
//! which sites there are and what is purged.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use trust::{EnrolmentToken, Role};

use crate::address::{AdminAt, parse_admin};
use crate::configuration::{Refused, Source, read_node};
use crate::failure::Failure;
use crate::member::{Member, Who};
use crate::running::{Addresses, Beginning};

/// Bytes of an enrolment token that are read.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

const EXAMPLES: &str = "\
Examples:
  perigee edge --config node.toml --token join.token    join the cluster, and serve
  perigee edge --config node.toml                       serve; also while no control can be reached

node.toml:
  [cluster]
  control = [\"https://control-1.example:7700\", \"https://control-2.example:7700\"]
  pop     = \"fra\"                             # as the token says

  [edge]
  node   = \"fra-1\"
  listen = \"0.0.0.0:80\"

What is purged and which sites there are, control says. SIGHUP makes the node read its own file again.";

/// `perigee edge`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Edge {
    /// The node's own file; `perigee check --node FILE` finds every mistake in it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// File with the enrolment token, or - for standard input; needed once, until the node has joined
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Address of the admin API and of /metrics, or off [default: the file's, else 127.0.0.1:9090]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_admin)]
    admin: Option<AdminAt>,
    /// Allow an admin address that other machines can reach; they see /metrics without a token
    #[arg(long)]
    admin_remote: bool,
    /// Where everything is kept that outlives the process
    /// [default: $XDG_STATE_HOME/perigee or ~/.local/state/perigee]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Edge {
    /// Joins if need be, and serves until a signal says stop, or another process has taken this one's place.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut beginning = Beginning::new(self.state)?;
        let settings = read_node(&self.config).map_err(Refused::into_failure)?;
        let is_start = !beginning.is_takeover();
        let token = || self.token.as_deref().map(read_token).transpose();
        let who = Who {
            file: self.config.display().to_string(),
            role: Role::Edge,
            name: settings.edge.node.clone(),
            pop: settings.cluster.pop.clone(),
            controls: settings.cluster.control.iter().map(ToString::to_string).collect(),
        };
        let member = Member::new(who, beginning.take_state()?.path(), token, is_start)?;
        let (source, read) = first(&self.config, &member)?;
        let at = Addresses { admin: self.admin, admin_remote: self.admin_remote, ..Addresses::default() };
        let before = format!("as node {} of a cluster", settings.edge.node);
        beginning.serve(source, read, &at, Some(member), &before)
    }
}

/// The configuration to begin with: the first of those that are here which can be used, or none of the cluster's.
fn first(file: &Path, member: &Member) -> Result<(Source, crate::configuration::Read), Failure> {
    for told in member.candidates() {
        let version = told.version.clone();
        let source = Source::Node { file: file.to_owned(), told: Some(told) };
        match source.read() {
            Ok(read) => {
                member.begins_with(Some(version));
                return Ok((source, read));
            }
            Err(refused) => {
                eprintln!("perigee: configuration {} cannot be used: {}", version.number, refused.in_short());
            }
        }
    }
    eprintln!(
        "perigee: this node has no configuration of its cluster yet: it serves no site until control tells it of one"
    );
    let source = Source::Node { file: file.to_owned(), told: None };
    let read = source.read().map_err(Refused::into_failure)?;
    Ok((source, read))
}

/// Reads an enrolment token from a file, or with `-` from standard input.
pub(crate) fn read_token(path: &Path) -> Result<EnrolmentToken, Failure> {
    let unreadable = |error: io::Error| {
        Failure::new(
            format!("--token {}: cannot be read: {error}", path.display()),
            "give the file that holds it",
        )
    };
    let mut text = String::new();
    match path == Path::new("-") {
        true => io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?,
        false => {
            let file = fs::File::open(path).map_err(unreadable)?;
            file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?
        }
    };
    text.parse().map_err(|error| {
        Failure::new(format!("--token {}: {error}", path.display()), "have one made by `perigee enroll`")
    })
}
