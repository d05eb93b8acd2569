//! A certificate authority for tests: pebble, Let's Encrypt's own (Debian package `pebble`), with a name server that knows
//! every name as 127.0.0.1. And what an edge shows to who begins a handshake with it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use trust::server_verifier;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest wait for a state that must come.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A certificate authority that runs until it is dropped.
pub struct Authority {
    processes: Vec<Child>,
    directory: PathBuf,
    address: SocketAddr,
    ports: Ports,
}

/// Where the authority looks whether a domain is ours.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// For HTTP-01.
    pub http: u16,
    /// For TLS-ALPN-01.
    pub tls: u16,
}

impl Authority {
    /// Starts one that keeps its own things in `directory`; `None`, with a word, where pebble is not installed.
    pub fn start(directory: &Path, ports: Ports) -> Option<Authority> {
        if Command::new("pebble").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("skipped: the Debian package pebble is not installed");
            return None;
        }
        fs::create_dir_all(directory).expect("a directory for the authority");
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let wanted = rcgen::CertificateParams::new(names).expect("names");
        let certificate = wanted.self_signed(&key).expect("a certificate");
        fs::write(directory.join("ca.pem"), certificate.pem()).expect("a file");
        fs::write(directory.join("ca.key"), key.serialize_pem()).expect("a file");
        let address = free_address();
        let mut authority =
            Authority { processes: Vec::new(), directory: directory.to_owned(), address, ports };
        authority.resume();
        Some(authority)
    }

    /// Starts again after [`Authority::halt`], at the same address and without a memory.
    pub fn resume(&mut self) {
        let (names, management) = (free_address(), free_address());
        let configuration = format!(
            r#"{{"pebble": {{"listenAddress": "{}", "managementListenAddress": "{}", "certificate": "ca.pem",
            "privateKey": "ca.key", "httpPort": {}, "tlsPort": {}, "ocspResponderURL": "",
            "externalAccountBindingRequired": false}}}}"#,
            self.address,
            free_address(),
            self.ports.http,
            self.ports.tls
        );
        fs::write(self.directory.join("pebble.json"), configuration).expect("a file");
        let mut name_server = Command::new("pebble-challtestsrv");
        name_server.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        name_server.args(["-dns01", &names.to_string(), "-management", &management.to_string()]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-config", "pebble.json", "-dnsserver", &names.to_string()]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        for command in [&mut name_server, &mut pebble] {
            let log = fs::File::options().create(true).append(true).open(self.directory.join("log"));
            let log = log.expect("a log");
            command.current_dir(&self.directory).stdin(Stdio::null());
            command.stdout(log.try_clone().expect("a log")).stderr(log);
            self.processes.push(command.spawn().expect("pebble and its name server are installed"));
        }
        wait_for("the authority", || TcpStream::connect(self.address).is_ok());
    }

    /// Ends it, for a while or for good.
    pub fn halt(&mut self) {
        for mut process in self.processes.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// The URL of its directory.
    pub fn url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The file with what to trust when talking to it.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.halt();
    }
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

/// Waits until something is so.
///
/// # Panics
/// When it is not so after [`PATIENCE`].
#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a handshake shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Who issued the certificate.
    pub issuer: String,
    /// Its serial number, in hex.
    pub serial: String,
    /// Its end, in seconds since the epoch.
    pub not_after: i64,
}

/// Begins a handshake for `name`. The error is the TLS library's.
pub fn shown(address: SocketAddr, name: &str) -> io::Result<Shown> {
    let stream = connect(address, name, client_config())?;
    let der =
        stream.conn.peer_certificates().and_then(<[_]>::first).expect("a handshake shows a certificate");
    let (_, certificate) = X509Certificate::from_der(der).expect("a certificate that can be read");
    Ok(Shown {
        issuer: certificate.issuer().to_string(),
        serial: certificate.raw_serial_as_string(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// A connection whose handshake is done.
pub fn connect(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    while client.is_handshaking() {
        client.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(client, socket))
}

/// Asks over TLS, and returns all that is answered until the connection ends.
pub fn get(address: SocketAddr, name: &str, path: &str) -> io::Result<String> {
    let mut stream = connect(address, name, client_config())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// A client that takes any certificate: the tests look at it themselves.
pub fn client_config() -> ClientConfig {
    client_with(any_certificate())
}

fn client_with(verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// The OCSP response that a handshake for `name` shows; empty when it shows none.
pub fn shown_staple(address: SocketAddr, name: &str) -> io::Result<Vec<u8>> {
    let (told, staple) = mpsc::channel();
    let verifier = server_verifier(move |server| {
        let _nobody_waits = told.send(server.staple.to_vec());
        Ok(())
    });
    connect(address, name, client_with(verifier))?;
    Ok(staple.try_recv().expect("a handshake shows a certificate"))
}

/// Looks at no certificate.
pub fn any_certificate() -> Arc<dyn ServerCertVerifier> {
    server_verifier(|_| Ok(()))
}
