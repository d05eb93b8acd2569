//! The JSON of a purge: what is asked, checked for being one clear thing, and what is answered. Carrying it out is
//! [`crate::Handle::purge`]'s.

use axum::http::StatusCode;
use model::Snapshot;
use serde::Deserialize;

use super::api::Problem;
use crate::{PurgeError, PurgeRequest, PurgeTarget};

/// Surrogate keys in one request.
const TAGS_MAX: usize = 256;
/// Seconds after which a purge that came amid an upgrade is worth another try.
const HANDING_OVER_RETRY_SECS: u32 = 1;
/// Names of sites or domains that a refusal lists.
const NAMES_SHOWN: usize = 5;

/// The body of `POST /v1/purge`. Exactly one of `url`, `prefix`, `tag` or `tags`, `everything`, or `site` alone; beside
/// tags, `site` narrows them to one site.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PurgeBody {
    url: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    tags: Vec<String>,
    site: Option<String>,
    everything: bool,
    soft: bool,
}

impl PurgeBody {
    /// The purges to carry out, in order; several only for several surrogate keys. Never none.
    pub(super) fn requests(self) -> Result<Vec<PurgeRequest>, Problem> {
        let PurgeBody { url, prefix, tag, mut tags, site, everything, soft } = self;
        tags.extend(tag);
        let kinds = [url.is_some(), prefix.is_some(), !tags.is_empty(), everything];
        let count = kinds.iter().filter(|&&is_named| is_named).count();
        let may_have_site = !tags.is_empty() || count == 0;
        if count > 1 || (count == 0 && site.is_none()) || (site.is_some() && !may_have_site) {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "a purge names exactly one kind of thing")
                .found(if count > 1 { "several" } else { "none, or a site beside something else than tags" })
                .wanted("one of url, prefix, tag or tags, site, everything; tags may have a site")
                .next("purge in several requests"));
        }
        let request = |target| PurgeRequest { target, soft };
        let target = match (url, prefix, site) {
            (Some(url), ..) => PurgeTarget::Url(url),
            (_, Some(prefix), _) => PurgeTarget::Prefix(prefix),
            (.., site) if !tags.is_empty() => {
                check_tags(&tags)?;
                let target = |tag| PurgeTarget::Tag { tag, site: site.clone() };
                return Ok(tags.into_iter().map(|tag| request(target(tag))).collect());
            }
            (.., Some(site)) => PurgeTarget::Site(site),
            (.., None) => PurgeTarget::Everything,
        };
        Ok(vec![request(target)])
    }
}

fn check_tags(tags: &[String]) -> Result<(), Problem> {
    if tags.len() > TAGS_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too many surrogate keys for one purge")
            .found(tags.len().to_string())
            .wanted(format!("at most {TAGS_MAX}"))
            .next("nothing was purged; purge in parts"));
    }
    let bad = tags.iter().find(|tag| tag.is_empty() || tag.contains([' ', '\t', ',', '\r', '\n']));
    bad.map_or(Ok(()), |bad| {
        Err(Problem::new(StatusCode::BAD_REQUEST, "this is not one surrogate key")
            .found(format!("{bad:?}"))
            .wanted("one key, without spaces and commas, as the origin sends it")
            .next("nothing was purged; give several keys one by one: --tag A --tag B"))
    })
}

/// What a target matches, for people.
pub(super) fn describe(target: &PurgeTarget) -> String {
    match target {
        PurgeTarget::Url(url) => format!("{url} with all its variants"),
        PurgeTarget::Prefix(prefix) => format!("every URL that begins with {prefix}"),
        PurgeTarget::Tag { tag, site: None } => format!("every object with the surrogate key {tag:?}"),
        PurgeTarget::Tag { tag, site: Some(site) } => {
            format!("every object of site {site:?} with the surrogate key {tag:?}")
        }
        PurgeTarget::Site(site) => format!("every object of site {site:?}"),
        PurgeTarget::Everything => "every object".to_owned(),
    }
}

/// A purge that was refused, with what could have been meant.
pub(super) fn refused(error: &PurgeError, snapshot: &Snapshot) -> Problem {
    let problem = match error {
        PurgeError::UnknownHost(host) => {
            Problem::new(StatusCode::NOT_FOUND, "no site of the configuration serves this host")
                .found(format!("{host:?}"))
                .wanted(hosts_served(snapshot))
        }
        PurgeError::UnknownSite(site) => {
            let names = few(snapshot.sites.iter().map(|site| &*site.name));
            Problem::new(StatusCode::NOT_FOUND, "no site of the configuration is called so")
                .found(format!("{site:?}"))
                .wanted(names)
        }
        PurgeError::NotAUrl(_) | PurgeError::QueryInPrefix(_) | PurgeError::EmptyTag => {
            Problem::new(StatusCode::BAD_REQUEST, error.to_string())
        }
        PurgeError::NotLogged(_) => {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                .next("make room on the disk of the state directory, or look why it fails, and purge again");
        }
        PurgeError::HandingOver => {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                .retry_after(HANDING_OVER_RETRY_SECS)
                .next("purge again in a moment; the process that takes over answers then");
        }
        PurgeError::NotSafe(_) => {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                .next("look why the disk of the state directory fails, and purge again");
        }
    };
    problem.next("nothing was purged; correct it and purge again")
}

/// The domains that the configuration names, for people who have asked for another.
pub(super) fn hosts_served(snapshot: &Snapshot) -> String {
    few(snapshot.sites.iter().flat_map(|site| &site.domains).map(|domain| &**domain))
}

/// The first names, and how many more there are.
fn few<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let first: Vec<&str> = names.by_ref().take(NAMES_SHOWN).collect();
    match names.count() {
        0 => first.join(" or "),
        more => format!("{} or one of {more} more in the configuration file", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(body: &str) -> Result<Vec<PurgeRequest>, Problem> {
        serde_json::from_str::<PurgeBody>(body).unwrap().requests()
    }

    #[test]
    fn each_kind_becomes_its_target() {
        let check = |body: &str, targets: &[PurgeTarget], soft: bool| {
            let wanted: Vec<_> =
                targets.iter().map(|target| PurgeRequest { target: target.clone(), soft }).collect();
            assert_eq!(requests(body).unwrap(), wanted, "{body}");
        };
        let tag = |tag: &str, site: Option<&str>| PurgeTarget::Tag {
            tag: tag.into(),
            site: site.map(str::to_owned),
        };
        check(r#"{"everything":true}"#, &[PurgeTarget::Everything], false);
        check(r#"{"everything":true,"soft":true}"#, &[PurgeTarget::Everything], true);
        check(r#"{"site":"shop"}"#, &[PurgeTarget::Site("shop".into())], false);
        check(r#"{"url":"http://a/"}"#, &[PurgeTarget::Url("http://a/".into())], false);
        check(r#"{"prefix":"http://a/b"}"#, &[PurgeTarget::Prefix("http://a/b".into())], false);
        check(r#"{"tag":"a"}"#, &[tag("a", None)], false);
        check(
            r#"{"tags":["a","b"],"site":"shop"}"#,
            &[tag("a", Some("shop")), tag("b", Some("shop"))],
            false,
        );
    }

    #[test]
    fn a_refusal_names_a_few_of_what_there_is() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(few(names.into_iter().take(2)), "a or b");
        assert_eq!(few(names.into_iter()), "a, b, c, d, e or one of 2 more in the configuration file");
    }

    #[test]
    fn what_is_not_one_clear_purge_is_refused() {
        for body in [
            "{}",
            r#"{"soft":true}"#,
            r#"{"everything":false}"#,
            r#"{"tags":[]}"#,
            r#"{"url":"http://a/","everything":true}"#,
            r#"{"url":"http://a/","site":"shop"}"#,
            r#"{"everything":true,"site":"shop"}"#,
            r#"{"tag":"a","prefix":"http://a/x"}"#,
            r#"{"tag":""}"#,
            r#"{"tag":"a b"}"#,
            r#"{"tags":["a","b,c"]}"#,
        ] {
            assert!(requests(body).is_err(), "{body}");
        }
        assert!(
            serde_json::from_str::<PurgeBody>(r#"{"everthing":true}"#).is_err(),
            "a typo is not everything"
        );
    }
}
