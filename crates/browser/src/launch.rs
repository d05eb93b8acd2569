//! Starting a browser, and ending it with all that it has written.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::link::Link;
use crate::page::Page;
use crate::{CALL_TIME_MAX, Error};

/// What Chromium is called by those who package it, the likelier first.
pub(crate) const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Longest that a browser may take to end after it was told to.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// Attempts at removing a profile, and the time between them: a profile that cannot be removed is the system's to clean.
const REMOVALS_MAX: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// How a browser is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program; the first of the usual names on `PATH` without.
    pub program: Option<PathBuf>,
    /// Hosts that are to be found at an address, whatever DNS says; a name with its port goes to that port.
    pub hosts: Vec<(String, SocketAddr)>,
    /// Takes every certificate: for servers under test that have one of their own making.
    pub takes_any_certificate: bool,
    /// Width and height of its window.
    pub window: (u32, u32),
    /// Whether it speaks no HTTP/3.
    pub without_quic: bool,
    /// The network namespace that it runs in, rather than that of this process (network_namespaces(7)).
    pub namespace: Option<Arc<OwnedFd>>,
}

impl Default for Options {
    fn default() -> Self {
        let hosts = Vec::new();
        Options {
            program: None,
            hosts,
            takes_any_certificate: false,
            window: (1366, 768),
            without_quic: false,
            namespace: None,
        }
    }
}

/// A running browser. Ends when it is dropped, or better by [`Browser::close`].
pub struct Browser {
    link: Arc<Link>,
    child: Child,
    profile: PathBuf,
    version: String,
}

/// The first of the usual names for which `PATH` has a file.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    NAMES.iter().find_map(|name| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
    })
}

impl Browser {
    /// Starts one, and waits until it answers.
    pub async fn launch(options: &Options) -> Result<Browser, Error> {
        let program = options.program.clone().or_else(find).ok_or(Error::Missing)?;
        let profile = new_profile().map_err(Error::Start)?;
        let started = start(&program, &profile, options);
        let mut child =
            started.inspect_err(|_| drop(std::fs::remove_dir_all(&profile))).map_err(Error::Start)?;
        let (Some(writer), Some(reader)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Gone);
        };
        let mut browser =
            Browser { link: Link::open(writer, reader), child, profile, version: String::new() };
        let version = browser.link.call(None, "Browser.getVersion", json!({})).await;
        let version = version.map_err(|error| match error {
            Error::Gone => Error::Start(io::Error::other(format!("{} has ended at once", program.display()))),
            other => other,
        })?;
        let product = version["product"].as_str().ok_or(Error::Strange("Browser.getVersion", "product"))?;
        product.clone_into(&mut browser.version);
        Ok(browser)
    }

    /// Name and version, as `Chrome/126.0.6478.126`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Opens an empty page in a profile of its own: no cookies, nothing in the cache.
    pub async fn new_page(&self) -> Result<Page, Error> {
        Page::open(self.link.clone()).await
    }

    /// Ends it and removes its profile.
    pub async fn close(mut self) {
        // Whether it still answers or not, it ends.
        let told = self.link.call(None, "Browser.close", json!({}));
        let _ = tokio::time::timeout(END_TIME_MAX.min(CALL_TIME_MAX), told).await;
        if tokio::time::timeout(END_TIME_MAX, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Already gone after `close`. Else its processes may still write what is being removed, for a moment.
        let _ = self.child.start_kill();
        for _ in 0..REMOVALS_MAX {
            let is_gone = !matches!(self.child.try_wait(), Ok(None));
            // Fails while they do; after the last attempt nobody could do better.
            let _ = std::fs::remove_dir_all(&self.profile);
            if is_gone && !self.profile.exists() {
                return;
            }
            std::thread::sleep(REMOVAL_PAUSE);
        }
    }
}

fn new_profile() -> std::io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    let name = format!("perigee-browser-{}-{number}-{nanos}", std::process::id());
    let profile = std::env::temp_dir().join(name);
    // Fails where it exists: what somebody else has made is not taken for a profile.
    std::fs::DirBuilder::new().mode(0o700).create(&profile)?;
    Ok(profile)
}

/// The browser reads calls from descriptor 3 and writes to 4; a shell gives it its standard ones there, and nothing in
/// their place.
fn start(program: &Path, profile: &Path, options: &Options) -> std::io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg("exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1").arg("sh").arg(program);
    command.args([
        "--headless=new",
        "--remote-debugging-pipe",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--disable-features=Translate,OptimizationHints,MediaRouter,HttpsFirstBalancedModeAutoEnable,HttpsUpgrades,LocalNetworkAccessChecks",
        "--disable-gpu",
        "--disable-sync",
        "--force-color-profile=srgb",
        "--hide-scrollbars",
        "--metrics-recording-only",
        "--mute-audio",
        "--no-pings",
        "--password-store=basic",
    ]);
    command.arg(format!("--window-size={},{}", options.window.0, options.window.1));
    if options.without_quic {
        command.arg("--disable-quic");
    }
    if is_root() {
        // Chromium refuses to run its sandbox as root.
        command.arg("--no-sandbox");
    }
    if options.takes_any_certificate {
        command.arg("--ignore-certificate-errors");
    }
    if !options.hosts.is_empty() {
        let rules = options.hosts.iter().map(|(host, address)| format!("MAP {host} {address}"));
        command.arg(format!("--host-resolver-rules={}", rules.collect::<Vec<_>>().join(", ")));
    }
    let mut user_data = std::ffi::OsString::from("--user-data-dir=");
    user_data.push(profile);
    command.arg(user_data).arg("about:blank");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    match &options.namespace {
        None => command.spawn(),
        Some(namespace) => spawn_within(namespace, command),
    }
}

/// A child is in the namespace of the thread that has started it: one that ends right after.
fn spawn_within(namespace: &OwnedFd, mut command: Command) -> std::io::Result<Child> {
    let runtime = tokio::runtime::Handle::current();
    let start = move || {
        let _entered = runtime.enter();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        command.spawn()
    };
    std::thread::scope(|scope| {
        scope.spawn(start).join().unwrap_or_else(|_| Err(std::io::Error::other("its thread has panicked")))
    })
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
