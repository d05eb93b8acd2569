//! Control's own certificate, which is made anew each day, and when the clock has been set.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use trust::Identity;

use crate::authority::{Authority, CLOCK_SKEW};
use crate::clock::ms;

/// How old the certificate grows.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(24 * 3600);

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

    /// Makes it anew a day after it was made, by the clock that others go by: a monotonic one stands while a machine sleeps. And where
    /// it was made at a time that is yet to come, by a clock that was wrong.
    pub(crate) fn renew_when_due(&self, authority: &Authority, now_ms: i64) -> Result<(), String> {
        let made_ms = self.identity().peer().valid.0 * 1000 + ms(CLOCK_SKEW);
        if (0..ms(RENEWAL_INTERVAL)).contains(&(now_ms - made_ms)) {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use journal::memory::Memory;

    use super::*;
    use crate::clock::now_ms;

    #[tokio::test]
    async fn it_is_made_anew_after_a_day_and_when_it_was_made_by_a_clock_that_was_wrong() {
        let state = std::env::temp_dir().join(format!("perigee-tls-{}", std::process::id()));
        trust::make_private_directory(&state).unwrap();
        let opened = crate::authority::open(&Memory::new("j", 1), &state).await;
        std::fs::remove_dir_all(&state).unwrap();
        let (authority, _) = opened.unwrap_or_else(|error| panic!("{error}"));
        let address = IpAddr::from([127, 0, 0, 1]);
        let certificates = Certificates::new("c1", Vec::new(), address, &authority).unwrap();
        let hour = 3_600_000;
        let table =
            [(0, false), (23, false), (25, true), (-1, true), (24 * 365 * 50, true), (-24 * 365 * 50, true)];
        for (passed_hours, is_due) in table {
            let before = certificates.identity();
            certificates.renew_when_due(&authority, now_ms() + passed_hours * hour).unwrap();
            let is_new = !Arc::ptr_eq(&before, &certificates.identity());
            assert_eq!(is_new, is_due, "{passed_hours} h after it was made");
        }
    }
}
