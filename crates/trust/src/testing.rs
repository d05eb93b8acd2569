//! An authority for tests: of this crate, and of those that have nodes.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use crate::{Identity, Peer, Role};

/// An authority of a cluster.
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// With a key of its own.
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// With a certificate that ends so many days from now, 1,000 at most and less than none when it has ended.
    pub fn identity(&self, role: Role, name: &str, days: i64) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Peer::uri(role, name).try_into().expect("a URI"))];
        let day = Duration::from_secs(86_400);
        let end = SystemTime::now() + 1_000 * day - (1_000 - days) as u32 * day;
        params.not_before = (end - 200 * day).into();
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity::from_pem(&self.pem, &certificate.pem(), &key.serialize_pem()).expect("an identity")
    }
}
