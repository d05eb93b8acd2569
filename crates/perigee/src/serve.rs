//! `perigee serve`: an edge by itself, with all that it is told in one file or on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use model::ByteSize;
use model::settings::{DISK_SIZE_MAX, DISK_SIZE_MIN};

use crate::address::{AdminAt, parse_address, parse_admin};
use crate::configuration::{Refused, Source};
use crate::failure::Failure;
use crate::running::{Addresses, Beginning};

const EXAMPLES: &str = "\
Examples:
  perigee serve --origin http://127.0.0.1:8000
  perigee serve --origin https://www.shop.example --listen 0.0.0.0:8080
  perigee serve --origin https://www.shop.example --disk 20GiB
  perigee serve --config /etc/perigee.toml --state /var/lib/perigee

A changed configuration file comes into force by itself within two seconds, or at once on SIGHUP. If it has
errors, they are printed and the running configuration stays.";

/// `perigee serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// The website to cache: one site that answers every host, all choices at their default
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    origin: Option<String>,
    /// Keep the cache on disk too: so many bytes in the state directory (in a file: [[store.disk]])
    #[arg(long, value_name = "SIZE", conflicts_with = "config", value_parser = parse_disk_size)]
    disk: Option<ByteSize>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for visitors; may be given several times [default: the configuration's, else 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    listen: Vec<SocketAddr>,
    /// Address for visitors who speak TLS; may be given several times [default: the configuration's]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, requires = "config")]
    listen_tls: Vec<SocketAddr>,
    /// Address of the admin API and of /metrics, or off [default: the configuration's, else 127.0.0.1:9090]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_admin)]
    admin: Option<AdminAt>,
    /// Allow an admin address that other machines can reach; they see /metrics without a token
    #[arg(long)]
    admin_remote: bool,
    /// Where the token, the key seed and the purge log are kept, and the disk that names no directory
    /// [default: $XDG_STATE_HOME/perigee or ~/.local/state/perigee]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Serve {
    /// Serves until a signal says stop, or another process has taken this one's place.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (source, before) = match (self.config, self.origin) {
            (Some(path), _) => {
                let before = format!("as {} says", path.display());
                (Source::File(path), before)
            }
            (None, Some(url)) => {
                let before = format!("in front of {url}");
                (Source::Origin { url, disk: self.disk }, before)
            }
            (None, None) => crate::refuse_serve("give --origin URL or --config FILE"),
        };
        let beginning = Beginning::new(self.state)?;
        let read = source.read().map_err(Refused::into_failure)?;
        let at = Addresses {
            listen: self.listen,
            listen_tls: self.listen_tls,
            admin: self.admin,
            admin_remote: self.admin_remote,
        };
        beginning.serve(source, read, &at, None, &before)
    }
}

/// Reads the size of a disk, within the bounds of the configuration. The error says what to write instead.
fn parse_disk_size(text: &str) -> Result<ByteSize, String> {
    let size =
        ByteSize::parse(text).map_err(|bad| format!("{}; write e.g. {}", bad.reason, bad.suggestion))?;
    if size < DISK_SIZE_MIN || size > DISK_SIZE_MAX {
        return Err(format!("it may be {DISK_SIZE_MIN} to {DISK_SIZE_MAX}"));
    }
    Ok(size)
}
