//! Any bytes as a sitemap, compressed or not: no panic, no more locations than are allowed, and each a URL that can be asked for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warm::{LOCATIONS_MAX, Url, inflated, read_sitemap};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = inflated(bytes, 1 << 20) else { return };
    let Ok(sitemap) = read_sitemap(&text) else { return };
    assert!(sitemap.urls.len() + sitemap.sitemaps.len() <= LOCATIONS_MAX);
    for url in sitemap.urls.iter().chain(&sitemap.sitemaps) {
        assert!(url.target().starts_with('/') && url.target().bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(Url::parse(&url.to_string()).as_ref(), Ok(url));
    }
});
