//! OCSP (RFC 6960): what an authority says of one certificate, to be shown with it in handshakes (stapling, RFC 6066 §8).
//!
//! ```text
//! OCSPResponse ─► status, [0] ─► type, OCTET STRING ─► BasicOCSPResponse ─► ResponseData ─► SingleResponse per certificate
//!                                                                               CertID, status, thisUpdate, [0] nextUpdate
//! ```
//!
//! Read is what decides whether it is worth showing: for which certificate, what it says, until when. Its signature is
//! between the authority and the visitor, who has to check it anyway.

use std::time::Duration;

use aws_lc_rs::digest;
use semantics::Wall;
use x509_parser::asn1_rs::{Any, Class, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// How long one holds that names no end, which means that a newer one can always be had (RFC 6960 §2.4): as long as Firefox
/// takes it for.
const WITHOUT_END: Duration = Duration::from_secs(86_400);

/// Most bytes of a responder's answer. Real ones have 0.5 to 4 KiB; each full handshake carries it.
pub const STAPLE_BYTES_MAX: usize = 16 * 1024;

/// An authority's word that a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staple {
    /// From when on it holds.
    pub this_update: Wall,
    /// Until when it does: it is shown no longer.
    pub next_update: Wall,
    pub(super) der: Vec<u8>,
}

impl Staple {
    /// Takes a responder's answer for the certificate with this serial number.
    ///
    /// # Errors
    /// A sentence part that follows the name of its source: it is no successful answer, is not about this certificate, or
    /// says something else than that it is good.
    pub fn read(der: &[u8], serial: &[u8]) -> Result<Staple, String> {
        if der.len() > STAPLE_BYTES_MAX {
            return Err(format!("has {} bytes; wanted are at most {STAPLE_BYTES_MAX}", der.len()));
        }
        let unreadable = || "is no answer of an OCSP responder, as DER (RFC 6960 §4.2.1)".to_owned();
        let status = Parts::of(der).and_then(|mut outer| outer.sequence()?.take(Tag::Enumerated));
        match status.ok_or_else(unreadable)? {
            [0] => {}
            // RFC 6960 §4.2.1, OCSPResponseStatus.
            [1] => return Err("says that the question was malformed".to_owned()),
            [2] => return Err("says that the responder has failed".to_owned()),
            [3] => return Err("says that the responder wants to be asked later".to_owned()),
            [5] => return Err("says that the question would have to be signed".to_owned()),
            [6] => return Err("says that the responder does not answer this question".to_owned()),
            _ => return Err(unreadable()),
        }
        let mut answers = answers(der).ok_or_else(unreadable)?;
        while !answers.0.is_empty() {
            let one = answers.sequence().and_then(Single::read).ok_or_else(unreadable)?;
            if without_zeros(one.serial) != without_zeros(serial) {
                continue;
            }
            if one.status != GOOD {
                let word = if one.status == REVOKED { "has been revoked" } else { "is not known there" };
                return Err(format!("says that the certificate {word}"));
            }
            let next_update = one.next_update.unwrap_or_else(|| after(one.this_update, WITHOUT_END));
            return Ok(Staple { this_update: one.this_update, next_update, der: der.to_vec() });
        }
        Err("is about another certificate".to_owned())
    }

    /// The bytes, as a responder has sent them.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether it holds.
    pub fn is_fresh(&self, now: Wall) -> bool {
        now < self.next_update
    }

    /// The middle of its life: time for a new one.
    pub fn half_life(&self) -> Wall {
        let life = self.next_update.0.saturating_sub(self.this_update.0);
        Wall(self.this_update.0.saturating_add(life / 2))
    }
}

fn after(moment: Wall, span: Duration) -> Wall {
    Wall(moment.0.saturating_add(span.as_millis() as i64))
}

/// Serial numbers are compared as numbers.
fn without_zeros(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// The answers in a response.
fn answers(der: &[u8]) -> Option<Parts<'_>> {
    let mut response = Parts::of(der)?.sequence()?;
    response.take(Tag::Enumerated)?;
    let mut bytes = response.explicit(0)?.sequence()?;
    bytes.take(Tag::Oid)?;
    let mut basic = Parts::of(bytes.take(Tag::OctetString)?)?.sequence()?;
    let mut data = basic.sequence()?;
    let mut first = data.any()?;
    if (first.class(), first.tag()) == (Class::ContextSpecific, Tag(0)) {
        // The version, then the responder's id.
        first = data.any()?;
    }
    if first.class() != Class::ContextSpecific {
        return None;
    }
    data.take(Tag::GeneralizedTime)?;
    data.sequence()
}

/// What is said of one certificate.
struct Single<'a> {
    serial: &'a [u8],
    status: Tag,
    this_update: Wall,
    next_update: Option<Wall>,
}

/// RFC 6960 §4.2.1, CertStatus.
const GOOD: Tag = Tag(0);
const REVOKED: Tag = Tag(1);

impl<'a> Single<'a> {
    fn read(mut parts: Parts<'a>) -> Option<Single<'a>> {
        let mut certificate = parts.sequence()?;
        certificate.sequence()?;
        certificate.take(Tag::OctetString)?;
        certificate.take(Tag::OctetString)?;
        let serial = certificate.take(Tag::Integer)?;
        let status = parts.any()?;
        if status.class() != Class::ContextSpecific {
            return None;
        }
        let this_update = parts.time()?;
        let next_update = match parts.0.is_empty() {
            true => None,
            false => match parts.any()? {
                next if (next.class(), next.tag()) == (Class::ContextSpecific, Tag(0)) => {
                    Some(Parts(next.data).time()?)
                }
                _ => None,
            },
        };
        Some(Single { serial, status: status.tag(), this_update, next_update })
    }
}

/// What is left of the content of a DER value.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// Of bytes that are one value and nothing else.
    fn of(der: &'a [u8]) -> Option<Self> {
        let (rest, _) = Any::from_der(der).ok()?;
        rest.is_empty().then_some(Parts(der))
    }

    fn any(&mut self) -> Option<Any<'a>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(any)
    }

    fn take(&mut self, tag: Tag) -> Option<&'a [u8]> {
        let any = self.any()?;
        ((any.class(), any.tag()) == (Class::Universal, tag)).then_some(any.data)
    }

    fn sequence(&mut self) -> Option<Parts<'a>> {
        self.take(Tag::Sequence).map(Parts)
    }

    fn explicit(&mut self, number: u32) -> Option<Parts<'a>> {
        let any = self.any()?;
        ((any.class(), any.tag()) == (Class::ContextSpecific, Tag(number))).then_some(Parts(any.data))
    }

    fn time(&mut self) -> Option<Wall> {
        let (rest, time) = ASN1Time::from_der(self.0).ok()?;
        self.0 = rest;
        Some(Wall(time.timestamp().saturating_mul(1000)))
    }
}

// --- Asking ---

/// Whom to ask about a certificate, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responder {
    /// An `http://` URL.
    pub url: Box<str>,
    /// An OCSPRequest (RFC 6960 §4.1.1), to be posted as `application/ocsp-request`.
    pub request: Vec<u8>,
}

impl Responder {
    /// The one that a certificate names (RFC 5280 §4.2.2.1), which `issuer` has issued; `None` when it names none.
    pub(super) fn of(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Option<Responder> {
        let url =
            certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(access) => access.iter().find_map(|access| {
                    let GeneralName::URI(url) = access.access_location else { return None };
                    (access.access_method.to_id_string() == OCSP && url.starts_with("http://")).then_some(url)
                }),
                _ => None,
            })?;
        let request = request(certificate, issuer)?;
        Some(Responder { url: url.into(), request })
    }
}

/// The access method of responders (RFC 5280 §4.2.2.1).
const OCSP: &str = "1.3.6.1.5.5.7.48.1";

/// SHA-1 as an AlgorithmIdentifier: what every responder knows, and a hash that keeps no secret here (RFC 5019 §2.1.1).
const SHA1: [u8; 11] = [0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];

fn request(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let hash = |bytes: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let mut id = SHA1.to_vec();
    id.extend(value(0x04, hash(certificate.issuer().as_raw()).as_ref())?);
    id.extend(value(0x04, hash(&issuer.public_key().subject_public_key.data).as_ref())?);
    id.extend(value(0x02, certificate.raw_serial())?);
    // CertID, Request, requestList, TBSRequest, OCSPRequest.
    (0..5).try_fold(id, |inner, _| value(0x30, &inner))
}

/// A DER value; `None` when it is longer than any that is needed here (a serial number has at most 20 bytes).
fn value(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80)?;
    Some([&[tag, length], content].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer by its parts, as a responder would make it.
    pub(super) fn answer(serial: &[u8], status: &[u8], times: &[u8]) -> Vec<u8> {
        let value = |tag, content: &[u8]| long_value(tag, content);
        let mut id = SHA1.to_vec();
        id.extend(value(0x04, &[1; 20]));
        id.extend(value(0x04, &[2; 20]));
        id.extend(value(0x02, serial));
        let single = value(0x30, &[&value(0x30, &id), status, times].concat());
        let produced = value(0x18, b"20270101000000Z");
        let data =
            value(0x30, &[value(0xa2, &value(0x04, &[3; 20])), produced, value(0x30, &single)].concat());
        let basic = value(0x30, &[data, SHA1.to_vec(), value(0x03, &[0; 65])].concat());
        // id-pkix-ocsp-basic.
        let kind = value(0x06, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]);
        let bytes = value(0x30, &[kind, value(0x04, &basic)].concat());
        value(0x30, &[value(0x0a, &[0]), value(0xa0, &bytes)].concat())
    }

    fn long_value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        match length {
            0..0x80 => [&[tag, length as u8], content].concat(),
            _ => [&[tag, 0x82, (length >> 8) as u8, length as u8], content].concat(),
        }
    }

    const GOOD: &[u8] = &[0x80, 0];

    fn times(this: &str, next: Option<&str>) -> Vec<u8> {
        let next = next.map(|next| long_value(0xa0, &long_value(0x18, next.as_bytes())));
        [long_value(0x18, this.as_bytes()), next.unwrap_or_default()].concat()
    }

    #[test]
    fn an_answer_holds_until_its_next_update_and_is_renewed_at_half_of_its_life() {
        let der = answer(&[0, 0x9c, 7], GOOD, &times("20270101000000Z", Some("20270111000000Z")));
        let staple = Staple::read(&der, &[0x9c, 7]).unwrap();
        let day = 86_400_000;
        let begin = 1_798_761_600_000;
        assert_eq!((staple.this_update, staple.next_update), (Wall(begin), Wall(begin + 10 * day)));
        assert_eq!(staple.half_life(), Wall(begin + 5 * day));
        assert!(staple.is_fresh(Wall(begin + 10 * day - 1)) && !staple.is_fresh(Wall(begin + 10 * day)));
        let endless = Staple::read(&answer(&[5], GOOD, &times("20270101000000Z", None)), &[5]).unwrap();
        assert_eq!(endless.next_update, Wall(begin + day));
    }

    #[test]
    fn what_does_not_say_good_of_this_certificate_is_refused_with_a_reason() {
        let times = times("20270101000000Z", Some("20270111000000Z"));
        let check = |der: &[u8], wanted: &str| {
            let refused = Staple::read(der, &[5]).unwrap_err();
            assert!(refused.contains(wanted), "{refused}");
        };
        check(&answer(&[6], GOOD, &times), "another certificate");
        let revoked = long_value(0xa1, &long_value(0x18, b"20261231000000Z"));
        check(&answer(&[5], &revoked, &times), "revoked");
        check(&answer(&[5], &[0x82, 0], &times), "not known");
        for (status, word) in
            [(1, "malformed"), (2, "failed"), (3, "later"), (5, "signed"), (6, "does not answer")]
        {
            check(&[0x30, 3, 0x0a, 1, status], word);
        }
        let whole = answer(&[5], GOOD, &times);
        for cut in 0..whole.len() {
            check(&whole[..cut], "no answer of an OCSP responder");
        }
        check(&[&whole[..], &[0]].concat(), "no answer of an OCSP responder");
        check(&[0x30, 3, 0x0a, 1, 0], "no answer of an OCSP responder");
        check(b"-----BEGIN OCSP RESPONSE-----", "no answer of an OCSP responder");
        check(&vec![0; STAPLE_BYTES_MAX + 1], "at most");
    }

    #[test]
    fn a_question_names_the_certificate_by_its_issuer_and_number() {
        let certificate = |names: &str, extensions: Vec<rcgen::CustomExtension>| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut wanted = rcgen::CertificateParams::new([names.to_owned()]).unwrap();
            wanted.serial_number = Some(rcgen::SerialNumber::from(vec![0x9c, 7]));
            wanted.custom_extensions = extensions;
            wanted.self_signed(&key).unwrap().der().to_vec()
        };
        let access = [
            &[0x30, 0x1e, 0x30, 0x1c, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 0x86, 0x10][..],
            b"http://ocsp.test",
        ]
        .concat();
        let access = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access);
        let (with, without) = (certificate("a.example", vec![access]), certificate("b.example", Vec::new()));
        let (_, with) = X509Certificate::from_der(&with).unwrap();
        let (_, without) = X509Certificate::from_der(&without).unwrap();
        assert_eq!(Responder::of(&without, &with), None);
        let Responder { url, request } = Responder::of(&with, &without).unwrap();
        assert_eq!(&*url, "http://ocsp.test");
        let mut id = Parts::of(&request).unwrap();
        for _ in 0..5 {
            id = id.sequence().unwrap();
        }
        assert_eq!(id.sequence().unwrap().0, &SHA1[2..]);
        let hash = |bytes: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
        assert_eq!(id.take(Tag::OctetString).unwrap(), hash(with.issuer().as_raw()));
        assert_eq!(id.take(Tag::OctetString).unwrap(), hash(&without.public_key().subject_public_key.data));
        assert_eq!(without_zeros(id.take(Tag::Integer).unwrap()), [0x9c, 7]);
    }
}
