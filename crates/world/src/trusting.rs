//! TLS for clients that load a server of one's own: every certificate is believed.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs;

use crate::authority::any_certificate;

/// TLS 1.3 for a client that speaks `protocol`.
pub fn client(protocol: &[u8]) -> rustls::ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is known")
        .dangerous()
        .with_custom_certificate_verifier(any_certificate())
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls
}

/// QUIC for a client that speaks HTTP/3.
pub fn quic() -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client(b"h3")).expect("QUIC can use TLS")))
}
