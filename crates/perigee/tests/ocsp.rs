//! The built binary and an OCSP responder that nobody here wrote: fetched by itself, kept over a restart, and no harm when the
//! responder is down. Skipped, with a word, where openssl is not installed.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use world::authority::{free_address, shown, shown_staple, wait_for};
use world::responder::Responder;

const DOMAIN: &str = "www.shop.example";

/// An edge with its own state directory; killed when dropped.
struct Edge {
    child: Child,
    tls: SocketAddr,
    errors: PathBuf,
    directory: PathBuf,
}

impl Edge {
    fn start(directory: &Path) -> Edge {
        let (file, errors, tls) =
            (directory.join("perigee.toml"), directory.join("errors.log"), free_address());
        let at = directory.display();
        let text = format!(
            "[edge]\nlisten = \"{}\"\nlisten_tls = \"{tls}\"\nadmin = \"127.0.0.1:0\"\n[[certificate]]\n\
             chain = \"{at}/chain.pem\"\nkey = \"{at}/key.pem\"\nocsp = \"fetch\"\n[[site]]\nname = \"shop\"\n\
             domains = \"{DOMAIN}\"\norigin = \"http://127.0.0.1:9\"\n",
            free_address()
        );
        fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_perigee"))
            .args(["serve", "--config", file.to_str().unwrap()])
            .args(["--state", directory.join("state").to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let mut edge = Edge { child, tls, errors, directory: directory.to_owned() };
        wait_for("the edge", || {
            assert!(edge.child.try_wait().unwrap().is_none(), "it ended: {}", edge.said());
            edge.said().contains("Ctrl-C")
        });
        edge
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    fn staple(&self) -> Vec<u8> {
        shown_staple(self.tls, DOMAIN).unwrap()
    }

    /// Its count of fetches that ended so.
    fn count(&self, result: &str) -> String {
        let address = fs::read_to_string(self.directory.join("state/admin-address")).unwrap();
        let answer = world_get(address.trim());
        let series = format!("perigee_ocsp_fetches_total{{result=\"{result}\"}} ");
        let line = answer.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
        line.unwrap_or_default()
    }
}

fn world_get(address: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_response_is_fetched_and_kept_and_a_responder_that_is_down_does_no_harm() {
    let directory = std::env::temp_dir().join(format!("perigee-ocsp-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    let Some(responder) = Responder::new(&directory, DOMAIN) else { return };
    let edge = Edge::start(&directory);
    wait_for("an attempt", || edge.said().contains("no OCSP response for www.shop.example"));
    assert!(edge.said().contains("attempt 2 not before"), "{}", edge.said());
    assert!(shown(edge.tls, DOMAIN).is_ok() && edge.staple().is_empty(), "the certificate is served without");
    assert_eq!((edge.count("failed"), edge.count("fetched")), ("1".to_owned(), "0".to_owned()));
    drop(edge);

    responder.hold(600);
    let edge = Edge::start(&directory);
    wait_for("a response", || !edge.staple().is_empty());
    let (first, asked) = (edge.staple(), responder.asked());
    assert_eq!(edge.count("fetched"), "1");
    drop(edge);

    responder.hold(0);
    let edge = Edge::start(&directory);
    assert!(edge.staple() == first, "the disk had it, from the first handshake on");
    assert_eq!(responder.asked(), asked, "nobody was asked before half of its life");
    drop(edge);
    fs::remove_dir_all(&directory).unwrap();
}
