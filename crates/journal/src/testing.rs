//! What tests of this crate share.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

use crate::trust::{Identity, Peer, Role};

/// An authority of a cluster.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// With a certificate that ends so many days from now.
    pub(crate) fn identity(&self, role: Role, name: &str, days: i64) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Peer::uri(role, name).try_into().unwrap())];
        let end = SystemTime::now()
            .checked_add(Duration::from_secs(1_000 * 86_400))
            .and_then(|time| time.checked_sub(Duration::from_secs((1_000 - days) as u64 * 86_400)))
            .unwrap();
        params.not_before = (end - Duration::from_secs(200 * 86_400)).into();
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(&self.pem, &certificate.pem(), &key.serialize_pem()).unwrap()
    }
}
