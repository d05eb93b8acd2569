//! `perigee init`: three questions, or flags, and a configuration with comments that can be run at once.

use std::io::{BufRead, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use model::{Diagnostic, Snapshot};

use crate::failure::Failure;
use crate::whole;

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
    pub(crate) fn run(self) -> Result<(), Failure> {
        // Before anybody has answered three questions for nothing.
        if self.out.exists() && !self.force {
            return Err(is_there(&self.out));
        }
        let may_ask = !self.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if self.tls == Some(Tls::Acme)
            && !self.accept_terms
            && !(may_ask && TERMS.ask(&mut put_to_terminal, read_yes)?)
        {
            return Err(Failure::new(
                "a certificate is ordered only from an authority whose terms you accept",
                "read the terms of service of the authority (https://letsencrypt.org/repository/) and add --accept-terms",
            ));
        }
        let answer =
            |said: Option<String>, question: &Question, check: &dyn Fn(&str) -> Result<String, Failure>| {
                match said {
                    Some(said) => check(&said).map(|_| said),
                    None if may_ask => {
                        question.ask(&mut put_to_terminal, |said| check(said).map(|_| said.to_owned()))
                    }
                    None => Err(Failure::new(
                        format!("{} is not said, and nobody can be asked", question.flag),
                        format!("add {}, or see perigee init --help", question.flag),
                    )),
                }
            };
        let files = (
            self.chain.as_deref().unwrap_or(Path::new("/etc/perigee/chain.pem")),
            self.key.as_deref().unwrap_or(Path::new("/etc/perigee/key.pem")),
        );
        let host = answer(self.host, &HOST, &|host| configure(host, ORIGIN.default, Tls::Off, files))?;
        let origin = answer(self.origin, &ORIGIN, &|origin| configure(&host, origin, Tls::Off, files))?;
        let with = |tls| configure(&host, &origin, tls, files);
        let text = match self.tls {
            Some(tls) => with(tls)?,
            // Who answers acme has read whose terms that accepts.
            None if may_ask => TLS.ask(&mut put_to_terminal, |word| with(read_tls(word)?))?,
            None => with(Tls::Off)?,
        };
        let place = self.out.display().to_string();
        write_new(&self.out, &text, self.force)?;
        let place = shell_word(&place);
        crate::print(&format!(
            "wrote {place}\nnext: perigee check {place} && perigee serve --config {place}\n"
        ))
    }
}

/// What is asked for where no flag says it.
struct Question {
    flag: &'static str,
    words: &'static str,
    /// What an empty answer stands for.
    default: &'static str,
}

const HOST: Question = Question {
    flag: "--host",
    words: "Host name of the site, as visitors type it",
    default: "www.shop.example",
};

const ORIGIN: Question = Question {
    flag: "--origin",
    words: "URL of its origin, where the content comes from",
    default: "http://127.0.0.1:8000",
};

const TLS: Question = Question {
    flag: "--tls",
    words: "TLS with visitors: off (a try on 127.0.0.1:8080), acme (ordered from Let's Encrypt; you accept its terms), files",
    default: "off",
};

const TERMS: Question = Question {
    flag: "--accept-terms",
    words: "You accept the terms of service of Let's Encrypt (https://letsencrypt.org/repository/): yes, no",
    default: "no",
};

impl Question {
    /// Asks until `read` takes the answer.
    fn ask<T>(
        &self,
        put: &mut dyn FnMut(&Question) -> Result<String, Failure>,
        read: impl Fn(&str) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            match read(&put(self)?) {
                Ok(answer) => return Ok(answer),
                Err(failure) => eprintln!("{failure}"),
            }
        }
    }
}

/// Asks on standard error, so that standard output stays free for what comes of it.
fn put_to_terminal(question: &Question) -> Result<String, Failure> {
    eprint!("{} [{}]: ", question.words, question.default);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read.map_err(|error| Failure::new(format!("the terminal cannot be read: {error}"), "use flags"))? {
        0 => Err(Failure::new("nothing was answered", "run perigee init again, or use flags")),
        _ => {
            Ok(Some(answer.trim()).filter(|answer| !answer.is_empty()).unwrap_or(question.default).to_owned())
        }
    }
}

fn read_yes(word: &str) -> Result<bool, Failure> {
    match word {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Failure::new(format!("{word:?} is neither yes nor no"), "answer yes or no")),
    }
}

fn read_tls(word: &str) -> Result<Tls, Failure> {
    Tls::from_str(word, true).map_err(|_| {
        Failure::new(format!("{word:?} is no way to speak TLS here"), "answer off, acme or files")
    })
}

/// The configuration, or the first error that it would have.
fn configure(host: &str, origin: &str, tls: Tls, files: (&Path, &Path)) -> Result<String, Failure> {
    let text = write(host, origin, tls, files);
    match Snapshot::parse(&text, "").diagnostics.into_iter().find(Diagnostic::is_error) {
        Some(found) => Err(Failure::new(found.message, found.help)),
        None => Ok(text),
    }
}

/// `files`: chain and key, for [`Tls::Files`].
fn write(host: &str, origin: &str, tls: Tls, (chain, key): (&Path, &Path)) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let listen = match tls {
        Tls::Off => "listen = \"127.0.0.1:8080\"              # addresses for visitors; 0.0.0.0:80 for all the world\n".to_owned(),
        _ => "listen = [\"0.0.0.0:80\", \"[::]:80\"]      # addresses for visitors\n\
              listen_tls = [\"0.0.0.0:443\", \"[::]:443\"]  # with TLS: HTTP/1.1, HTTP/2, and HTTP/3 by UDP\n"
            .to_owned(),
    };
    let certificate = match tls {
        Tls::Acme => "\n# Certificates are ordered and renewed by the edge itself. Its names must lead here, on port 80 or 443.\n\
                           [acme]\naccept_terms = true\n"
            .to_owned(),
        Tls::Files => format!(
            "\n[[certificate]]\nchain = {}  # the certificate, followed by those that lead to a root\nkey = {}\n",
            quote(&chain.display().to_string()),
            quote(&key.display().to_string())
        ),
        Tls::Off => String::new(),
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
    let write = if force { whole::write } else { whole::write_new };
    write(file, text.as_bytes()).map_err(|error| match error.kind() {
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

    fn files() -> (&'static Path, &'static Path) {
        (Path::new("/etc/a.pem"), Path::new("/etc/a.key"))
    }

    #[test]
    fn whatever_is_answered_makes_a_configuration_that_is_good() {
        for tls in [Tls::Off, Tls::Acme, Tls::Files] {
            let text = write("www.shop.example", "https://origin.shop.example", tls, files());
            let parsed = Snapshot::parse(&text, "perigee.toml");
            assert_eq!(parsed.diagnostics, [], "{text}");
            assert_eq!(parsed.snapshot.unwrap().run_tests(), [], "{text}");
        }
    }

    #[test]
    fn a_wrong_answer_is_asked_for_again_until_nobody_answers() {
        let mut answers = ["localhost:8000", "http://", "http://localhost:8000"].into_iter();
        let mut put = |_: &Question| {
            answers.next().map(str::to_owned).ok_or_else(|| Failure::new("nothing was answered", ""))
        };
        let read =
            |origin: &str| configure("a.example", origin, Tls::Off, files()).map(|_| origin.to_owned());
        assert_eq!(ORIGIN.ask(&mut put, read), Ok("http://localhost:8000".to_owned()));
        let ended = TLS.ask(&mut put, read_tls).unwrap_err();
        assert_eq!(ended, Failure::new("nothing was answered", ""));
    }

    #[test]
    fn terms_are_accepted_by_a_yes_alone() {
        for (said, is_accepted) in [(&["y", "yes"][..], true), (&["no"], false), (&[TERMS.default], false)] {
            let mut answers = said.iter();
            let mut put = |_: &Question| Ok((*answers.next().unwrap()).to_owned());
            assert_eq!(TERMS.ask(&mut put, read_yes), Ok(is_accepted), "{said:?}");
        }
    }

    #[test]
    fn what_makes_no_configuration_is_named_with_what_to_write() {
        for (host, origin, wanted) in [
            ("https://a.example/", ORIGIN.default, "error: the domain \"https://a.example/\""),
            (
                "a.example",
                "localhost:8000",
                "error: the origin \"localhost:8000\" has no scheme\n  next: write",
            ),
        ] {
            let failure = configure(host, origin, Tls::Off, files()).unwrap_err().to_string();
            assert!(failure.starts_with(wanted), "{failure}");
        }
        assert_eq!(read_tls("ACME"), Ok(Tls::Acme));
        assert!(read_tls("on").unwrap_err().to_string().contains("off, acme or files"));
    }
}
