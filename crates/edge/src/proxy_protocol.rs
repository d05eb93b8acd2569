//! The PROXY protocol header that a load balancer puts before a connection: versions 1 and 2 of
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>. Only the visitor's address is taken; TLVs are skipped.
//! Not supported: Unix sockets (read as "no address").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The signature that starts version 2 (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest version 1 line, with CRLF (§2.1).
const LINE_MAX: usize = 107;

/// Longest version 2 address block that is accepted; TLVs need more than the addresses' 36 bytes.
const BLOCK_MAX: usize = 2048;

/// What the start of a connection says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not all of the header is there.
    More,
    /// The header is the first `length` bytes. `client` is `None` for health checks (LOCAL, UNKNOWN).
    Header { length: usize, client: Option<IpAddr> },
}

/// The connection does not start with a PROXY header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadHeader;

/// Reads the header at the start of `bytes`. Never allocates.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return if common < SIGNATURE.len() { Ok(Parsed::More) } else { parse_binary(bytes) };
    }
    parse_line(bytes)
}

fn parse_line(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let common = bytes.len().min(6);
    if bytes[..common] != b"PROXY "[..common] {
        return Err(BadHeader);
    }
    let Some(lf) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_MAX)]) else {
        return if bytes.len() >= LINE_MAX { Err(BadHeader) } else { Ok(Parsed::More) };
    };
    let line = std::str::from_utf8(&bytes[..lf]).map_err(|_| BadHeader)?;
    let line = line.strip_suffix('\r').ok_or(BadHeader)?;
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(IpAddr::V4(words.next().and_then(|word| word.parse().ok()).ok_or(BadHeader)?)),
        Some("TCP6") => Some(IpAddr::V6(words.next().and_then(|word| word.parse().ok()).ok_or(BadHeader)?)),
        _ => return Err(BadHeader),
    };
    if client.is_some() {
        let is_address = words.next().is_some_and(|word| word.parse::<IpAddr>().is_ok());
        let ports = words.by_ref().take(2).filter(|word| word.parse::<u16>().is_ok()).count();
        if !is_address || ports != 2 || words.next().is_some() {
            return Err(BadHeader);
        }
    }
    Ok(Parsed::Header { length: lf + 1, client })
}

fn parse_binary(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let Some(&[version_command, family, high, low]) = bytes.get(12..16) else { return Ok(Parsed::More) };
    let block_len = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || block_len > BLOCK_MAX {
        return Err(BadHeader);
    }
    let Some(block) = bytes.get(16..16 + block_len) else { return Ok(Parsed::More) };
    let client = match (version_command & 15, family) {
        (0, _) => None,
        (1, 0x11) => {
            let octets: [u8; 4] =
                block.get(..12).and_then(|block| block[..4].try_into().ok()).ok_or(BadHeader)?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        (1, 0x21) => {
            let octets: [u8; 16] =
                block.get(..36).and_then(|block| block[..16].try_into().ok()).ok_or(BadHeader)?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        (1, 0x00 | 0x31 | 0x32) => None,
        _ => return Err(BadHeader),
    };
    Ok(Parsed::Header { length: 16 + block_len, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    #[test]
    fn both_versions_name_the_visitor() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80, 9, 9, 9];
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\n".to_vec(), Some("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 ::1 8080 80\r\n".to_vec(), Some("2001:db8::1")),
            (b"PROXY UNKNOWN whatever\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some("192.0.2.1")),
            (binary(0x20, 0, &[]), None),
        ] {
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(parse(&bytes), Ok(Parsed::Header { length: bytes.len(), client }));
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(Parsed::More), "{end} of {bytes:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 nonsense 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 8080\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n",
            b"PROXY TCP4 192.0.2.1 nonsense 8080 80\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 4]),
            &binary(0x21, 0x77, &[0; 40]),
            &[b'P'; 200],
        ] {
            assert_eq!(parse(bytes), Err(BadHeader), "{bytes:?}");
        }
    }
}
