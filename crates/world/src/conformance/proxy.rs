//! The proxy under test as a process: started on free ports with its own state directory, ended when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

/// Longest wait for the proxy to accept connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What the proxy is told about Set-Cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A configuration file with `set_cookie = "rfc9111"`.
    Rfc9111,
    /// No configuration.
    Default,
    /// [`Mode::Rfc9111`] with a disk, and a memory so small that most is read from it.
    Disk,
}

impl Mode {
    /// As in the list of accepted tests.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Mode::Rfc9111 => "rfc9111",
            Mode::Default => "default",
            Mode::Disk => "disk",
        }
    }
}

/// A running proxy.
pub(super) struct Proxy {
    child: Child,
    directory: PathBuf,
    /// `host:port` for visitors.
    pub(super) address: String,
}

impl Proxy {
    /// Starts `binary serve` before `origin` (`host:port`) and waits until it accepts connections.
    pub(super) async fn start(binary: &Path, origin: &str, mode: Mode) -> Result<Proxy, String> {
        let name = format!("perigee-conformance-{}-{}", std::process::id(), mode.as_str());
        let directory = std::env::temp_dir().join(name);
        let fail = |what: &str, error: std::io::Error| format!("{what}: {error}");
        std::fs::create_dir_all(&directory).map_err(|error| fail("state directory", error))?;
        let [listen, admin] = free_addresses().map_err(|error| fail("free ports", error))?;
        let output = File::create(directory.join("output")).map_err(|error| fail("output file", error))?;
        let errors = output.try_clone().map_err(|error| fail("output file", error))?;
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .args(["--listen", &listen, "--admin", &admin, "--state"])
            .arg(directory.join("state"));
        match mode {
            Mode::Default => drop(command.args(["--origin", &format!("http://{origin}")])),
            Mode::Rfc9111 | Mode::Disk => {
                let file = directory.join("perigee.toml");
                let store = match mode {
                    Mode::Disk => "[store]\nmemory = \"1MiB\"\n\n[[store.disk]]\nsize = \"64MiB\"\n\n",
                    Mode::Rfc9111 | Mode::Default => "",
                };
                let text = format!(
                    "{store}[[site]]\nname = \"conformance\"\ndomains = [\"*\"]\norigin = \"http://{origin}\"\nset_cookie = \"rfc9111\"\n"
                );
                std::fs::write(&file, text).map_err(|error| fail("configuration", error))?;
                command.arg("--config").arg(file);
            }
        }
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().map_err(|error| fail(&binary.display().to_string(), error))?;
        let mut proxy = Proxy { child, directory, address: listen };
        match tokio::time::timeout(START_TIMEOUT, proxy.accepts()).await {
            Ok(true) => Ok(proxy),
            _ => Err(format!("{} did not start:\n{}", binary.display(), proxy.output())),
        }
    }

    async fn accepts(&mut self) -> bool {
        loop {
            if TcpStream::connect(&self.address).await.is_ok() {
                return true;
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the process is still there: a crash during the run is a failure of its own.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it wrote to its standard output and error.
    pub(super) fn output(&self) -> String {
        std::fs::read_to_string(self.directory.join("output")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Two loopback addresses that were free a moment ago.
fn free_addresses() -> std::io::Result<[String; 2]> {
    let first = std::net::TcpListener::bind("127.0.0.1:0")?;
    let second = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok([first.local_addr()?.to_string(), second.local_addr()?.to_string()])
}
