//! A URL in each line.

use crate::url::Url;

/// The URLs of a text, in order, and how many lines were none. Empty lines and those that begin with `#` do not count. At most
/// `max`.
pub fn urls_of_list(text: &str, max: usize) -> (Vec<Url>, usize) {
    let (mut urls, mut bad) = (Vec::new(), 0);
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match Url::parse(line) {
            Ok(url) if urls.len() < max => urls.push(url),
            Ok(_) => break,
            Err(_) => bad += 1,
        }
    }
    (urls, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_url_or_counted() {
        let text = "\u{feff}# ours\nhttp://a/1\r\n\n  https://b/2  \nno\nhttp://c/3\n";
        let (urls, bad) = urls_of_list(text, 10);
        let urls: Vec<String> = urls.iter().map(Url::to_string).collect();
        assert_eq!((urls.join(" ").as_str(), bad), ("http://a/1 https://b/2 http://c/3", 1));
        assert_eq!(urls_of_list(text, 1).0.len(), 1);
    }
}
