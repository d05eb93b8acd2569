//! The edge's certificate in a play, and what makes clients believe it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use edge::tls::Certificate;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::PATIENCE;

/// A certificate for `site.example` that vouches for itself.
pub struct Identity {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Identity {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "no two are the same")]
    pub fn new() -> Identity {
        let made = rcgen::generate_simple_self_signed(["site.example".to_owned(), "localhost".to_owned()]);
        let made = made.expect("a certificate is made");
        Identity {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    /// The chain of certificates, in PEM.
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// The private key, in PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// As the edge takes it.
    pub fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.chain.as_bytes(), self.key.as_bytes()).expect("the certificate is sound")
    }

    /// TLS 1.3 for a client that believes this certificate alone and speaks `protocol`.
    pub fn client(&self, protocol: &[u8]) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("the certificate can vouch for itself");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }

    /// Sends `text` over HTTP/1.1, and reads until the edge closes.
    pub(super) fn ask(&self, address: SocketAddr, text: &str) -> String {
        let name = "site.example".try_into().expect("a name");
        let connection =
            rustls::ClientConnection::new(Arc::new(self.client(b"http/1.1")), name).expect("TLS begins");
        let socket = TcpStream::connect(address).expect("the edge listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
        let mut stream = rustls::StreamOwned::new(connection, socket);
        stream.write_all(text.as_bytes()).expect("the edge reads");
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // A close without a goodbye; the answer says how long it is.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            read => drop(read.expect("the edge answers and closes")),
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}
