//! Which cluster is meant, and what its control says, in words. Used by all commands that concern a cluster; the crate `client` speaks to it.
//!
//! Where control is, and how to be let in, stands in flags, else in the environment, else in the profile that `perigee login`
//! has written:
//!
//! ```text
//! $XDG_CONFIG_HOME/perigee/client.toml   0600   control = "https://…", authority = "64 hex digits", token = "pgt_…"
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use clap::Args;
use client::Control;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trust::{fingerprint, make_private_directory, write_private};

use crate::failure::Failure;

/// Which cluster is meant.
#[derive(Debug, Default, Args)]
pub(crate) struct Cluster {
    /// URL of a control, e.g. https://control-1.example:7700 [default: $PERIGEE_CONTROL, else the profile's]
    #[arg(long, value_name = "URL", global = true)]
    control: Option<String>,
    /// The cluster's authority: its fingerprint, or its file ca.pem [default: $PERIGEE_AUTHORITY, else the profile's]
    #[arg(long, value_name = "HEX|FILE", global = true)]
    authority: Option<String>,
    /// File with the token [default: the token in $PERIGEE_TOKEN, else the profile's]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

/// What `perigee login` writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) control: String,
    pub(crate) authority: String,
    pub(crate) token: String,
}

impl Profile {
    /// The way to its control.
    pub(crate) fn client(&self) -> Result<Control, Failure> {
        Ok(Control::new(&self.control, &self.authority, &self.token)?)
    }
}

impl Cluster {
    /// The one at this URL.
    pub(crate) fn of(control: String, authority: String, token_file: PathBuf) -> Cluster {
        Cluster { control: Some(control), authority: Some(authority), token_file: Some(token_file) }
    }

    /// Whether any flag names one.
    pub(crate) fn is_given(&self) -> bool {
        self.control.is_some() || self.authority.is_some() || self.token_file.is_some()
    }

    /// Whether flags or environment name a control: then `perigee purge` goes there, and not to the edge of this machine.
    pub(crate) fn is_named(&self) -> bool {
        self.control.is_some() || variable("PERIGEE_CONTROL").is_some()
    }

    /// The way to its API.
    pub(crate) fn client(&self) -> Result<Control, Failure> {
        self.profile()?.client()
    }

    /// From flags, environment and profile, in this order.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        let kept = read_profile(&profile_path()?)?.unwrap_or_default();
        let choose = |flag: Option<String>, name: &str, kept: String, what: &str| {
            let chosen = flag.or_else(|| variable(name)).unwrap_or(kept);
            match chosen.is_empty() {
                false => Ok(chosen),
                true => Err(Failure::new(
                    format!("{what} is not known"),
                    "perigee login URL --authority FINGERPRINT --token-file FILE keeps all of it; `perigee control` says \
                     at its start what to write",
                )),
            }
        };
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        let authority =
            choose(self.authority.clone(), "PERIGEE_AUTHORITY", kept.authority, "the cluster's authority")?;
        Ok(Profile {
            control: choose(self.control.clone(), "PERIGEE_CONTROL", kept.control, "the control to talk to")?,
            authority: pinned(&authority)?,
            token: choose(token, "PERIGEE_TOKEN", kept.token, "the token")?,
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(
            format!("--token-file {}: {error}", path.display()),
            "name the file that holds the token",
        )
    })?;
    match text.trim() {
        "" => Err(Failure::new(
            format!("--token-file {}: is empty", path.display()),
            "name the file that holds the token",
        )),
        token => Ok(token.to_owned()),
    }
}

/// A fingerprint, or that of the certificate in a file.
fn pinned(authority: &str) -> Result<String, Failure> {
    if authority.len() == 64 && authority.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(authority.to_ascii_lowercase());
    }
    let next = "write the 64 hex digits that `perigee control` prints at its start, or name its file ca.pem";
    let pem = fs::read(authority).map_err(|error| {
        Failure::new(
            format!("the authority {authority:?} is neither a fingerprint nor a file: {error}"),
            next,
        )
    })?;
    let certificate = CertificateDer::from_pem_slice(&pem)
        .map_err(|error| Failure::new(format!("{authority}: no certificate in PEM: {error}"), next))?;
    Ok(fingerprint(&certificate))
}

// --- The profile ---

/// Where it is.
pub(crate) fn profile_path() -> Result<PathBuf, Failure> {
    let xdg = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".config"));
    let base = xdg.or_else(home).ok_or_else(|| {
        Failure::new(
            "neither XDG_CONFIG_HOME nor HOME says where profiles are",
            "set HOME, or give --control, --authority and --token-file",
        )
    })?;
    Ok(base.join("perigee/client.toml"))
}

fn read_profile(path: &Path) -> Result<Option<Profile>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {error}", path.display()), "correct it, or write it anew: perigee login")
    };
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map(Some).map_err(|error| wrong(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(&error)),
    }
}

/// Keeps a profile, as a whole, for its owner alone.
pub(crate) fn write_profile(path: &Path, profile: &Profile) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            make_private_directory(directory)?;
        }
        write_private(path, toml::to_string(profile).map_err(io::Error::other)?.as_bytes())
    };
    write().map_err(|error| {
        Failure::new(format!("{}: {error}", path.display()), "choose another place with XDG_CONFIG_HOME")
    })
}

// --- Words ---

/// Prints an answer as JSON, or in words.
pub(crate) fn show(json: bool, answer: &Value, words: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
    crate::print(&if json { format!("{answer:#}\n") } else { words(answer) })
}

/// Rows as a table, each column as wide as its widest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A cell: text as it is, nothing as `-`.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => crate::visible(text),
        other => other.to_string(),
    }
}

/// How long ago a moment in ms since 1970 was, or in how long it will be: `3 s ago`, `in 6 d`.
pub(crate) fn when(value: &Value) -> String {
    let Some(at_ms) = value.as_i64() else { return "-".to_owned() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let secs = (at_ms - now.map_or(0, |now| now.as_millis() as i64)) / 1000;
    let span = match secs.abs() {
        secs @ 0..120 => format!("{secs} s"),
        secs @ 120..7200 => format!("{} min", secs / 60),
        secs @ 7200..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} d", secs / 86_400),
    };
    if secs > 0 { format!("in {span}") } else { format!("{span} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_it_was_written_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let path =
            std::env::temp_dir().join(format!("perigee-profile-{}/perigee/client.toml", std::process::id()));
        assert_eq!(read_profile(&path), Ok(None));
        let profile =
            Profile { control: "https://a".into(), authority: "ab".repeat(32), token: "pgt_x".into() };
        write_profile(&path, &profile).unwrap();
        write_profile(&path, &profile).unwrap();
        assert_eq!(read_profile(&path).unwrap(), Some(profile));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "controll = 1").unwrap();
        assert!(read_profile(&path).unwrap_err().to_string().contains("controll"));
        fs::remove_dir_all(path.parent().unwrap().parent().unwrap()).unwrap();
    }

    #[test]
    fn a_table_has_columns() {
        let rows = [vec!["a".to_owned(), "long".to_owned()], vec!["bbb".to_owned(), "-".to_owned()]];
        assert_eq!(table(&["x", "y"], &rows), "x    y\na    long\nbbb  -\n");
    }
}
