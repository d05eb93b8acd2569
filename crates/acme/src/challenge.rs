//! The certificate by which TLS-ALPN-01 is answered (RFC 8737 §3): for the domain, signed by itself, with the hash of the
//! key authorization in an extension.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use crate::store::Asked;

/// What an edge answers an authority with.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Whose ownership is shown.
    pub domain: Box<str>,
    /// The last segment of the path that HTTP-01 asks for (RFC 8555 §8.3).
    pub token: Box<str>,
    /// What is answered there.
    pub key_authorization: Box<str>,
    /// The certificate for TLS-ALPN-01 and its key, as PEM.
    pub certificate: (String, String),
}

impl Challenge {
    /// The answer to what is asked.
    pub(crate) fn of(asked: &Asked) -> Result<Challenge, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut wanted = CertificateParams::new([asked.domain.to_string()])?;
        wanted.distinguished_name = DistinguishedName::new();
        let hash = digest(&SHA256, asked.key_authorization.as_bytes());
        wanted.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
        let certificate = wanted.self_signed(&key)?;
        Ok(Challenge {
            domain: asked.domain.clone(),
            token: asked.token.clone(),
            key_authorization: asked.key_authorization.clone(),
            certificate: (certificate.pem(), key.serialize_pem()),
        })
    }
}
