//! TLS towards origins: which roots are trusted, and what is verified. Certificates are verified unless an origin's
//! configuration says otherwise by name.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// How to trust an origin.
pub(super) struct Trust<'a> {
    /// PEM file with the only roots to trust; the system's without it.
    pub(super) ca_file: Option<&'a Path>,
    /// Whether the certificate is verified at all.
    pub(super) verify: bool,
    /// Whether HTTP/2 is offered (ALPN).
    pub(super) http2: bool,
}

/// The client side's settings for one origin; its sessions are resumed by all workers. Reads files. `Err` says which
/// file is unusable and why, for the log.
pub(super) fn client_config(trust: &Trust<'_>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = if trust.verify {
        builder.with_root_certificates(roots(trust.ca_file)?).with_no_client_auth()
    } else {
        let any = ::trust::server_verifier(|_| Ok(()));
        builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
    };
    config.alpn_protocols = match trust.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, String> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let Some(path) = ca_file else {
        return Ok(SYSTEM.get_or_init(|| Arc::new(system_roots())).clone());
    };
    let unusable = |error: &dyn std::fmt::Display| format!("CA file {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"there is no certificate in it"));
    }
    Ok(Arc::new(roots))
}

/// What of the system's store can be read. Without any, each handshake fails with an unknown issuer.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
