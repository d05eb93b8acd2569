//! The opening handshake of WebSocket with an HTTP/1.1 origin (RFC 6455 §4.1) on behalf of visitors whose protocol does
//! without: over HTTP/2 and HTTP/3 they ask by CONNECT, and have neither key nor answer to it (RFC 8441 §5, RFC 9220 §3).
//! What a visitor of HTTP/1.1 and the origin agree on is theirs alone.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use semantics::Fields;

/// What the key is hashed with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One handshake of ours.
pub(crate) struct Handshake {
    key: String,
}

impl Handshake {
    /// With a nonce of 16 bytes. It guards no secret: it shows that the answer is to this request, and by one who knows
    /// WebSocket.
    pub(crate) fn begin() -> Self {
        let mut nonce = [0; 16];
        // A constant nonce, from a system without randomness, shows the same.
        let _ = aws_lc_rs::rand::fill(&mut nonce);
        Handshake { key: STANDARD.encode(nonce) }
    }

    /// Writes key and version. The visitor's own are not believed: version 13 is all there is (RFC 6455 §4.1).
    pub(crate) fn ask(&self, fields: &mut Fields) {
        let _ = fields.set("Sec-WebSocket-Key", self.key.as_bytes());
        let _ = fields.set("Sec-WebSocket-Version", "13");
    }

    /// Whether the fields of a 101 say that the origin speaks WebSocket from here on.
    pub(crate) fn is_accepted(&self, answer: &Fields) -> bool {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[self.key.as_bytes(), GUID].concat());
        answer.get("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
            && answer.get("sec-websocket-accept") == Some(STANDARD.encode(hash).as_bytes())
    }
}

/// Removes the origin's answer to the key, which no visitor of HTTP/2 has asked for.
pub(crate) fn forget_accept(answer: &mut Fields) {
    answer.remove("sec-websocket-accept");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_our_own_key_is_accepted() {
        // The example of RFC 6455 §1.3.
        let handshake = Handshake { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        let check = |upgrade: &str, accept: &str, expected| {
            let answer = [("Upgrade", upgrade), ("Sec-WebSocket-Accept", accept)].into_iter().collect();
            assert_eq!(handshake.is_accepted(&answer), expected, "{upgrade} {accept}");
        };
        check("WebSocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", true);
        check("h2c", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", false);
        check("websocket", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=", false);
        check("websocket", "", false);
        assert!(!handshake.is_accepted(&Fields::new()));
        assert_ne!(Handshake::begin().key, Handshake::begin().key);
    }
}
