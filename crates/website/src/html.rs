//! Text in pages of ours.

/// A text as a page may have it, between tags and in quoted attributes, whoever has written it. Control characters that are no
/// white space become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char if char.is_control() && !char.is_whitespace() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(
            escape("<a b=\"c\" d='e'>&\n\0ö"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\n\u{fffd}ö"
        );
    }
}
