//! TLS towards origins: which roots are trusted, and what is verified. Certificates are verified unless an origin's
//! configuration says otherwise by name.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
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
    // Those of the system are read once.
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let (None, Some(roots)) = (ca_file, SYSTEM.get()) {
        return Ok(roots.clone());
    }
    let roots = Arc::new(::trust::public_roots(ca_file).map_err(|why| format!("CA file {why}"))?);
    if ca_file.is_none() {
        let _ = SYSTEM.set(roots.clone());
    }
    Ok(roots)
}
