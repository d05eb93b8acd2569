use proptest::prelude::*;

use super::*;
use crate::conditional::{Precondition, Validators, evaluate_preconditions};
use crate::freshness::{Facts, Flags, LifetimeSource};
use crate::{Wall, vary};

fn accept(value: &str) -> Accepted {
    Accepted::of(&[("Accept-Encoding", value)].into_iter().collect())
}

fn best(value: &str, forms: &[Form]) -> Option<Form> {
    accept(value).best(forms.iter().copied(), Form::coding)
}

#[test]
fn the_heaviest_coding_wins_and_the_smallest_form_among_equals() {
    let all = &Form::ALL[..];
    for (value, expected) in [
        ("gzip, deflate, br, zstd", Some(Form::BrThorough)),
        ("gzip, deflate", Some(Form::Gzip)),
        ("x-gzip", Some(Form::Gzip)),
        ("GZip", Some(Form::Gzip)),
        ("br;q=0.5, gzip;q=0.8", Some(Form::Gzip)),
        ("br;q=0, zstd", Some(Form::ZstdThorough)),
        ("*", Some(Form::BrThorough)),
        ("*;q=0.1, br;q=0", Some(Form::ZstdThorough)),
        ("*;q=0", None),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", Some(Form::Gzip)),
        ("identity;q=0, deflate", None),
        ("gzip;q=0.0001", None),
        ("gzip;q=2", None),
        ("", None),
        (", ,gzip , ", Some(Form::Gzip)),
    ] {
        assert_eq!(best(value, all), expected, "{value:?}");
    }
    assert_eq!(best("br, zstd, gzip", &[Form::Br, Form::Zstd, Form::Gzip]), Some(Form::Br));
    assert_eq!(best("zstd, gzip", &[Form::Br]), None);
    assert_eq!(Accepted::of(&Fields::new()).best(Form::ALL, Form::coding), None);
}

fn written(head: &[(&str, &str)], form: Option<Form>) -> Vec<(String, String)> {
    let head: Fields = head.iter().copied().collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields_of(head.as_block(), form).iter().map(|(name, value)| (text(name), text(value))).collect()
}

#[test]
fn a_copy_has_a_head_of_its_own_and_identity_only_varies() {
    let head = [
        ("Content-Type", "text/css"),
        ("ETag", "\"abc\""),
        ("Content-MD5", "x"),
        ("Repr-Digest", "x"),
        ("Content-Digest", "x"),
        ("Digest", "x"),
        ("Accept-Ranges", "bytes"),
        ("Vary", "Origin"),
    ];
    let own = |lines: &[(&str, &str)]| -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    assert_eq!(
        written(&head, Some(Form::Br)),
        own(&[
            ("Content-Type", "text/css"),
            ("ETag", "\"abc--br\""),
            ("Vary", "Origin"),
            ("Content-Encoding", "br"),
            ("Vary", "Accept-Encoding"),
        ])
    );
    assert_eq!(written(&head, None), own(&[&head[..], &[("Vary", "Accept-Encoding")]].concat()));
    let varies = [("etag", "W/\"abc\""), ("vary", "Origin,accept-encoding")];
    assert_eq!(written(&varies, None), own(&varies));
    assert_eq!(
        written(&varies, Some(Form::ZstdThorough)),
        own(&[("ETag", "W/\"abc--zstd2\""), varies[1], ("Content-Encoding", "zstd")])
    );
}

#[test]
fn what_is_encoded_or_must_stay_as_it_is_may_not_be_encoded() {
    let media_type = |head: &[(&str, &str)]| {
        let head: Fields = head.iter().copied().collect();
        may_encode(head.as_block()).map(|found| String::from_utf8_lossy(found).into_owned())
    };
    let html = ("Content-Type", "text/html; charset=utf-8");
    assert_eq!(media_type(&[html]).as_deref(), Some("text/html"));
    assert_eq!(media_type(&[html, ("Content-Encoding", "identity")]).as_deref(), Some("text/html"));
    assert_eq!(media_type(&[html, ("Cache-Control", "max-age=60")]).as_deref(), Some("text/html"));
    for line in [
        ("Content-Encoding", "br"),
        ("Content-Encoding", "aws-chunked"),
        ("Cache-Control", "max-age=60, no-transform"),
        ("cache-control", "No-Transform"),
        ("CDN-Cache-Control", "max-age=60, no-transform"),
    ] {
        assert_eq!(media_type(&[html, line]), None, "{line:?}");
    }
    assert_eq!(media_type(&[]), None);
    assert_eq!(media_type(&[("Content-Type", " ;")]), None);
}

const ETAG: &str = "\"abc\"";

/// What becomes of preconditions, and which form a 304 confirms.
fn judged(
    request: &[(&str, &str)],
    etag: &str,
    accepted: &str,
    selected: Option<Form>,
) -> (Precondition, Option<Form>) {
    let request: Fields = request.iter().copied().collect();
    assert!(compares_tags(&request));
    let (translated, form) = translate(&request, etag.as_bytes(), &accept(accepted), selected);
    let validators = Validators { etag: Some(etag.as_bytes()), ..Validators::default() };
    let facts = Facts {
        response_time: Wall(0),
        initial_age_ms: 0,
        lifetime: 60,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        status: 200,
        source: LifetimeSource::MaxAge,
        flags: Flags::NONE,
    };
    (evaluate_preconditions(&translated, "GET", &validators, &facts, Wall(0)), form)
}

#[test]
fn a_copy_is_confirmed_by_its_own_tag_and_only_to_who_can_decode_it() {
    use Precondition::{Failed, NotModified, Proceed};
    let br = Some(Form::Br);
    for (field, value, etag, accepted, selected, expected) in [
        ("If-None-Match", "\"abc--br\"", ETAG, "br", br, (NotModified, br)),
        // The copy has been replaced by a smaller one: what the visitor has is as good.
        ("If-None-Match", "\"abc--br\"", ETAG, "br", Some(Form::BrThorough), (NotModified, br)),
        ("If-None-Match", "\"abc--zstd\", \"abc--br\"", ETAG, "br, zstd", br, (NotModified, br)),
        ("If-None-Match", "\"abc\", \"abc--br\"", ETAG, "gzip", Some(Form::Gzip), (NotModified, None)),
        ("If-None-Match", "\"x\", W/\"abc--br\"", ETAG, "br", br, (NotModified, br)),
        ("If-None-Match", "W/\"abc--br\"", "W/\"abc\"", "br", br, (NotModified, br)),
        ("If-None-Match", "\"abc--br\"", ETAG, "gzip", Some(Form::Gzip), (Proceed, None)),
        ("If-None-Match", "\"abc--br\"", ETAG, "br;q=0, gzip", None, (Proceed, None)),
        ("If-None-Match", "\"abd--br\"", ETAG, "br", br, (Proceed, None)),
        ("If-None-Match", "\"abc--lzma\"", ETAG, "*", br, (Proceed, None)),
        ("If-Match", "\"abc--br\"", ETAG, "br", br, (Proceed, br)),
        ("If-Match", "W/\"abc--br\"", ETAG, "br", br, (Failed, br)),
        ("If-Match", "\"abd--br\"", ETAG, "br", br, (Failed, None)),
        // An origin whose own tags look like ours.
        ("If-None-Match", "\"a--br\"", "\"a--br\"", "gzip", None, (NotModified, None)),
    ] {
        assert_eq!(judged(&[(field, value)], etag, accepted, selected), expected, "{field}: {value}");
    }
}

#[test]
fn the_origin_gets_its_own_tags_back() {
    let mut request: Fields =
        [("If-Match", "\"a--br2\", W/\"b--gzip\", \"c\""), ("If-None-Match", "*"), ("A", "\"a--br\"")]
            .into_iter()
            .collect();
    restore_tags(&mut request);
    assert_eq!(request.get("if-match"), Some(&b"\"a\", W/\"b\", \"c\""[..]));
    assert_eq!(request.get("if-none-match"), Some(&b"*"[..]));
    assert_eq!(request.get("a"), Some(&b"\"a--br\""[..]));
}

fn accept_encoding() -> impl Strategy<Value = String> {
    let member =
        ("(gzip|br|zstd|identity|deflate|\\*|x-gzip|BR)", "(;q=0|;q=1|;q=0\\.[0-9]{1,3}|; q=0\\.5|;q=x|)");
    let members = prop::collection::vec(member.prop_map(|(name, weight)| format!("{name}{weight}")), 0..6);
    members.prop_map(|members| members.join(", "))
}

proptest! {
    #[test]
    fn nobody_gets_a_coding_that_he_refuses_or_likes_less_than_another(
        value in accept_encoding(), forms in prop::collection::vec(prop::sample::select(&Form::ALL[..]), 0..6),
    ) {
        let accepted = accept(&value);
        let chosen = accepted.best(forms.iter().copied(), Form::coding);
        let weight = |form: &Form| accepted.weight(form.coding());
        let heaviest = forms.iter().map(weight).max().unwrap_or(0);
        match chosen {
            Some(form) => {
                prop_assert!(weight(&form) > 0 && weight(&form) == heaviest);
                let first = forms.iter().find(|other| weight(other) == heaviest);
                prop_assert_eq!(first, Some(&form));
            }
            None => prop_assert!(heaviest == 0 || accepted.identity.is_some_and(|own| own > heaviest)),
        }
    }

    #[test]
    fn what_is_accepted_is_what_is_told_the_origin(value in accept_encoding()) {
        let request: Fields = [("Accept-Encoding", value.as_str())].into_iter().collect();
        let told: Vec<&str> = vary::Encodings::accepted_by(&request).as_str().split(", ").collect();
        let accepted = Accepted::of(&request);
        for coding in Coding::ALL {
            prop_assert_eq!(told.contains(&coding.as_str()), accepted.weight(coding) > 0);
        }
        prop_assert_eq!(!told.contains(&"identity;q=0"), !accepted.refuses_identity());
    }

    #[test]
    fn any_accept_encoding_can_be_read(value in "[ -~]{0,60}") {
        let _ = accept(&value).best(Form::ALL, Form::coding);
    }

    #[test]
    fn a_copys_tag_leads_back_to_the_tag_that_it_was_made_of(
        weak in any::<bool>(), inside in "[!#-~]{0,12}", form in prop::sample::select(&Form::ALL[..]),
    ) {
        let etag = format!("{}\"{inside}\"", if weak { "W/" } else { "" });
        let mut tag = Vec::new();
        write_tag(&mut tag, etag.as_bytes(), form);
        prop_assert_ne!(&tag[..], etag.as_bytes());
        let (origin, found) = origin_tag(&tag).expect("it has a suffix");
        prop_assert_eq!((&origin[..], found), (etag.as_bytes(), form));
    }

    #[test]
    fn a_written_head_is_a_block_and_keeps_all_that_is_not_of_the_coding(
        lines in prop::collection::vec(("(ETag|Vary|Digest|X-A|Date|Content-Type)", "[!-~]{0,8}"), 0..8),
        form in prop::option::of(prop::sample::select(&Form::ALL[..])),
    ) {
        let head: Fields = lines.iter().map(|(name, value)| (name, value)).collect();
        let written = fields_of(head.as_block(), form);
        let mut block = Vec::new();
        write_head(&mut block, head.as_block(), form);
        prop_assert_eq!(written.as_block(), &block[..]);
        let kept = |fields: &Fields| -> Vec<(Vec<u8>, Vec<u8>)> {
            let own = |name: &[u8]| ["X-A", "Date", "Content-Type"].iter().any(|known| known.as_bytes() == name);
            fields.iter().filter(|(name, _)| own(name)).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
        };
        prop_assert_eq!(kept(&head), kept(&written));
        let vary = written.get_all("vary").flat_map(|value| value.split(|&byte| byte == b','));
        prop_assert!(vary.into_iter().any(|name| name.eq_ignore_ascii_case(b"accept-encoding")));
        prop_assert_eq!(written.get("content-encoding").is_some(), form.is_some());
    }
}
