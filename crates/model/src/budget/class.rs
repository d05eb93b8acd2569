//! Who comes first when an origin's budget is short: what nobody can ask for again, then pages, images and the rest; and in all of
//! these who has nothing before who has something stale.
//!
//! What browsers say of what they ask for (Sec-Fetch-Dest, Fetch Metadata §2.1) decides; without it what is stored under the key,
//! and without that what is accepted (RFC 9110 §12.5.1).

use semantics::Fields;

/// The order in which requests are let through: the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Whether nobody waits for it who has nothing to look at: a validation of something that may be served stale meanwhile,
    /// or a warm-up.
    pub is_background: bool,
    /// What is asked for.
    pub content: Content,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// It changes something (RFC 9110 §9.2.1): an order, a login.
    Action,
    /// A page, or a part of one that is a page itself.
    Page,
    /// An image.
    Image,
    /// Styles, scripts, fonts, data, media.
    Rest,
}

impl Content {
    /// All, the first first.
    pub const ALL: [Content; 4] = [Content::Action, Content::Page, Content::Image, Content::Rest];

    /// The stable text form, for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Content::Action => "action",
            Content::Page => "page",
            Content::Image => "image",
            Content::Rest => "rest",
        }
    }

    /// What is asked for.
    ///
    /// - `is_safe`: whether the method is.
    /// - `request`: the request's fields.
    /// - `stored_type`: the Content-Type of what is stored under the key.
    ///
    /// Never fails: what cannot be read is the rest.
    pub fn of(is_safe: bool, request: &Fields, stored_type: Option<&[u8]>) -> Content {
        if !is_safe {
            return Content::Action;
        }
        match request.get("sec-fetch-dest").map(<[u8]>::trim_ascii) {
            Some(b"document" | b"iframe" | b"frame" | b"embed" | b"object" | b"fencedframe") => Content::Page,
            Some(b"image") => Content::Image,
            // A script's own request says no more than that.
            Some(dest) if dest != b"empty" => Content::Rest,
            _ => match stored_type.or_else(|| request.get("accept")) {
                Some(types) => Content::of_types(types),
                None => Content::Rest,
            },
        }
    }

    /// By the first media type of a list; what comes after it is what its sender would take too.
    fn of_types(types: &[u8]) -> Content {
        let first = types.split(|byte| matches!(byte, b',' | b';')).next().unwrap_or_default();
        let first = first.trim_ascii().to_ascii_lowercase();
        match first.as_slice() {
            b"text/html" | b"application/xhtml+xml" => Content::Page,
            image if image.starts_with(b"image/") => Content::Image,
            _ => Content::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_told_by_destination_then_by_type() {
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
        let cases: &[(bool, &[(&str, &str)], Option<&str>, Content)] = &[
            (false, &[("Accept", chrome)], None, Content::Action),
            (true, &[("Sec-Fetch-Dest", "document"), ("Accept", "*/*")], None, Content::Page),
            (true, &[("Sec-Fetch-Dest", "iframe")], Some("image/png"), Content::Page),
            (true, &[("Sec-Fetch-Dest", "image"), ("Accept", chrome)], None, Content::Image),
            (true, &[("Sec-Fetch-Dest", "style")], Some("text/html"), Content::Rest),
            (true, &[("Sec-Fetch-Dest", "script")], None, Content::Rest),
            (true, &[("Sec-Fetch-Dest", "empty")], Some("text/html; charset=utf-8"), Content::Page),
            (true, &[("Sec-Fetch-Dest", "empty"), ("Accept", "application/json")], None, Content::Rest),
            (true, &[("Accept", chrome)], None, Content::Page),
            (true, &[("Accept", "image/avif,image/webp,*/*")], None, Content::Image),
            (true, &[("Accept", "Image/PNG")], None, Content::Image),
            (true, &[("Accept", chrome)], Some("image/png"), Content::Image),
            (true, &[("Accept", "*/*")], Some("TEXT/HTML"), Content::Page),
            (true, &[("Accept", "*/*")], None, Content::Rest),
            (true, &[("Accept", "")], None, Content::Rest),
            (true, &[], None, Content::Rest),
        ];
        for (is_safe, fields, stored, expected) in cases {
            let fields = Fields::from_iter(fields.iter().copied());
            let found = Content::of(*is_safe, &fields, stored.map(str::as_bytes));
            assert_eq!(found, *expected, "{fields:?} {stored:?}");
        }
    }

    #[test]
    fn who_has_nothing_comes_before_who_has_something_stale() {
        let mut classes: Vec<Class> = [true, false]
            .into_iter()
            .flat_map(|is_background| {
                Content::ALL.map(|content| Class { is_background, content }).into_iter().rev()
            })
            .collect();
        classes.sort();
        let sorted: Vec<String> = classes
            .iter()
            .map(|class| format!("{}{}", class.content.as_str(), if class.is_background { "'" } else { "" }))
            .collect();
        assert_eq!(sorted.join(" "), "action page image rest action' page' image' rest'");
    }
}
