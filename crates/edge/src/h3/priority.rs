//! Extensible priorities (RFC 9218): how urgent a response is to its visitor.

/// What a Priority field or a PRIORITY_UPDATE frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Priority {
    /// 0 is the most urgent, 7 the least.
    urgency: u8,
}

impl Default for Priority {
    fn default() -> Self {
        Priority { urgency: 3 }
    }
}

impl Priority {
    /// Whether it is for nobody who waits (§4.1: urgency 7).
    pub(crate) fn is_background(self) -> bool {
        self.urgency == 7
    }

    /// Reads a Priority field value: a dictionary, of which `u` is heeded. What can't be read is as if it were not there
    /// (§4). `i` is left aside: streams of one urgency share what can be sent in any case.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let members = text.split(|&byte| byte == b',').map(semantics::fields::trim);
        // §4 of RFC 9651: of a key that repeats, the last counts.
        let last = members.filter_map(|member| member.strip_prefix(b"u=")).next_back();
        match last {
            Some(&[urgency @ b'0'..=b'7']) => Priority { urgency: urgency - b'0' },
            _ => Priority::default(),
        }
    }

    /// As a QUIC sender orders streams: more goes first, 0 is usual.
    pub(crate) fn order(self) -> i32 {
        3 - i32::from(self.urgency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgency_is_read() {
        for (text, order) in [
            ("", 0),
            ("u=3", 0),
            ("u=0", 3),
            ("u=7, i", -4),
            ("i, u=1", 2),
            ("u=1,u=5", -2),
            ("u=8", 0),
            ("u=x", 0),
        ] {
            assert_eq!(Priority::parse(text.as_bytes()).order(), order, "{text}");
        }
    }
}
