//! The edge's certificate in a play, and what makes clients believe it.

use edge::tls::Certificate;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// A certificate for `site.example` that vouches for itself.
pub struct Identity {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Identity {
    pub(super) fn new() -> Identity {
        let made = rcgen::generate_simple_self_signed(["site.example".to_owned(), "localhost".to_owned()]);
        let made = made.expect("a certificate is made");
        Identity {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    /// As the edge takes it.
    pub fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.chain.as_bytes(), self.key.as_bytes()).expect("the certificate is sound")
    }

    /// TLS 1.3 for a client that believes this certificate alone and speaks `protocol`.
    pub fn client(&self, protocol: &[u8]) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("the certificate can vouch for itself");
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }
}
