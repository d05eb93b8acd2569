//! `perigee init`: three questions, or flags, and a configuration with comments that can be run at once.

use std::fs::OpenOptions;
use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use model::{Diagnostic, Origin, Snapshot};

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee init
  perigee init --host www.shop.example --origin https://origin.shop.example --tls acme --accept-terms --yes
  perigee init --host localhost --origin http://127.0.0.1:8000 --tls off --yes --out perigee.toml";

/// How visitors speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tls {
    /// Not here: for a try, or behind something that does; listens on 127.0.0.1:8080
    Off,
    /// With a certificate that the edge orders by itself (Let's Encrypt); listens on ports 80 and 443
    Acme,
    /// With a certificate from files; listens on ports 80 and 443
    Files,
}

/// `perigee init`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Init {
    /// The site's host name
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Where its content comes from
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
    /// How visitors speak TLS
    #[arg(long, value_enum)]
    tls: Option<Tls>,
    /// You accept the terms of service of the certificates' authority, which --tls acme needs
    #[arg(long)]
    accept_terms: bool,
    /// The certificate, followed by those that lead to a root, for --tls files
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where to write the configuration
    #[arg(long, value_name = "FILE", default_value = "perigee.toml")]
    out: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
}

impl Init {
    /// Asks, writes, and says what comes next.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        // Before anybody has answered three questions for nothing.
        if self.out.exists() && !self.force {
            return Err(is_there(&self.out));
        }
        let may_ask = !self.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let ask = |question: &str, default: &str| match may_ask {
            true => question_to_terminal(question, default).map(Some),
            false => Ok(None),
        };
        let missing = |flag: &str| {
            Failure::new(
                format!("{flag} is not said, and nobody can be asked"),
                format!("add {flag}, or see perigee init --help"),
            )
        };
        let host = match self.host.take() {
            Some(host) => host,
            None => ask("Host name of the site, as visitors type it", "www.shop.example")?
                .ok_or_else(|| missing("--host"))?,
        };
        let origin = match self.origin.take() {
            Some(origin) => origin,
            None => ask("URL of its origin, where the content comes from", "http://127.0.0.1:8000")?
                .ok_or_else(|| missing("--origin"))?,
        };
        Origin::parse(&origin)
            .map_err(|bad| Failure::new(format!("the origin {origin:?} {}", bad.reason), bad.help))?;
        let tls = match self.tls {
            Some(tls) => tls,
            None => {
                let question = "TLS with visitors: off (a try on 127.0.0.1:8080), acme (ordered from Let's Encrypt; you accept its terms), files";
                match ask(question, "off")? {
                    None => Tls::Off,
                    Some(word) => {
                        self.accept_terms |= word == "acme";
                        Tls::from_str(&word, true).map_err(|_| {
                            Failure::new(
                                format!("{word:?} is none of off, acme, files"),
                                "run perigee init again",
                            )
                        })?
                    }
                }
            }
        };
        let certificate = match tls {
            Tls::Files => Some((
                self.chain.as_deref().unwrap_or(Path::new("/etc/perigee/chain.pem")),
                self.key.as_deref().unwrap_or(Path::new("/etc/perigee/key.pem")),
            )),
            Tls::Acme if !self.accept_terms => {
                let next = "read the terms of service of the authority (https://letsencrypt.org/repository/) and add --accept-terms";
                return Err(Failure::new(
                    "a certificate is ordered only from an authority whose terms you accept",
                    next,
                ));
            }
            _ => None,
        };
        let text = write(&host, &origin, tls, certificate);
        let place = self.out.display().to_string();
        let parsed = Snapshot::parse(&text, &place);
        if parsed.snapshot.is_none() {
            let found: String = parsed
                .diagnostics
                .iter()
                .filter(|found| found.is_error())
                .map(Diagnostic::to_string)
                .collect();
            return Err(Failure::new(
                format!("what was answered makes no configuration:\n{found}"),
                "run perigee init again",
            ));
        }
        write_new(&self.out, &text, self.force)?;
        let place = shell_word(&place);
        crate::print(&format!(
            "wrote {place}\nnext: perigee check {place} && perigee serve --config {place}\n"
        ))
    }
}

/// Asks on standard error, so that standard output stays free for what comes of it.
fn question_to_terminal(question: &str, default: &str) -> Result<String, Failure> {
    eprint!("{question} [{default}]: ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read.map_err(|error| Failure::new(format!("the terminal cannot be read: {error}"), "use flags"))? {
        0 => Err(Failure::new("nothing was answered", "run perigee init again, or use flags")),
        _ => Ok(Some(answer.trim()).filter(|answer| !answer.is_empty()).unwrap_or(default).to_owned()),
    }
}

fn write(host: &str, origin: &str, tls: Tls, certificate: Option<(&Path, &Path)>) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let listen = match tls {
        Tls::Off => "listen = \"127.0.0.1:8080\"              # addresses for visitors; 0.0.0.0:80 for all the world\n".to_owned(),
        _ => "listen = [\"0.0.0.0:80\", \"[::]:80\"]      # addresses for visitors\n\
              listen_tls = [\"0.0.0.0:443\", \"[::]:443\"]  # with TLS: HTTP/1.1, HTTP/2, and HTTP/3 by UDP\n"
            .to_owned(),
    };
    let certificate = match (tls, certificate) {
        (Tls::Acme, _) => "\n# Certificates are ordered and renewed by the edge itself. Its names must lead here, on port 80 or 443.\n\
                           [acme]\naccept_terms = true\n"
            .to_owned(),
        (_, Some((chain, key))) => format!(
            "\n[[certificate]]\nchain = {}  # the certificate, followed by those that lead to a root\nkey = {}\n",
            quote(&chain.display().to_string()),
            quote(&key.display().to_string())
        ),
        _ => String::new(),
    };
    let https = match tls {
        Tls::Off => {
            "# https = \"redirect\"                    # once there is TLS: who comes without is sent there\n"
        }
        _ => "https = \"redirect\"                      # who comes without TLS is sent there\n",
    };
    format!(
        "# Written by perigee init. All keys: perigee check --reference\n\
         \n\
         [edge]\n\
         {listen}\
         admin = \"127.0.0.1:9090\"               # metrics, purges and explanations; for this machine alone\n\
         {certificate}\
         \n\
         [store]\n\
         memory = \"512MiB\"                      # what the cache may use\n\
         \n\
         # A disk keeps what is stored over a restart:\n\
         # [[store.disk]]\n\
         # path = \"/var/cache/perigee\"\n\
         # size = \"20GiB\"\n\
         \n\
         [[site]]\n\
         name = \"main\"\n\
         domains = [{}]\n\
         origin = {}\n\
         {https}\
         stale_if_error = \"1d\"                  # while the origin fails, what is stored answers\n\
         query = {{ drop = [\"utm_*\", \"gclid\", \"fbclid\"] }}  # of no account to the origin: it does not get them\n\
         \n\
         # With no rule, the origin's headers decide (RFC 9111). Rules, in order; the first that matches decides:\n\
         # [[site.rule]]\n\
         # path = \"/static/*\"\n\
         # ttl = \"30d\"\n\
         \n\
         # perigee check runs this: a page that sets a cookie is not shared.\n\
         [[site.test]]\n\
         get = \"/\"\n\
         scheme = \"https\"\n\
         response_headers = {{ Cache-Control = \"max-age=60\", Set-Cookie = \"session=1\" }}\n\
         expect = {{ stored = false }}\n",
        quote(host),
        quote(origin),
    )
}

/// Writes a file that is not there, unless it may be replaced.
pub(crate) fn write_new(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let written = options.open(file).and_then(|mut opened| opened.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(file),
        _ => Failure::new(
            format!("{} cannot be written: {error}", file.display()),
            "name a file in a directory that is there",
        ),
    })
}

fn is_there(file: &Path) -> Failure {
    Failure::new(
        format!("{} is there already", file.display()),
        "name another file, or add --force to replace it",
    )
}

/// A file name as a shell takes it.
fn shell_word(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_answered_makes_a_configuration_that_is_good() {
        let files = Some((Path::new("/etc/a.pem"), Path::new("/etc/a.key")));
        for (tls, certificate) in [(Tls::Off, None), (Tls::Acme, None), (Tls::Files, files)] {
            let text = write("www.shop.example", "https://origin.shop.example", tls, certificate);
            let parsed = Snapshot::parse(&text, "perigee.toml");
            assert_eq!(parsed.diagnostics, [], "{text}");
            assert_eq!(parsed.snapshot.unwrap().run_tests(), [], "{text}");
        }
    }
}
