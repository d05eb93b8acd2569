//! An etcd of a test's own: members on free ports of loopback, with their data in a directory that is gone afterwards. A system's
//! etcd is not touched, nor are its settings taken.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use journal::Error;
use journal::etcd::{Etcd, Settings};

use crate::scratch::{Scratch, chance};

/// What a test waits for at most, on however slow a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Some members that make one etcd. They end with it.
pub(crate) struct Members {
    pub(crate) all: Vec<Member>,
    pub(crate) settings: Settings,
    extra: Vec<OsString>,
    scratch: Scratch,
}

/// Files (PEM) of an authority, and what it has issued: certificate and key.
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

/// A member, running or not.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client: u16,
    pub(crate) peer: u16,
    process: Option<Child>,
}

impl Members {
    /// `None`, and says why, when etcd is not installed. `extra` are arguments for each.
    pub(crate) async fn start(count: usize, extra: &[&str]) -> Option<Members> {
        Members::start_secured(count, extra, None).await
    }

    /// With TLS for clients, who have to show a certificate.
    pub(crate) async fn start_secured(count: usize, extra: &[&str], tls: Option<&Tls>) -> Option<Members> {
        if !Command::new("etcd").arg("--version").output().is_ok_and(|output| output.status.success()) {
            println!("skipped: etcd is not installed (Debian: etcd-server etcd-client)");
            return None;
        }
        // Somebody else may take a port between its choice and etcd's start.
        for _ in 0..10 {
            let mut members = Members::choose(count, extra, tls);
            for index in 0..count {
                members.launch(index, "new");
            }
            if members.answer().await {
                return Some(members);
            }
        }
        panic!("etcd does not start; the last one's words are above");
    }

    fn choose(count: usize, extra: &[&str], tls: Option<&Tls>) -> Members {
        // All are held until all are chosen, so that they differ.
        let held: Vec<_> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let all = ports.chunks(2).enumerate().map(|(index, ports)| Member {
            name: format!("m{index}"),
            client: ports[0],
            peer: ports[1],
            process: None,
        });
        let all: Vec<_> = all.collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let settings = Settings {
            endpoints: all.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client)).collect(),
            prefix: "perigee/test".into(),
            ca_file: tls.map(|tls| tls.ca.clone()),
            certificate: tls.map(|tls| tls.client.clone()),
            user: None,
        };
        let mut extra: Vec<_> = extra.iter().map(OsString::from).collect();
        if let Some(tls) = tls {
            let (certificate, key) = &tls.server;
            for (flag, file) in
                [("--cert-file", certificate), ("--key-file", key), ("--trusted-ca-file", &tls.ca)]
            {
                extra.extend([flag.into(), file.into()]);
            }
            extra.push("--client-cert-auth".into());
        }
        Members { all, settings, extra, scratch: Scratch::new() }
    }

    /// Starts a member on the data that it has.
    pub(crate) fn launch(&mut self, index: usize, state: &str) {
        let cluster: Vec<_> = self
            .all
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer))
            .collect();
        let directory = self.data(index);
        let member = &mut self.all[index];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.scratch.path(format!("{}.log", member.name)))
            .unwrap();
        let client = &self.settings.endpoints[index];
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let mut command = Command::new("etcd");
        for (name, _) in std::env::vars_os() {
            let is_setting = name.to_string_lossy().starts_with("ETCD_");
            if is_setting && name != "ETCD_UNSUPPORTED_ARCH" {
                command.env_remove(name);
            }
        }
        command.arg("--data-dir").arg(directory).args(["--name", &member.name]);
        command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", state]);
        // A member that is gone is noticed soon, and a lagging one gets snapshots.
        command.args(["--heartbeat-interval", "50", "--election-timeout", "500", "--snapshot-count", "200"]);
        command.args(&self.extra).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        member.process = Some(command.spawn().unwrap());
    }

    async fn answer(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match Etcd::open(
                &Settings { prefix: "perigee/started".into(), ..self.settings.clone() },
                &chance(),
            )
            .await
            {
                Ok(_) => return true,
                Err(Error::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
            for index in 0..self.all.len() {
                if !self.is_running(index) {
                    println!("{}", self.log(index));
                    return false;
                }
            }
        }
        println!("{}", self.log(0));
        false
    }

    pub(crate) fn data(&self, index: usize) -> PathBuf {
        self.scratch.path(&self.all[index].name)
    }

    /// What it has said.
    pub(crate) fn log(&self, index: usize) -> String {
        fs::read_to_string(self.scratch.path(format!("{}.log", self.all[index].name))).unwrap_or_default()
    }

    pub(crate) fn is_running(&mut self, index: usize) -> bool {
        self.all[index].process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.all[index].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Runs etcdctl against some members; gives what it has said, or its error.
    pub(crate) fn control(&self, of: &[usize], arguments: &[&str]) -> Result<String, String> {
        let endpoints: Vec<_> = of.iter().map(|index| &*self.settings.endpoints[*index]).collect();
        let mut command = Command::new("etcdctl");
        if let (Some(ca), Some((certificate, key))) = (&self.settings.ca_file, &self.settings.certificate) {
            command.arg("--cacert").arg(ca).arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        let output = command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoints.join(","), "--command-timeout", "20s"])
            .args(arguments)
            .output()
            .map_err(|error| format!("etcdctl: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        (0..self.all.len()).for_each(|index| self.kill(index));
    }
}
