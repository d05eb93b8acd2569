//! TLS towards servers outside of the cluster: whose certificates are believed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// The authorities in a file in PEM; without one, those of the system. Reads files. What of the system's cannot be read is passed over:
/// without any, each handshake fails with an unknown issuer.
///
/// # Errors
/// The file cannot be read, or something in it, or there is none in it: which, and why.
pub fn public_roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(roots) }
}

/// A client's side of TLS 1.2 and 1.3 that believes these authorities.
///
/// # Errors
/// Of the TLS library.
pub fn public_client(
    roots: impl Into<Arc<RootCertStore>>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_authorities_is_read_whole_or_refused() {
        let path = std::env::temp_dir().join(format!("perigee-roots-{}", std::process::id()));
        let one = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new(vec!["a.example".to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap()
                .pem()
        };
        fs::write(&path, one() + &one()).unwrap();
        assert_eq!(public_roots(Some(&path)).unwrap().len(), 2);
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, wanted) in [("", "there is no certificate in it"), (&*(one() + damaged), "")] {
            fs::write(&path, text).unwrap();
            let why = public_roots(Some(&path)).unwrap_err();
            assert!(why.starts_with(&*path.display().to_string()) && why.ends_with(wanted), "{why}");
        }
        fs::remove_file(&path).unwrap();
        assert!(public_roots(Some(&path)).is_err());
    }
}
