//! TLS to origins: who is believed, and what the end of a connection means.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate authority of the test's own, in a file that goes with it.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let file = std::env::temp_dir().join(format!("perigee-ca-{name}-{}.pem", std::process::id()));
        std::fs::write(&file, certificate.pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), file }
    }

    /// A server's settings with a certificate for `name`.
    pub(super) fn server(&self, name: &str, alpn: &[&[u8]]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// An origin at `port` that trusts this authority alone and asks for `name`.
    pub(super) fn origin(&self, port: u16, name: &str) -> Origin {
        let mut origin = Origin::parse(&format!("https://127.0.0.1:{port}")).unwrap();
        origin.tls.ca = Some(self.file.to_str().unwrap().into());
        origin.tls.server_name = Some(name.into());
        origin
    }
}

/// How a TLS origin ends its connection.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    CloseNotify,
    Cut,
}

/// An origin that sends `answer` on each connection.
async fn serve(acceptor: TlsAcceptor, answer: &'static str, ending: Ending) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let seen = RefCell::default();
                let _ = perform(&mut stream, vec![Read, send(answer)], &seen).await;
                match ending {
                    Ending::CloseNotify => drop(stream.shutdown().await),
                    Ending::Cut => drop(stream.get_mut().0.shutdown().await),
                }
            });
        }
    });
    port
}

const NAME: &str = "origin.shop.example";

#[test]
fn a_certificate_of_a_trusted_authority_for_the_right_name_is_believed() {
    play(async {
        let authority = Authority::new("trusted");
        let port = serve(authority.server(NAME, &[b"http/1.1"]), OK, Ending::CloseNotify).await;
        let (origins, _) = origins();
        let group = OriginGroup::of(authority.origin(port, NAME));
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "200 [2] \"ok\"");
    });
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    play(async {
        let authority = Authority::new("name");
        let port = serve(authority.server("other.example", &[]), OK, Ending::CloseNotify).await;
        let (origins, _) = origins();
        let group = OriginGroup::of(authority.origin(port, NAME));
        let error = origins.fetch(&group, get("/"), |_, _| {}).await.unwrap_err();
        assert_eq!((error.kind(), error.why()), (FetchErrorKind::Tls, semantics::Why::OriginConnect));
        assert!(error.to_string().starts_with(&format!("origin https://127.0.0.1:{port}: tls: ")), "{error}");
    });
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_unless_verification_is_off() {
    play(async {
        let (authority, other) = (Authority::new("one"), Authority::new("other"));
        let port = serve(other.server(NAME, &[]), OK, Ending::CloseNotify).await;
        let (origins, _) = origins();
        let mut origin = authority.origin(port, NAME);
        assert_eq!(fetch_line(&origins, &OriginGroup::of(origin.clone()), get("/")).await, "tls");
        origin.tls.ca = None;
        assert_eq!(fetch_line(&origins, &OriginGroup::of(origin.clone()), get("/")).await, "tls");
        origin.tls.verify = false;
        assert_eq!(fetch_line(&origins, &OriginGroup::of(origin), get("/")).await, "200 [2] \"ok\"");
    });
}

#[test]
fn a_ca_file_that_cannot_be_read_is_told_when_the_configuration_comes() {
    play(async {
        let (origins, _) = origins();
        let mut origin = Origin::parse("https://origin.shop.example").unwrap();
        origin.tls.ca = Some("/nonexistent/ca.pem".into());
        let group = OriginGroup::of(origin);
        let trouble = origins.shared.configure([&group]);
        assert_eq!(trouble.len(), 1);
        assert!(trouble[0].contains("CA file /nonexistent/ca.pem"), "{trouble:?}");
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "tls");
    });
}

#[test]
fn a_body_until_close_ends_with_close_notify_alone() {
    play(async {
        let authority = Authority::new("ending");
        let answer = "HTTP/1.1 200 OK\r\n\r\nuntil close";
        for (ending, expected) in [
            (Ending::CloseNotify, "200 \"until close\""),
            (Ending::Cut, "200 \"until close\" then truncated"),
        ] {
            let port = serve(authority.server(NAME, &[]), answer, ending).await;
            let (origins, _) = origins();
            let group = OriginGroup::of(authority.origin(port, NAME));
            assert_eq!(fetch_line(&origins, &group, get("/")).await, expected);
        }
    });
}

#[test]
fn an_origin_that_declines_http2_gets_http1() {
    play(async {
        let authority = Authority::new("declines");
        let port = serve(authority.server(NAME, &[b"http/1.1"]), OK, Ending::CloseNotify).await;
        let mut origin = authority.origin(port, NAME);
        origin.http2 = true;
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &OriginGroup::of(origin), get("/")).await, "200 [2] \"ok\"");
    });
}
