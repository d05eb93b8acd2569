//! Control's own certificate, which is made anew each day.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use trust::Identity;

use crate::authority::Authority;

/// The file with what callers have to trust.
pub(crate) const AUTHORITY_FILE: &str = "ca.pem";

/// What control shows, and whom it believes.
pub(crate) struct Certificates {
    name: String,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    now: RwLock<(Arc<Identity>, Arc<ServerConfig>)>,
}

impl Certificates {
    /// For names and addresses; `localhost` and the address of the socket are always among them.
    pub(crate) fn new(
        name: &str,
        wanted: Vec<String>,
        address: IpAddr,
        authority: &Authority,
    ) -> Result<Arc<Certificates>, String> {
        let mut names = vec!["localhost".to_owned()];
        let mut addresses = vec![address];
        for wanted in wanted {
            match wanted.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(wanted),
            }
        }
        addresses.retain(|address| !address.is_unspecified());
        let now = RwLock::new(made(name, &names, &addresses, authority)?);
        Ok(Arc::new(Certificates { name: name.to_owned(), names, addresses, now }))
    }

    /// For the next connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.now.read().1)
    }

    /// Who control is, towards others.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.now.read().0)
    }

    /// The URLs by which others reach it: its names and addresses without `localhost`, unless it is for this machine alone.
    pub(crate) fn urls(&self, port: u16) -> Vec<String> {
        let names = self.names.iter().filter(|name| *name != "localhost").cloned();
        let addresses = self.addresses.iter().map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
        names.chain(addresses).map(|host| format!("https://{host}:{port}")).collect()
    }

    /// Makes it anew.
    pub(crate) fn renew(&self, authority: &Authority) -> Result<(), String> {
        let made = made(&self.name, &self.names, &self.addresses, authority)?;
        *self.now.write() = made;
        Ok(())
    }
}

fn made(
    name: &str,
    names: &[String],
    addresses: &[IpAddr],
    authority: &Authority,
) -> Result<(Arc<Identity>, Arc<ServerConfig>), String> {
    let identity = authority.identity(name, names, addresses)?;
    let config = identity.server_config().map_err(|error| error.to_string())?;
    Ok((Arc::new(identity), config))
}

/// Puts what callers have to trust where operators find it.
pub(crate) fn write_authority(state: &Path, authority: &Authority) -> Result<(), String> {
    let path = state.join(AUTHORITY_FILE);
    trust::write_private(&path, authority.pem().as_bytes())
        .map_err(|error| format!("{}: {error}", path.display()))
}
