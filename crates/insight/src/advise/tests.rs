use model::Snapshot;

use super::*;
use crate::log::Reader;

/// One request of a log that is made here: seconds, target, visitor, the origin's answer, and more keys.
struct Asked {
    ms: i64,
    target: String,
    client: usize,
    status: u16,
    bytes: u64,
    answer: String,
    more: String,
}

fn snapshot(text: &str) -> Option<Snapshot> {
    Snapshot::parse(text, "test").snapshot
}

fn config(site: &str) -> String {
    format!("[[site]]\nname = \"a\"\ndomains = [\"a.test\"]\norigin = \"http://127.0.0.1:9\"\n{site}")
}

/// The log that an edge with this configuration would have written: what is a hit has no word of the origin.
fn record(config: &str, asked: &[Asked]) -> Vec<Record> {
    let mut replay = Replay::new(snapshot(config).unwrap(), Settings::default()).unwrap();
    let mut reader = Reader::default();
    let mut line = |one: &Asked, why: &str, fetch: &str| {
        let (secs, ms) = (one.ms / 1000, one.ms % 1000);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        let text = format!(
            "{{\"time\":\"2026-11-23T{hour:02}:{minute:02}:{second:02}.{ms:03}Z\",\"client\":\"10.0.0.{}\",\"method\":\"GET\",\
             \"host\":\"a.test\",\"target\":\"{}\",\"status\":{},\"body_bytes\":{},\"why\":\"{why}\"{fetch}{}}}",
            one.client, one.target, one.status, one.bytes, one.more
        );
        reader.read(text.as_bytes()).unwrap().unwrap().1
    };
    let mut records = Vec::new();
    for one in asked {
        let status = if one.more.contains("origin-connect") { 0 } else { one.status };
        let fetch = format!(",\"origin_status\":{status},\"answer\":{{{}}}", one.answer);
        let full = line(one, if status == 0 { "origin-connect" } else { "absent" }, &fetch);
        let decision = replay.take(&full).unwrap();
        records.push(match decision.why.outcome() {
            semantics::Outcome::Hit => line(one, decision.why.as_str(), ""),
            _ if status == 0 => full,
            _ => line(one, decision.why.as_str(), &fetch),
        });
    }
    records
}

fn advise(config: &str, records: &[Record]) -> Vec<Proposal> {
    let settings = Settings::default();
    let replay = Replay::new(snapshot(config).unwrap(), settings.clone()).unwrap();
    let mut survey = Survey::new(config.to_owned(), replay);
    records.iter().for_each(|record| survey.take(Format::Json, record));
    let mut trial = Trial::new(config, survey.candidates(), &settings, snapshot).unwrap();
    records.iter().for_each(|record| trial.take(Format::Json, record));
    trial.proposals(&Worth::default())
}

const HEALTHY: &str = "stale_while_revalidate = \"1m\"\nstale_if_error = \"1d\"\n";

/// Traffic of a site that is well: styles, scripts and pictures with a hash in their name and a long life, pages that live for
/// a minute, both with validators; with parameters that count, and Vary by what counts.
fn healthy(count: usize) -> Vec<Asked> {
    let one = |number: usize| {
        // An LCG is chance enough here.
        let dice =
            (number as u64).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
                >> 33;
        let item = dice % 40;
        let (target, answer, more) = match number % 4 {
            0 => (
                format!("/static/app.{item:02}a9c2b7e1.css"),
                r#""cache-control":"max-age=31536000","content-type":"text/css""#,
                "",
            ),
            1 => (
                format!("/img/{item}-3f9a1c2b.png"),
                r#""cache-control":"max-age=31536000","content-type":"image/png""#,
                "",
            ),
            2 => (format!("/page/{item}"), r#""cache-control":"max-age=600","content-type":"text/html""#, ""),
            _ => (
                format!("/list?page={item}"),
                r#""cache-control":"max-age=600","vary":"Accept-Language","content-type":"text/html""#,
                if item.is_multiple_of(2) {
                    r#","selected_by":{"accept-language":"00000001"}"#
                } else {
                    r#","selected_by":{"accept-language":"00000002"}"#
                },
            ),
        };
        let language = more.contains("00000002");
        let etag = format!(r#","etag":"\"{item}-{}-{language}\"""#, number % 4);
        Asked {
            ms: number as i64 * 50,
            target,
            client: number,
            status: 200,
            bytes: 4000 + item * 10,
            answer: format!("{answer}{etag}"),
            more: more.to_owned(),
        }
    };
    (0..count).map(one).collect()
}

#[test]
fn a_healthy_site_gets_no_proposal() {
    let config = config(HEALTHY);
    let proposals = advise(&config, &record(&config, &healthy(4000)));
    assert!(proposals.is_empty(), "{proposals:#?}");
}

/// Plants a fault into the healthy traffic, and wants it found, first of all, with this line.
#[track_caller]
fn check(site: &str, plant: impl Fn(usize, &mut Asked), wanted: Fault, line: &str) -> Proposal {
    let config = config(site);
    let mut asked = healthy(4000);
    asked.iter_mut().enumerate().for_each(|(number, one)| plant(number, one));
    let records = record(&config, &asked);
    let proposals = advise(&config, &records);
    let found = proposals.iter().find(|one| one.faults.contains(&wanted));
    let proposal = found.unwrap_or_else(|| panic!("{wanted} not in {proposals:#?}")).clone();
    assert!(proposal.change.contains(line), "{proposal:#?}");
    // The prediction is what a run with the change then measures.
    if !proposal.draft.is_empty() && !proposal.is_estimate {
        let mut verifier = Verifier::new(vec![proposal.clone()]);
        let again = record(&proposal.draft, &asked);
        again.iter().for_each(|record| verifier.take(record));
        let verdicts = verifier.verdicts();
        assert_eq!(verdicts[0].2, Verdict::Kept, "{} measured for {proposal:#?}", verdicts[0].1);
        // And what has not been applied has not helped.
        let mut verifier = Verifier::new(vec![proposal.clone()]);
        records.iter().for_each(|record| verifier.take(record));
        assert_eq!(verifier.verdicts()[0].2, Verdict::Failed, "{proposal:#?}");
    }
    proposal
}

fn is(number: usize, kind: usize) -> bool {
    number % 4 == kind
}

fn without(answer: &str, name: &str) -> String {
    let start = answer.find(&format!("\"{name}\":")).unwrap();
    let end = answer[start..].find(",\"").map_or(answer.len(), |end| start + end + 1);
    format!("{}{}", &answer[..start], &answer[end..]).trim_end_matches(',').to_owned()
}

#[test]
fn a_missing_ttl_is_found() {
    let plant = |number, one: &mut Asked| {
        if is(number, 0) {
            one.answer = without(&without(&one.answer, "cache-control"), "etag");
        }
    };
    let proposal = check(HEALTHY, plant, Fault::MissingTtl, "path = [\"/static/*.css\"]\nttl = \"1d\"");
    assert!(proposal.origin_spared > 0.5, "{proposal:#?}");
}

#[test]
fn a_ttl_that_is_too_short_is_found() {
    let plant = |number, one: &mut Asked| {
        if is(number, 1) {
            one.answer = one.answer.replace("max-age=31536000", "max-age=5");
        }
    };
    check("stale_if_error = \"1d\"\n", plant, Fault::ShortTtl, "ttl = \"1d\"");
}

#[test]
fn noise_in_the_query_is_found_and_what_counts_is_left() {
    let plant = |number, one: &mut Asked| {
        if is(number, 2) {
            one.target = format!("{}?utm_source={}", one.target, number % 7);
        }
    };
    let proposal = check(HEALTHY, plant, Fault::QueryNoise, "query = { drop = [\"utm_source\"] }");
    assert!(!proposal.change.contains("page"), "{proposal:#?}");
}

#[test]
fn parameters_in_another_order_are_found() {
    let plant = |number: usize, one: &mut Asked| {
        if is(number, 3) {
            let item = one.target.split('=').nth(1).unwrap().to_owned();
            one.more = String::new();
            one.answer = without(&one.answer, "vary");
            one.target = match number % 8 {
                3 => format!("/list?page={item}&sort=a{item}"),
                _ => format!("/list?sort=a{item}&page={item}"),
            };
            one.answer = one.answer.replace("max-age=600", "max-age=20");
        }
    };
    check(HEALTHY, plant, Fault::QueryOrder, "query = { sort = true }");
}

#[test]
fn a_cookie_on_static_content_is_found() {
    let plant = |number, one: &mut Asked| {
        if is(number, 1) {
            one.answer.push_str(r#","set-cookie":"1""#);
        }
    };
    check(HEALTHY, plant, Fault::SetCookie, "set_cookie = \"strip\"");
}

#[test]
fn a_cookie_that_hides_a_missing_ttl_is_found_with_it() {
    let plant = |number, one: &mut Asked| {
        if is(number, 1) {
            one.answer = without(&without(&one.answer, "cache-control"), "etag") + r#","set-cookie":"1""#;
        }
    };
    let proposal = check(HEALTHY, plant, Fault::MissingTtl, "ttl = \"1d\"\nset_cookie = \"strip\"");
    assert!(proposal.hits_gained > 0.2, "{proposal:#?}");
}

#[test]
fn a_useless_vary_is_found_and_a_useful_one_left() {
    let plant = |number: usize, one: &mut Asked| {
        if is(number, 2) {
            one.answer.push_str(r#","vary":"X-Session""#);
            one.more = format!(r#","selected_by":{{"x-session":"{:08x}"}}"#, number % 9);
        }
    };
    let proposal = check(HEALTHY, plant, Fault::UselessVary, "\"x-session\" = \"presence\"");
    assert!(!proposal.change.contains("language"), "{proposal:#?}");
}

#[test]
fn a_useless_part_of_the_key_is_found() {
    let plant = |number: usize, one: &mut Asked| {
        let language = if one.more.contains("00000002") { 2 } else { 1 };
        one.more = format!(
            r#","selected_by":{{"accept-language":"0000000{language}","cookie:seen":"{:08x}"}}"#,
            number % 9
        );
    };
    check(&format!("{HEALTHY}key = {{ cookies = [\"seen\"] }}\n"), plant, Fault::UselessKey, "cookies = []");
}

#[test]
fn content_without_validators_is_found() {
    let plant = |number, one: &mut Asked| {
        if is(number, 1) {
            one.answer = without(&one.answer.replace("max-age=31536000", "max-age=5"), "etag");
        }
    };
    let proposal = check("stale_if_error = \"1d\"\n", plant, Fault::NoValidators, "ETag or Last-Modified");
    assert!(proposal.after < proposal.before * 0.6 && proposal.draft.is_empty(), "{proposal:#?}");
}

#[test]
fn text_without_compression_is_found() {
    let proposal =
        check(&format!("{HEALTHY}compress = false\n"), |_, _| {}, Fault::Uncompressed, "compress = true");
    assert!(proposal.is_estimate && proposal.after < proposal.before, "{proposal:#?}");
}

#[test]
fn browsers_that_may_not_keep_what_never_changes_are_found() {
    let plant = |number: usize, one: &mut Asked| {
        one.client = number % 5;
        if is(number, 0) {
            one.answer = one.answer.replace("max-age=31536000", "s-maxage=31536000, max-age=60");
        }
    };
    check(HEALTHY, plant, Fault::ShortBrowserTtl, "browser_ttl = \"365d\"");
}

#[test]
fn errors_that_are_asked_for_again_and_again_are_found() {
    let plant = |number: usize, one: &mut Asked| {
        if is(number, 2) && number.is_multiple_of(3) {
            (one.status, one.target) = (404, format!("/gone/{}", number % 6));
            one.answer = r#""content-type":"text/html""#.into();
        }
    };
    check(HEALTHY, plant, Fault::UncachedErrors, "\"404\" = \"1m\"");
}

#[test]
fn visitors_who_wait_for_what_went_stale_are_found() {
    let plant = |number, one: &mut Asked| {
        if is(number, 2) {
            one.answer = one.answer.replace("max-age=600", "max-age=5");
        }
    };
    check(
        "stale_if_error = \"1d\"\n",
        plant,
        Fault::NoStaleWhileRevalidate,
        "stale_while_revalidate = \"1m\"",
    );
}

#[test]
fn failures_that_something_stale_could_hide_are_found() {
    let plant = |number: usize, one: &mut Asked| {
        one.answer = one.answer.replace("max-age=600", "s-maxage=5");
        if (2000..2400).contains(&number) {
            one.more.push_str(r#","origin-connect":1"#);
            one.status = 502;
        }
    };
    check("", plant, Fault::NoStaleIfError, "stale_if_error = \"1d\"");
}

#[test]
fn a_rule_that_keeps_static_content_from_the_cache_is_found() {
    let site = format!("{HEALTHY}[[site.rule]]\npath = \"/img/*\"\ncache = false\n");
    check(&site, |_, _| {}, Fault::CacheOff, "cache = true");
}

#[test]
fn what_is_changed_is_nothing_else_that_was_seen() {
    let is_opened = |site: &str, plant: &dyn Fn(usize, &mut Asked)| {
        let config = config(site);
        let mut asked = healthy(4000);
        asked.iter_mut().enumerate().for_each(|(number, one)| plant(number, one));
        let proposals = advise(&config, &record(&config, &asked));
        let keys = ["ttl = ", "set_cookie", "cache = true", "browser_ttl"];
        proposals.into_iter().find(|one| keys.iter().any(|key| one.change.contains(key)))
    };
    let none = |site: &str, plant: &dyn Fn(usize, &mut Asked)| {
        let found = is_opened(site, plant);
        assert!(found.is_none(), "{found:#?}");
    };
    let all = format!("{HEALTHY}[[site.rule]]\npath = \"/*\"\n");
    // Pages that live for a minute are of the same rule.
    none(&all, &|number, one| {
        if is(number, 1) {
            one.answer = without(&without(&one.answer, "cache-control"), "etag");
        }
    });
    none(&all, &|number, one| {
        if is(number, 0) {
            one.answer.push_str(r#","set-cookie":"a=1""#);
        }
    });
    // What somebody has closed, with a picture in it.
    none(&format!("{HEALTHY}[[site.rule]]\npath = \"/account/*\"\ncache = false\n"), &|number, one| {
        match number % 8 {
            1 => one.target = "/account/avatar.png".into(),
            2 => one.target = "/account/orders".into(),
            _ => {}
        }
    });
    // Without an extension, and most of it pages.
    none(HEALTHY, &|number, one| {
        if is(number, 1) {
            one.target = format!("/item/{}", number % 40);
            one.answer = r#""content-type":"image/png""#.into();
        } else if is(number, 2) {
            one.target = format!("/item/{}", number % 40);
        }
    });
    // A pattern of the root is for all below it.
    none(HEALTHY, &|number, one| {
        one.client = number % 5;
        if is(number, 0) {
            one.answer = one.answer.replace("max-age=31536000", "s-maxage=31536000, max-age=60");
            one.target = match number % 8 {
                0 => "/static/config.css".into(),
                _ => one.target.replace("/static/", "/"),
            };
        }
    });
    // One name with a hash says nothing of another one without.
    none(HEALTHY, &|number, one| {
        one.client = number % 5;
        if is(number, 0) {
            one.answer = one.answer.replace("max-age=31536000", "s-maxage=31536000, max-age=60");
            if number.is_multiple_of(8) {
                one.target = "/static/config.css".into();
            }
        }
    });
}

#[test]
fn a_memory_that_is_too_small_is_found() {
    let mut text = config(HEALTHY);
    text.insert_str(0, "[store]\nmemory = \"4MiB\"\n");
    let mut asked = healthy(4000);
    asked.iter_mut().for_each(|one| one.bytes *= 12);
    let proposals = advise(&text, &record(&text, &asked));
    let found = proposals.iter().find(|one| one.faults == [Fault::SmallMemory]);
    assert!(found.is_some_and(|one| one.change == "[store]\nmemory = \"8MiB\""), "{proposals:#?}");
}
