//! Where a request stands in a trace, as `traceparent` says it (W3C Trace Context, Recommendation of 2021-11-23, §3.2).
//!
//! ```text
//! version - trace-id                         - parent-id        - flags
//!      00 - 0af7651916cd43dd8448eb211c80319c - b7ad6b7169203331 - 01
//! ```
//!
//! `tracestate` is not looked at: it goes on as it came, with a `traceparent` that is continued, and is taken off with one that is not.

use crate::fields;

/// The name of the field.
pub const TRACEPARENT: &str = "traceparent";
/// What goes with it.
pub const TRACESTATE: &str = "tracestate";

/// The flag that says that the caller may have recorded its part (§3.2.2.5).
const SAMPLED: u8 = 0x01;

/// Bytes of version 00.
const LENGTH: usize = 55;

/// A value of `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The whole trace; never 0.
    pub trace_id: u128,
    /// The caller's part; never 0.
    pub parent_id: u64,
    /// Whether the caller may have recorded its part.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads a value. `None` for one that is malformed, has an id of zeros, or is of version ff; a trace begins anew then (§3.2.2).
    ///
    /// A version above 00 is read as 00, as far as that goes (§3.2.4): what is behind begins with `-`. Upper-case digits are no digits.
    /// Never allocates.
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let [version, trace_id, parent_id, flags] =
            [(0, 2), (3, 35), (36, 52), (53, LENGTH)].map(|(start, end)| value.get(start..end));
        if [2, 35, 52].iter().any(|dash| value.get(*dash) != Some(&b'-')) {
            return None;
        }
        let version = hex(version?)?;
        match (version, value.get(LENGTH)) {
            (0xff, _) | (0, Some(_)) => return None,
            (_, Some(byte)) if *byte != b'-' => return None,
            _ => {}
        }
        let (trace_id, parent_id) = (hex(trace_id?)?, hex(parent_id?)? as u64);
        let is_sampled = hex(flags?)? as u8 & SAMPLED != 0;
        (trace_id != 0 && parent_id != 0).then_some(TraceParent { trace_id, parent_id, is_sampled })
    }

    /// Writes a value, in version 00.
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        text[..2].copy_from_slice(&fields::hex::<2>(0));
        text[3..35].copy_from_slice(&fields::hex::<32>(self.trace_id));
        text[36..52].copy_from_slice(&fields::hex::<16>(self.parent_id.into()));
        text[53..].copy_from_slice(&fields::hex::<2>(self.is_sampled.into()));
        text
    }
}

/// At most 32 digits, so that it fits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_or_begins_anew() {
        let check = |value: &str, wanted: Option<bool>| {
            let read = TraceParent::parse(value.as_bytes());
            assert_eq!(read.map(|parent| parent.is_sampled), wanted, "{value:?}");
            if let Some(parent) = read {
                assert_eq!(parent.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
                assert_eq!(parent.parent_id, 0xb7ad_6b71_6920_3331);
            }
        };
        check(GOOD, Some(true));
        check(&GOOD.replace("-01", "-00"), Some(false));
        check(&GOOD.replace("-01", "-03"), Some(true));
        check(&GOOD.replace("-01", "-fe"), Some(false));
        // Of a later version: with and without more.
        check(&GOOD.replacen("00", "01", 1), Some(true));
        check(&GOOD.replacen("00", "cc", 1), Some(true));
        check(&format!("{}-what-comes", GOOD.replacen("00", "01", 1)), Some(true));
        check(&format!("{}.what", GOOD.replacen("00", "01", 1)), None);
        // Forbidden or malformed.
        check(&GOOD.replacen("00", "ff", 1), None);
        check(&format!("{GOOD}-more"), None);
        check(&format!("{GOOD} "), None);
        check(&format!(" {GOOD}"), None);
        check(&GOOD[..54], None);
        check("", None);
        check("00-", None);
        check(&GOOD.to_uppercase(), None);
        check(&GOOD.replace("0af7", "0Af7"), None);
        check(&GOOD.replace("0af7", "0xf7"), None);
        check(&GOOD.replace('-', "_"), None);
        check(&GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), None);
        check(&GOOD.replace("b7ad6b7169203331", &"0".repeat(16)), None);
        check(&GOOD.replace("-01", "-0g"), None);
        check(&GOOD.replace("-01", "-1"), None);
        check(&"0".repeat(100_000), None);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-\u{e9}", None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id in 1u128.., parent_id in 1u64.., is_sampled: bool) {
            let parent = TraceParent { trace_id, parent_id, is_sampled };
            prop_assert_eq!(TraceParent::parse(&parent.text()), Some(parent));
        }

        #[test]
        fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(parent) = TraceParent::parse(&bytes) {
                prop_assert_eq!(TraceParent::parse(&parent.text()), Some(parent));
            }
        }
    }
}
