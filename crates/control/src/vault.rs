//! The cluster's secret, and what is sealed with it: keys that lie in the journal, where whoever has a copy of its file or reads
//! etcd must not find them.
//!
//! ```text
//! DIR/cluster-secret   0600   64 hex digits; the same at every control of a cluster
//! sealed               nonce (12 bytes, random) ‖ AES-256-GCM(text, additional data: what it is)
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use trust::{hex, write_private};

/// The file with the secret.
pub(crate) const SECRET_FILE: &str = "cluster-secret";
/// The file with the first token.
pub(crate) const TOKEN_FILE: &str = "admin-token";

const SECRET_BYTES: usize = 32;

/// Seals and opens.
pub(crate) struct Vault {
    key: LessSafeKey,
}

impl Vault {
    /// Under the secret in a state directory, which is made where there is none yet and `may_begin` says that this is a
    /// new cluster.
    ///
    /// # Errors
    /// What to do when it is missing or damaged.
    pub(crate) fn open_in(state: &Path, may_begin: bool) -> Result<Vault, String> {
        let path = state.join(SECRET_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && may_begin => {
                let secret = random_hex::<SECRET_BYTES>()?;
                write_private(&path, format!("{secret}\n").as_bytes())
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                secret
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(format!(
                    "{}: there is no such file, and this journal has been begun with one; copy it from the state \
                     directory of another control of the cluster",
                    path.display()
                ));
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let secret = unhex(text.trim()).filter(|secret| secret.len() == SECRET_BYTES).ok_or_else(|| {
            format!(
                "{}: the cluster's secret is damaged; wanted {} hex digits: copy it from another control",
                path.display(),
                2 * SECRET_BYTES
            )
        })?;
        let key = UnboundKey::new(&AES_256_GCM, &secret)
            .map_err(|_| "the cluster's secret is no key".to_owned())?;
        Ok(Vault { key: LessSafeKey::new(key) })
    }

    /// Seals a text; `what` must be said again to open it.
    pub(crate) fn seal(&self, what: &str, text: &[u8]) -> Result<Vec<u8>, String> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| no_chance())?;
        let mut sealed = text.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(what), &mut sealed)
            .map_err(|_| "the text is too long to be sealed".to_owned())?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what [`Vault::seal`] has sealed under the same secret; `None` otherwise.
    pub(crate) fn open(&self, what: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let length = self.key.open_in_place(nonce, Aad::from(what), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

fn no_chance() -> String {
    "the system's random source gives nothing".to_owned()
}

/// `N` random bytes in hex.
pub(crate) fn random_hex<const N: usize>() -> Result<String, String> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| no_chance())?;
    Ok(hex(&bytes))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|index| u8::from_str_radix(&text[index..index + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use trust::make_private_directory;

    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_secret_under_the_same_name_only() {
        let directories = ["a", "b"].map(|name| {
            let path = std::env::temp_dir().join(format!("perigee-vault-{}-{name}", std::process::id()));
            make_private_directory(&path).unwrap();
            path
        });
        let vault = Vault::open_in(&directories[0], true).unwrap();
        let sealed = vault.seal("a key", b"secret").unwrap();
        assert_ne!(sealed, vault.seal("a key", b"secret").unwrap(), "a nonce is used once");
        let again = Vault::open_in(&directories[0], false).unwrap();
        assert_eq!(again.open("a key", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(again.open("another", &sealed), None);
        assert_eq!(again.open("a key", &sealed[..10]), None);
        let mut bent = sealed.clone();
        bent[NONCE_LEN] ^= 1;
        assert_eq!(again.open("a key", &bent), None);
        let refused = Vault::open_in(&directories[1], false).err().unwrap();
        assert!(refused.contains("copy it from the state directory of another control"), "{refused}");
        let other = Vault::open_in(&directories[1], true).unwrap();
        assert_eq!(other.open("a key", &sealed), None);
        fs::write(directories[1].join(SECRET_FILE), "abc").unwrap();
        assert!(Vault::open_in(&directories[1], true).err().unwrap().contains("wanted 64 hex digits"));
        for directory in directories {
            fs::remove_dir_all(directory).unwrap();
        }
    }
}
