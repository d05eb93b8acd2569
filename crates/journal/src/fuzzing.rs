//! What must hold for any bytes that others send, as functions that panic when it does not. Compiled for fuzzing only
//! (`--cfg fuzzing`); the targets in `fuzz/` call it.

use rustls::pki_types::CertificateDer;

pub use crate::etcd::fuzzing::etcd_answer;
use crate::feed::{Down, Up};
use crate::following::{Following, Place};
use crate::{Digest, Mark};
use trust::{EnrolmentToken, Peer};

/// Lines of a feed, to a node and from one: a node's place goes back only where it distrusts what it has stored.
pub fn feed_lines(bytes: &[u8]) {
    let at = Mark { position: 4, digest: Digest::default() };
    let mut node = Following::new(Place { journal: Some("j".to_owned()), at, ..Place::default() });
    node.hello();
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = serde_json::from_slice::<Up>(line);
        let Ok(line) = serde_json::from_slice::<Down>(line) else { continue };
        let before = node.place().at.position;
        if let Ok(step) = node.take(vec![line]) {
            assert!(step.distrust.is_some() || step.place.at.position >= before);
            node.reached(step.place);
        }
    }
}

/// What shows who somebody is.
pub fn credentials(bytes: &[u8]) {
    let _ = Peer::of(&CertificateDer::from(bytes));
    if let Some(token) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<EnrolmentToken>().ok())
    {
        assert_eq!(token.to_string().parse::<EnrolmentToken>().as_ref(), Ok(&token));
    }
}
