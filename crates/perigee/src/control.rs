//! `perigee control`: runs a control of a cluster, until SIGTERM or SIGINT.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use control::export::{By, EVERY, EVERY_MAX, EVERY_MIN, Export, Form};
use control::{Control, Options};
use journal::Journal;
use journal::etcd::Etcd;
use journal::sqlite::Sqlite;
use model::units::parse_duration;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use trust::{fingerprint, is_name, make_private_directory};

use crate::address::ListenAt;
use crate::batches::{Batches, Content};
use crate::failure::Failure;
use crate::manager;

const EXAMPLES: &str = "\
Examples:
  perigee control --config control.toml
  perigee control --config control.toml --check

control.toml:
  name   = \"control-1\"
  listen = \"0.0.0.0:7700\"                   # operators and nodes come to this one port
  names  = [\"control-1.example\"]            # by which they reach it
  state  = \"/var/lib/perigee-control\"       # the cluster's secret, the first token, ca.pem

  [journal]
  sqlite = \"/var/lib/perigee-control/journal.sqlite\"

or, for several controls, in place of [journal]:
  [journal.etcd]
  endpoints = [\"https://etcd-1:2379\", \"https://etcd-2:2379\", \"https://etcd-3:2379\"]
  ca_file   = \"/etc/perigee/etcd-ca.pem\"  # also certificate_file and key_file, user and password_file, prefix

and, as often as wanted, who else is told what the cluster serves (of several controls, at one of them):
  [[export]]
  to   = \"http://prometheus.example:9090/api/v1/write\"
  form = \"remote-write\"                     # or \"otlp\"
  # every = \"10s\", by = [\"site\", \"pop\", \"status\"], labels = { cluster = \"main\" },
  # authorization_file = \"/etc/perigee/export-authorization\" (e.g. Bearer …)

The first control of a cluster makes its authority, its secret and its first token. Each further one needs
a copy of the file cluster-secret in its state directory, and a journal that both reach.";

/// `perigee control`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ControlArgs {
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and stop
    #[arg(long)]
    check: bool,
}

/// `control.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: String,
    listen: ListenAt,
    #[serde(default)]
    names: Vec<String>,
    state: PathBuf,
    journal: JournalSettings,
    #[serde(default)]
    export: Vec<ExportSettings>,
}

/// `[[export]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportSettings {
    to: String,
    form: FormSetting,
    every: Option<String>,
    by: Option<Vec<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    authorization_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FormSetting {
    RemoteWrite,
    Otlp,
}

/// What is told apart, unless said otherwise.
const EXPORTED_BY: [&str; 3] = ["site", "pop", "status"];

/// Labels that series have by themselves.
const OWN_LABELS: [&str; 10] =
    ["__name__", "control", "le", "site", "pop", "country", "class", "rule", "status", "why"];

impl ExportSettings {
    /// Ready to be started.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    fn open(&self) -> Result<Export, (String, &'static str)> {
        let at =
            |what: String| format!("export to {:?}: {what}", self.to.split('?').next().unwrap_or_default());
        let (form, content) = match self.form {
            FormSetting::RemoteWrite => (Form::RemoteWrite, Content::RemoteWrite),
            FormSetting::Otlp => (Form::Otlp, Content::Otlp),
        };
        let every = self.every.as_deref().map_or(Ok(EVERY), |text| {
            let every = parse_duration(text).ok().filter(|every| (EVERY_MIN..=EVERY_MAX).contains(every));
            every.ok_or_else(|| (at(format!("every {text:?} is none of 1s to 2m")), "e.g. every = \"10s\""))
        })?;
        let names = self.by.as_ref().map(|names| names.iter().map(String::as_str).collect());
        let by = By::of(names.unwrap_or_else(|| EXPORTED_BY.to_vec()));
        let by = by.map_err(|why| (at(format!("by: {why}")), "e.g. by = [\"site\", \"pop\", \"status\"]"))?;
        let is_label = |name: &str| {
            let mut bytes = name.bytes();
            bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !OWN_LABELS.contains(&name)
        };
        if let Some(wrong) = self.labels.keys().find(|name| !is_label(name)) {
            return Err((
                at(format!(
                    "labels: {wrong:?} is no name for a label, or one that series have by themselves"
                )),
                "use letters, digits and '_', e.g. labels = { cluster = \"main\" }",
            ));
        }
        let mut batches = Batches::to(&self.to, content)
            .map_err(|why| (at(why), "e.g. to = \"http://prometheus.example:9090/api/v1/write\""))?;
        let place = batches.place();
        if let Some(path) = &self.authorization_file {
            let next = "name a file that holds one line, e.g. Bearer … or Basic …";
            let text = fs::read_to_string(path)
                .map_err(|error| (at(format!("authorization_file {}: {error}", path.display())), next))?;
            batches = batches.authorized(text.trim_end()).map_err(|why| (at(why), next))?;
        }
        Ok(Export { place, form, by, labels: self.labels.clone(), every, to: Box::new(batches) })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum JournalSettings {
    /// A file, for one control.
    Sqlite(PathBuf),
    /// For several.
    Etcd(EtcdSettings),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EtcdSettings {
    endpoints: Vec<String>,
    #[serde(default = "prefix")]
    prefix: String,
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
}

/// What a cluster's keys in etcd begin with.
fn prefix() -> String {
    "perigee".to_owned()
}

impl EtcdSettings {
    /// With the password read.
    fn settings(&self) -> Result<journal::etcd::Settings, Failure> {
        let pair = |a: &Option<PathBuf>, b: &Option<PathBuf>| a.clone().zip(b.clone());
        let user = match self.user.as_ref().zip(self.password_file.as_ref()) {
            Some((user, path)) => {
                let password = fs::read_to_string(path).map_err(|error| {
                    Failure::new(
                        format!("journal.etcd.password_file {}: {error}", path.display()),
                        "name the file with the password",
                    )
                })?;
                Some((user.clone(), password.trim_end().to_owned()))
            }
            None => None,
        };
        Ok(journal::etcd::Settings {
            endpoints: self.endpoints.clone(),
            prefix: self.prefix.clone(),
            ca_file: self.ca_file.clone(),
            certificate: pair(&self.certificate_file, &self.key_file),
            user,
        })
    }
}

impl ControlArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let settings = read(&self.config)?;
        if self.check {
            return crate::print(&format!("{} is good\n", self.config.display()));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("threads cannot be started: {error}"), ""))?;
        let done = runtime.block_on(serve(settings));
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    }
}

fn read(path: &Path) -> Result<Settings, Failure> {
    let place = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("{place}: {error}"), "perigee control --help shows an example")
    })?;
    let settings: Settings = toml::from_str(&text).map_err(|error| {
        Failure::new(format!("{place}: {error}"), "perigee control --help shows an example")
    })?;
    check(&settings).map_err(|(message, next)| Failure::new(format!("{place}: {message}"), next))?;
    Ok(settings)
}

/// What a file of the right form may still have wrong.
fn check(settings: &Settings) -> Result<(), (String, &'static str)> {
    if !is_name(&settings.name) {
        let message =
            format!("name {:?} is no name; wanted 1 to 64 letters, digits, '-', '_' and '.'", settings.name);
        return Err((message, "e.g. name = \"control-1\""));
    }
    if let Some(wrong) = settings.names.iter().find(|name| {
        name.is_empty() || name.contains(['/', ':', ' ', '*']) && name.parse::<std::net::IpAddr>().is_err()
    }) {
        let message = format!("names: {wrong:?} is neither a host nor an address");
        return Err((message, "write it without scheme and port, e.g. \"control-1.example\""));
    }
    if settings.listen.0.ip().is_unspecified() && settings.names.is_empty() {
        let message = format!("names is empty, and nobody reaches {} by that address", settings.listen.0);
        return Err((
            message,
            "say by which names or addresses operators and nodes reach it: names = [\"control-1.example\"]",
        ));
    }
    let sqlite = match &settings.journal {
        JournalSettings::Sqlite(path) => Some(("journal.sqlite", path)),
        JournalSettings::Etcd(etcd) => {
            if etcd.endpoints.is_empty() {
                let next = "name its members: endpoints = [\"https://etcd-1:2379\"]";
                return Err(("journal.etcd.endpoints is empty".to_owned(), next));
            }
            for (one, other, names) in [
                (etcd.certificate_file.is_some(), etcd.key_file.is_some(), "certificate_file and key_file"),
                (etcd.user.is_some(), etcd.password_file.is_some(), "user and password_file"),
            ] {
                if one != other {
                    return Err((
                        format!("journal.etcd: {names} go together, and one is missing"),
                        "name both or none",
                    ));
                }
            }
            None
        }
    };
    for (key, path) in [("state", &settings.state)].into_iter().chain(sqlite) {
        if !path.is_absolute() {
            return Err((format!("{key} {:?} is not absolute", path.display()), "write the whole path"));
        }
    }
    settings.export.iter().try_for_each(|export| export.open().map(drop))
}

/// The state directory first: a journal may well lie in it.
async fn open(settings: &JournalSettings, state: &Path) -> Result<Arc<dyn Journal>, Failure> {
    make_private_directory(state).map_err(|error| {
        Failure::new(
            format!("{}: cannot be created: {error}", state.display()),
            "choose a place for state that this user may write to",
        )
    })?;
    let chance: journal::Chance = Arc::new(chance);
    let opened: Result<Arc<dyn Journal>, journal::Error> = match settings {
        JournalSettings::Sqlite(path) => Sqlite::open(path, &chance).map(|journal| Arc::new(journal) as _),
        JournalSettings::Etcd(etcd) => {
            Etcd::open(&etcd.settings()?, &chance).await.map(|journal| Arc::new(journal) as _)
        }
    };
    opened.map_err(|error| {
        Failure::new(
            format!("the journal cannot be opened: {error}"),
            "look after what [journal] names, and start again",
        )
    })
}

/// From the operating system; where that gives nothing, from what the program's hash maps are seeded by.
fn chance() -> u128 {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_ok() {
        return u128::from_le_bytes(bytes);
    }
    let draw = || u128::from(RandomState::new().hash_one(0));
    draw() << 64 | draw()
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    let unhandled = |error: std::io::Error| Failure::new(format!("signals cannot be handled: {error}"), "");
    let mut terminated = signal(SignalKind::terminate()).map_err(unhandled)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(unhandled)?;
    let is_first = !settings.state.join("ca.pem").exists();
    let journal = open(&settings.journal, &settings.state).await?;
    let mut options = Options::new(settings.name.clone(), settings.listen.0, settings.state.clone(), journal);
    options.names = settings.names.clone();
    let exports = settings.export.iter().map(ExportSettings::open).collect::<Result<_, _>>();
    options.exports = exports.map_err(|(message, next)| Failure::new(message, next))?;
    let mut handle = Control::start(options)
        .await
        .map_err(|error| Failure::new(format!("control cannot be started: {error}"), ""))?;
    announce(&settings, handle.address(), is_first);
    manager::ready();
    let broken = tokio::select! {
        _ = terminated.recv() => None,
        _ = interrupted.recv() => None,
        why = handle.broken() => Some(why),
    };
    manager::stopping();
    handle.stop().await;
    match broken {
        None => Ok(()),
        Some(why) => {
            Err(Failure::new(why, "start it again: nodes and the other controls have gone on meanwhile"))
        }
    }
}

/// Says where it is, and how to talk to it.
fn announce(settings: &Settings, address: SocketAddr, is_first: bool) {
    let host = settings.names.first().cloned().unwrap_or_else(|| address.ip().to_string());
    let url = format!("https://{host}:{}", address.port());
    let pem = fs::read(settings.state.join("ca.pem")).unwrap_or_default();
    let authority =
        CertificateDer::from_pem_slice(&pem).map(|authority| fingerprint(&authority)).unwrap_or_default();
    eprintln!(
        "perigee: control {} listens on {address}; its cluster's authority is {authority}",
        settings.name
    );
    if is_first {
        eprintln!(
            "perigee: to talk to it: perigee login {url} --authority {authority} --token-file {}",
            settings.state.join("admin-token").display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_or_refused_with_the_place() {
        let good =
            "name = \"c1\"\nlisten = \"127.0.0.1:7700\"\nstate = \"/s\"\n[journal]\nsqlite = \"/s/j\"\n";
        let path = std::env::temp_dir().join(format!("perigee-control-{}.toml", std::process::id()));
        let check = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path).map(|_| ()).map_err(|failure| failure.to_string())
        };
        assert_eq!(check(good), Ok(()));
        for (from, to, wanted) in [
            ("name = \"c1\"", "name = \"c/1\"", "is no name"),
            ("name", "nmae", "unknown field `nmae`"),
            ("127.0.0.1:7700", "7700", "\"7700\" is not an address with port; write 0.0.0.0:7700"),
            ("127.0.0.1:7700", "0.0.0.0:7700", "names is empty"),
            ("state = \"/s\"", "state = \"s\"", "is not absolute"),
            ("state = \"/s\"", "state = \"/s\"\nnames = [\"https://a\"]", "is neither a host nor an address"),
            ("sqlite", "postgres", "unknown variant `postgres`"),
            ("sqlite = \"/s/j\"", "etcd = { endpoints = [] }", "endpoints is empty"),
            (
                "sqlite = \"/s/j\"",
                "etcd = { endpoints = [\"x\"], user = \"a\" }",
                "user and password_file go together",
            ),
            ("[journal]", "[[export]]\nto = \"a\"\nform = \"otlp\"\n[journal]", "is no URL"),
            (
                "[journal]",
                "[[export]]\nto = \"http://a/\"\nform = \"csv\"\n[journal]",
                "unknown variant `csv`",
            ),
            (
                "[journal]",
                "[[export]]\nto = \"http://a/\"\nform = \"otlp\"\nevery = \"5m\"\n[journal]",
                "every \"5m\" is none of 1s to 2m",
            ),
            (
                "[journal]",
                "[[export]]\nto = \"http://a/\"\nform = \"otlp\"\nby = [\"moon\"]\n[journal]",
                "\"moon\" is nothing to tell apart",
            ),
            (
                "[journal]",
                "[[export]]\nto = \"http://a/\"\nform = \"otlp\"\nlabels = { site = \"a\" }\n[journal]",
                "\"site\" is no name for a label",
            ),
            (
                "[journal]",
                "[[export]]\nto = \"http://a/\"\nform = \"otlp\"\nauthorization_file = \"/nowhere\"\n[journal]",
                "authorization_file /nowhere",
            ),
        ] {
            let error = check(&good.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(wanted), "{to}: {error}");
        }
        fs::remove_file(&path).unwrap();
    }
}
