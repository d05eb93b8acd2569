//! Where the URLs of a `srcset` are (HTML, "parsing a srcset attribute"): a URL ends at a blank and may have commas in it.

use std::ops::Range;

/// The URLs of the candidates, in order.
pub(super) fn candidates(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    let is_blank = |byte: u8| byte.is_ascii_whitespace();
    loop {
        at += text[at..].iter().take_while(|byte| is_blank(**byte) || **byte == b',').count();
        if at == text.len() {
            return found;
        }
        let start = at;
        at += text[at..].iter().take_while(|byte| !is_blank(**byte)).count();
        let commas = text[start..at].iter().rev().take_while(|byte| **byte == b',').count();
        found.push(start..at - commas);
        if commas > 0 {
            continue;
        }
        // Descriptors, up to a comma that is in no parentheses.
        let mut depth = 0_u32;
        while let Some(byte) = text.get(at) {
            at += 1;
            match byte {
                b'(' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                b',' if depth == 0 => break,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn a_url_ends_at_a_blank_and_may_have_commas() {
        for (text, urls) in [
            ("/a.png", vec!["/a.png"]),
            (" /a.png 1x, /b.png 2x ", vec!["/a.png", "/b.png"]),
            ("/a.png,/b.png", vec!["/a.png,/b.png"]),
            ("/a.png, /b.png", vec!["/a.png", "/b.png"]),
            ("/w=1,q=2/a.png 480w,/w=2,q=2/a.png 800w", vec!["/w=1,q=2/a.png", "/w=2,q=2/a.png"]),
            ("/a.png (1x, 2x) , /b.png", vec!["/a.png", "/b.png"]),
            ("data:image/png;base64,AA 1x, /b.png 2x", vec!["data:image/png;base64,AA", "/b.png"]),
            (",, /a.png,,", vec!["/a.png"]),
            ("", vec![]),
        ] {
            let found: Vec<_> = candidates(text.as_bytes()).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, urls, "{text}");
        }
    }
}
