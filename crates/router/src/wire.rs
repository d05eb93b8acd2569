//! Queries of DNS as they come, and the few pieces of answers (RFC 1035, 6891, 7871, 7873).
//!
//! A query that is read has one question, in the form in which it is echoed, and what its OPT record says. Nothing here
//! allocates. What is not a query, or not one that can be answered, says what it gets instead ([`Bad`]).
//!
//! Not read: names that are compressed in the question (RFC 1035 doesn't forbid it, nobody does it), several questions, updates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name on the wire, with its lengths and the root.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a plain answer by UDP; more takes EDNS.
pub const UDP_BYTES_PLAIN: usize = 512;
/// Bytes of any answer by UDP: what passes everywhere without fragments (DNS flag day 2020).
pub const UDP_BYTES_MAX: usize = 1232;
/// Records behind the question that are looked at; a query has one, and maybe a signature.
const ADDITIONAL_MAX: u16 = 4;

/// Types by number.
pub mod rtype {
    #![allow(missing_docs, reason = "the names of RFC 1035 and its successors")]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const HINFO: u16 = 13;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const NSEC3: u16 = 50;
    pub const NSEC3PARAM: u16 = 51;
    pub const CDS: u16 = 59;
    pub const CDNSKEY: u16 = 60;
    pub const HTTPS: u16 = 65;
    pub const NXNAME: u16 = 128;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
    pub const CAA: u16 = 257;
}

/// Response codes.
pub mod rcode {
    #![allow(missing_docs, reason = "the names of RFC 1035 and its successors")]
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BADVERS: u16 = 16;
}

/// A name in lower case, as it is looked up.
#[derive(Clone, Copy)]
pub struct LowerName {
    bytes: [u8; NAME_BYTES_MAX],
    length: u8,
}

impl LowerName {
    /// Its bytes: lengths and labels, with the root at the end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A query that can be answered.
pub struct Query<'q> {
    /// Its first two bytes.
    pub id: [u8; 2],
    /// Whether recursion is desired: echoed.
    pub rd: bool,
    /// The question as it came: name, type, class.
    pub question: &'q [u8],
    /// The name in lower case.
    pub name: LowerName,
    /// What is asked for.
    pub rtype: u16,
    /// In which class; 1 is the internet.
    pub class: u16,
    /// What OPT says, if there is one.
    pub edns: Option<Edns<'q>>,
}

/// What OPT says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edns<'q> {
    /// Bytes that the asker can take by UDP.
    pub udp_bytes: u16,
    /// Its version; only 0 is known.
    pub version: u8,
    /// Whether signatures are wanted.
    pub dnssec_ok: bool,
    /// Whether a compact denial with its true code is understood (RFC 9824 §5.1).
    pub compact_ok: bool,
    /// The client's network, and the option as it came.
    pub subnet: Option<Subnet<'q>>,
    /// The client's cookie, and ours if there is one.
    pub cookie: Option<(&'q [u8], &'q [u8])>,
    /// Whether the server is to tell its name.
    pub nsid: bool,
}

/// A client's network (RFC 7871 §6).
#[derive(Clone, Copy, Debug)]
pub struct Subnet<'q> {
    /// The content of the option: echoed, with another scope.
    pub option: &'q [u8],
    /// The address; bits behind the prefix are zero. `None` for a network of no family, which is allowed with no bits.
    pub address: Option<IpAddr>,
    /// How many bits of it are known.
    pub bits: u8,
}

/// What something that is no good query gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Nothing: it is too short, or an answer itself.
    Drop,
    /// A header with this code.
    Refuse(u16),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a query.
pub fn read(bytes: &[u8]) -> Result<Query<'_>, Bad> {
    let header: &[u8; 12] = bytes.first_chunk().ok_or(Bad::Drop)?;
    if header[2] & 0x80 != 0 {
        return Err(Bad::Drop);
    }
    if (header[2] >> 3) & 0x0f != 0 {
        return Err(Bad::Refuse(rcode::NOTIMP));
    }
    const FORMERR: Bad = Bad::Refuse(rcode::FORMERR);
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > ADDITIONAL_MAX {
        return Err(FORMERR);
    }
    let mut name = LowerName { bytes: [0; NAME_BYTES_MAX], length: 0 };
    let mut at = 12;
    loop {
        let length = usize::from(*bytes.get(at).ok_or(FORMERR)?);
        let to = at - 12;
        if length > 63 || to + length + 1 > NAME_BYTES_MAX {
            return Err(FORMERR);
        }
        let label = bytes.get(at..=at + length).ok_or(FORMERR)?;
        let lower = &mut name.bytes[to..=to + length];
        lower.copy_from_slice(label);
        lower.make_ascii_lowercase();
        // A length is below the letters, so that lowering it changes nothing.
        at += length + 1;
        if length == 0 {
            break;
        }
    }
    name.length = (at - 12) as u8;
    let (rtype, class) = (u16_at(bytes, at).ok_or(FORMERR)?, u16_at(bytes, at + 2).ok_or(FORMERR)?);
    // It stands in denials alone (RFC 9824 §3.5).
    if rtype == rtype::NXNAME {
        return Err(FORMERR);
    }
    let question = &bytes[12..at + 4];
    at += 4;
    let mut edns = None;
    for _ in 0..count(10) {
        let owner_at = at;
        at = skip_name(bytes, at).ok_or(FORMERR)?;
        let kind = u16_at(bytes, at).ok_or(FORMERR)?;
        let length = usize::from(u16_at(bytes, at + 8).ok_or(FORMERR)?);
        let data = bytes.get(at + 10..at + 10 + length).ok_or(FORMERR)?;
        if kind == rtype::OPT {
            if edns.is_some() || bytes[owner_at] != 0 {
                return Err(FORMERR);
            }
            let mut opt = Edns {
                udp_bytes: u16_at(bytes, at + 2).ok_or(FORMERR)?,
                version: bytes[at + 5],
                dnssec_ok: bytes[at + 6] & 0x80 != 0,
                compact_ok: bytes[at + 6] & 0x40 != 0,
                ..Edns::default()
            };
            // What a later version says is not ours to read.
            if opt.version == 0 {
                read_options(data, &mut opt).ok_or(FORMERR)?;
            }
            edns = Some(opt);
        }
        at += 10 + length;
    }
    let rd = header[2] & 0x01 != 0;
    Ok(Query { id: [header[0], header[1]], rd, question, name, rtype, class, edns })
}

/// The end of a name that may be compressed.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn read_options<'q>(mut data: &'q [u8], opt: &mut Edns<'q>) -> Option<()> {
    while !data.is_empty() {
        let (code, length) = (u16_at(data, 0)?, usize::from(u16_at(data, 2)?));
        let option = data.get(4..4 + length)?;
        match code {
            3 => opt.nsid = true,
            8 if opt.subnet.is_none() => opt.subnet = Some(read_subnet(option)?),
            10 => {
                // Ours has 8 to 32 bytes (RFC 7873 §4).
                let (client, server) = option.split_at_checked(8)?;
                opt.cookie =
                    (server.is_empty() || (8..=32).contains(&server.len())).then_some((client, server));
                opt.cookie?;
            }
            _ => {}
        }
        data = &data[4 + length..];
    }
    Some(())
}

/// Refuses what RFC 7871 §6 and §7.1.2 don't allow: a scope in a query, more bytes than the prefix has, bits behind it. Also IPv4's networks
/// that are mapped into IPv6, of which the scope would be neither family's.
fn read_subnet(option: &[u8]) -> Option<Subnet<'_>> {
    let (&[high, low, bits, scope], address) = option.split_first_chunk()?;
    if scope != 0 || address.len() != usize::from(bits).div_ceil(8) {
        return None;
    }
    if !bits.is_multiple_of(8) && *address.last()? & (0xff >> (bits % 8)) != 0 {
        return None;
    }
    let mut whole = [0; 16];
    whole.get_mut(..address.len())?.copy_from_slice(address);
    let v6 = Ipv6Addr::from(whole);
    let address = match u16::from_be_bytes([high, low]) {
        0 if bits == 0 => None,
        1 if bits <= 32 => Some(Ipv4Addr::from(*whole.first_chunk()?).into()),
        2 if bits <= 128 && v6.to_ipv4_mapped().is_none() => Some(v6.into()),
        _ => return None,
    };
    Some(Subnet { option, address, bits })
}

/// A record whose owner is the question's name, or any other that `owner` writes.
pub fn write_record(out: &mut Vec<u8>, owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) {
    out.extend_from_slice(owner);
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// A pointer to the question's name.
pub const QUESTION_NAME: [u8; 2] = [0xc0, 12];

/// A domain as text, on the wire. `None` when a label has more than 63 bytes or the whole more than 255.
pub fn name_of(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len() + 2);
    for label in text.split('.').filter(|_| !text.is_empty()) {
        if !(1..=63).contains(&label.len()) {
            return None;
        }
        name.push(label.len() as u8);
        name.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    name.push(0);
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

/// Labels of a name on the wire, without the root.
pub fn label_count(name: &[u8]) -> u8 {
    let (mut at, mut count) = (0, 0);
    while let Some(length) = name.get(at).filter(|length| **length != 0) {
        at += usize::from(*length) + 1;
        count += 1;
    }
    count
}

/// The name without its first label; `None` at the root.
pub fn parent(name: &[u8]) -> Option<&[u8]> {
    match *name.first()? {
        0 => None,
        length => name.get(usize::from(length) + 1..),
    }
}
