//! An OCSP responder for tests: `openssl ocsp` reads our questions and signs its answers, as real ones do; here is only what
//! carries both over HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair, SerialNumber};

/// An authority with one certificate, and what it says of that.
pub struct Responder {
    directory: PathBuf,
    /// For how long its answers hold; 0 is none at all.
    minutes: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
}

/// The number of the certificate.
const SERIAL: [u8; 2] = [0x9c, 7];

impl Responder {
    /// Makes the authority and a certificate for `name` in `directory`, as `chain.pem` and `key.pem`; `None`, with a word, where
    /// openssl is not installed. Nobody is answered yet.
    pub fn new(directory: &Path, name: &str) -> Option<Responder> {
        if Command::new("openssl")
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            eprintln!("skipped: the Debian package openssl is not installed");
            return None;
        }
        fs::create_dir_all(directory).expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&ca_key).expect("a certificate").pem();
        let write = |file: &str, text: &str| fs::write(directory.join(file), text).expect("a file");
        write("ca.pem", &ca);
        write("ca.key", &ca_key.serialize_pem());
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().expect("a key");
        let mut wanted = CertificateParams::new([name.to_owned()]).expect("a name");
        wanted.serial_number = Some(SerialNumber::from(SERIAL.to_vec()));
        wanted.custom_extensions = vec![responder_at(&format!("http://{address}/ocsp"))];
        let certificate = wanted.signed_by(&key, &issuer).expect("a certificate").pem();
        write("chain.pem", &format!("{certificate}{ca}"));
        write("key.pem", &key.serialize_pem());
        let responder =
            Responder { directory: directory.to_owned(), minutes: Arc::default(), asked: Arc::default() };
        responder.say(true);
        let (minutes, asked) = (responder.minutes.clone(), responder.asked.clone());
        let directory = directory.to_owned();
        // It ends with the process: a test's.
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                let minutes = minutes.load(Ordering::SeqCst);
                if minutes > 0 {
                    let _ = answer(socket, &directory, minutes);
                }
            }
        });
        Some(responder)
    }

    /// What is answered from now on: that the certificate is good, or that it has been revoked.
    pub fn say(&self, is_good: bool) {
        let state = if is_good { "V\t401231235959Z\t" } else { "R\t401231235959Z\t260101000000Z" };
        let line = format!("{state}\t9C07\tunknown\t/CN=the certificate\n");
        fs::write(self.directory.join("index.txt"), line).expect("a file");
    }

    /// Answers with what holds for so many minutes from now on; 0 hangs up on who asks.
    pub fn hold(&self, minutes: u32) {
        self.minutes.store(minutes, Ordering::SeqCst);
    }

    /// How often it has been asked.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// An answer that holds for so many minutes, as a file.
    pub fn answer(&self, minutes: u32) -> PathBuf {
        let file = self.directory.join("answer.der");
        let mut openssl = openssl(&self.directory, minutes);
        openssl.args(["-issuer", "ca.pem", "-serial", "0x9c07", "-respout"]).arg(&file);
        assert!(openssl.status().expect("openssl is installed").success(), "openssl makes an answer");
        file
    }
}

/// Answers one question of HTTP/1.0.
fn answer(socket: TcpStream, directory: &Path, minutes: u32) -> std::io::Result<()> {
    let mut reader = BufReader::new(&socket);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut question = vec![0; length];
    reader.read_exact(&mut question)?;
    let (asked, said) = (directory.join("question.der"), directory.join("said.der"));
    fs::write(&asked, question)?;
    let mut openssl = openssl(directory, minutes);
    let is_done = openssl.arg("-reqin").arg(&asked).arg("-respout").arg(&said).status()?.success();
    let body = if is_done { fs::read(&said)? } else { Vec::new() };
    let status = if is_done { "200 OK" } else { "500 Internal Server Error" };
    let mut socket = &socket;
    write!(socket, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    socket.write_all(&body)
}

fn openssl(directory: &Path, minutes: u32) -> Command {
    let mut command = Command::new("openssl");
    command.args(["ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key"]);
    command.args(["-noverify", "-nmin", &minutes.to_string()]).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The extension that names a responder (RFC 5280 §4.2.2.1).
fn responder_at(url: &str) -> CustomExtension {
    let value = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let method = value(0x06, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let access = value(0x30, &[method, value(0x86, url.as_bytes())].concat());
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], value(0x30, &access))
}
