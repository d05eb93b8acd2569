//! Bad configurations and what is said about each: place, value found, value wanted, next step.

use crate::Snapshot;

/// Parses `text` and compares its findings, each as `line:column severity: message | help`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let parsed = Snapshot::parse(text, "perigee.toml");
    let found: Vec<String> = parsed
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let help =
                if diagnostic.help.is_empty() { String::new() } else { format!(" | {}", diagnostic.help) };
            let (line, column) = (diagnostic.line, diagnostic.column);
            format!("{line}:{column} {}: {}{help}", diagnostic.severity.as_str(), diagnostic.message)
        })
        .collect();
    assert_eq!(found, expected, "\n{text}");
    assert_eq!(parsed.snapshot.is_none(), found.iter().any(|line| line.contains(" error: ")));
}

#[test]
fn keys_and_kinds_are_checked_with_a_suggestion() {
    check(r#""#, &["1:1 error: the file has no site | add a table that begins with [[site]]"]);
    check(
        r#"[[site]]
"#,
        &[
            r#"1:1 error: [[site]] has no name | add name = "shop""#,
            r#"1:1 error: [[site]] has no domains | add domains = "www.shop.example""#,
            r#"1:1 error: [[site]] has no origin | add origin = "https://origin.shop.example""#,
        ],
    );
    check(
        r#"[edg]
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"1:2 error: unknown key "edg" in the file | did you mean "edge"?"#],
    );
    check(
        r#"site = 1
"#,
        &[
            "1:8 error: site is the number 1; wanted is any number of [[site]] | begin each with a line [[site]]",
        ],
    );
    check(
        r#"site = []
"#,
        &["1:1 error: the file has no site | begin one with [[site]]"],
    );
    check(
        r#"[site]
name = "a"
"#,
        &["1:1 error: site is a table; wanted is any number of [[site]] | begin each with a line [[site]]"],
    );
    check(
        r#"[edge]
worker = 2
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"2:1 error: unknown key "worker" in [edge] | did you mean "workers"?"#],
    );
    check(
        r#"[edge]
workers = "2"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:11 error: workers is the text "2"; wanted is a number from 1 to 1024 | write workers = 2, without quotes"#,
        ],
    );
    check(
        r#"[edge]
workers = 0
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &["2:11 error: workers is 0; it may be 1 to 1024"],
    );
    check(
        r#"[edge]
workers = 2.5
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            "2:11 error: workers is the number 2.5; wanted is a number from 1 to 1024 | write e.g. workers = 1",
        ],
    );
    check(
        r#"[edge]
server_timing = "yes"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:17 error: server_timing is the text "yes"; wanted is true or false | write server_timing = true, without quotes"#,
        ],
    );
    check(
        r#"[store]
eviction = "fifo"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"2:12 error: eviction is "fifo"; it may be "lgdsf", "lru", "sieve" or "s3-fifo""#],
    );
    check(
        r#"[edge]
policy = "lru"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"2:1 error: unknown key "policy" in [edge] | write eviction, in [store]"#],
    );
    check(
        r#"[edge]
nginx = 1
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:1 error: unknown key "nginx" in [edge] | allowed here: listen, listen_tls, listen_tier, tier, admin, workers, node, access_log, access_log_format, traces, location, statistics, server_timing, trusted_proxies, proxy_protocol, origin_source, http3, limits"#,
        ],
    );
    check(
        r#"[store]
memory = 512
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:10 error: memory is the number 512; wanted is a size such as "512MiB" | write "512B" or "512MiB""#,
        ],
    );
    check(
        r#"[store]
memory = "512M"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:10 error: memory: "512M" has the unit "M", which is none of B, kB, KiB, MB, MiB, GB, GiB, TB, TiB | write e.g. "512MiB""#,
        ],
    );
    check(
        r#"[store]
memory = "1KiB"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"2:10 error: memory is "1KiB"; it may be "1MiB" to "1024TiB""#],
    );
    check(
        r#"[edge]
limits = { idle_timeout = 30, header_timeout = "1d" }
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:27 error: idle_timeout is the number 30; wanted is a duration such as "30d" or "90s" | write "30s", "30m", "30h" or "30d""#,
            r#"2:48 error: header_timeout is "1d"; it may be "1s" to "5m""#,
        ],
    );
}

#[test]
fn settings_of_the_node_are_checked() {
    check(
        r#"[edge]
listen = "8080"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:10 error: listen: "8080" is not an address with port | write "0.0.0.0:8080" for every interface or "127.0.0.1:8080" for this machine"#,
        ],
    );
    check(
        r#"[edge]
listen = [":80", "10.0.0.1", "::1", "localhost:80"]
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:11 error: listen: ":80" is not an address with port | write "0.0.0.0:80" for every interface or "127.0.0.1:80" for this machine"#,
            r#"2:18 error: listen: "10.0.0.1" is not an address with port | add a port: "10.0.0.1:8080""#,
            r#"2:30 error: listen: "::1" is not an address with port | add a port: "[::1]:8080""#,
            r#"2:37 error: listen: "localhost:80" is not an address with port | write e.g. "0.0.0.0:8080" or "[::]:8080"; names are not resolved here"#,
        ],
    );
    check(
        r#"[edge]
listen = []
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:10 error: listen is an empty list; a node needs an address | write e.g. listen = ["0.0.0.0:8080"]"#,
        ],
    );
    check(
        r#"[edge]
admin = "0.0.0.0:9090"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            "2:9 warning: the admin API would listen on 0.0.0.0:9090, beyond this machine | the token is then all that protects it; 127.0.0.1 is the safe choice",
        ],
    );
    check(
        r#"[edge]
admin = "on"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:9 error: admin: "on" is not an address with port | write e.g. "0.0.0.0:8080" or "[::]:8080"; names are not resolved here"#,
        ],
    );
    check(
        r#"[edge]
node = "fra 1"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:8 error: the node name "fra 1" may have 1 to 64 letters, digits, "-", "_" and "." | write e.g. "fra-1""#,
        ],
    );
    check(
        r#"[edge]
access_log = ""
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"2:14 error: access_log is empty | write a file, "stdout" or "off""#],
    );
    check(
        r#"[edge]
trusted_proxies = ["10.0.0.1/8", "10.0.0.0/33", "lb.example"]
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:20 error: trusted_proxies: "10.0.0.1/8" has bits set behind its prefix; the network is 10.0.0.0/8"#,
            r#"2:34 error: trusted_proxies: "10.0.0.0/33" has the prefix length "33"; it may be 0 to 32"#,
            r#"2:49 error: trusted_proxies: "lb.example" is not an address or a network such as 203.0.113.0/24"#,
        ],
    );
    check(
        r#"[edge]
origin_source = ["203.0.113.10", "2001:db8::10", "203.0.113.11", "203.0.113.10:80"]
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:50 error: origin_source: 203.0.113.11 is a second address of its family | write one IPv4 and one IPv6 address at most"#,
            r#"2:66 error: origin_source: "203.0.113.10:80" is not an address | write an address of this machine, without a port, e.g. "203.0.113.10""#,
        ],
    );
    check(
        r#"[edge]
proxy_protocol = true
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:18 error: proxy_protocol = true without trusted_proxies: every visitor could claim any address | add trusted_proxies = ["203.0.113.0/24"] with your load balancer's addresses"#,
        ],
    );
}

#[test]
fn disks_are_checked() {
    check(
        r#"[store]
[[store.disk]]
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"2:1 error: [[store.disk]] has no size | add size = "512MiB""#],
    );
    check(
        r#"[[store.disk]]
size = "63MiB"
[[store.disk]]
path = "/b"
size = "17TiB"
[[store.disk]]
path = "/c"
size = 64
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:8 error: size is "63MiB"; it may be "64MiB" to "16TiB""#,
            r#"5:8 error: size is "17TiB"; it may be "64MiB" to "16TiB""#,
            r#"8:8 error: size is the number 64; wanted is a size such as "512MiB" | write "64B" or "64MiB""#,
        ],
    );
    check(
        r#"[[store.disk]]
size = "1GiB"
writes_per_day = 0
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"3:18 error: writes_per_day is 0; it may be 1 to 1000"#],
    );
    check(
        r#"[[store.disk]]
path = "/a"
size = "1GiB"
[[store.disk]]
path = "/b"
size = "1GiB"
[[store.disk]]
path = "/a/"
size = "1GiB"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"8:8 error: two disks have the path "/a/"; the first is in line 2 | give each disk its own directory"#,
        ],
    );
    check(
        r#"[[store.disk]]
size = "1GiB"
[[store.disk]]
size = "1GiB"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"3:1 error: two disks have no path; the first is in line 1 | add path = "/var/cache/perigee" to one of them"#,
        ],
    );
    check(
        r#"[[store.disk]]
path = "cache"
size = "1GiB"
[[store.disk]]
path = ""
size = "1GiB"
[[store.disk]]
path = 1
size = "1GiB"
[[store.disk]]
size = "1GiB"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:8 error: path: "cache" is not absolute | write an absolute path, e.g. "/var/cache/perigee""#,
            r#"5:8 error: path is empty | write a directory, or leave path out for "store" in the state directory"#,
            r#"8:8 error: path is the number 1; wanted is a directory | write e.g. path = "/var/cache/perigee""#,
        ],
    );
    check(
        r#"[[store.disk]]
size = "1GiB"
directory = "/a"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"3:1 error: unknown key "directory" in [[store.disk]] | allowed here: path, size, writes_per_day"#,
        ],
    );
    check(
        r#"[store]
disk = "/var/cache/perigee"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:8 error: disk is the text "/var/cache/perigee"; wanted is at most 16 of [[store.disk]] | begin each with a line [[store.disk]]"#,
        ],
    );
}

#[test]
fn a_node_has_a_bounded_count_of_disks() {
    let disks = |count: usize| -> String {
        let disk = |n: usize| format!("[[store.disk]]\npath = \"/disk/{n}\"\nsize = \"1GiB\"\n");
        let site = "[[site]]\nname = \"shop\"\ndomains = \"*\"\norigin = \"https://o.example\"\n";
        (1..=count).map(disk).chain([site.to_owned()]).collect()
    };
    check(&disks(16), &[]);
    check(
        &disks(18),
        &["49:1 error: disk has 18 tables; wanted is at most 16 of [[store.disk]] | leave out 2 of them"],
    );
}

#[test]
fn a_key_that_stands_in_another_table_is_shown_the_way() {
    check(
        r#"[edge]
memory = "2GiB"
eviction = "lru"
[[disk]]
size = "1GiB"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"2:1 error: unknown key "memory" in [edge] | it stands in [store]"#,
            r#"3:1 error: unknown key "eviction" in [edge] | it stands in [store]"#,
            r#"4:3 error: unknown key "disk" in the file | each disk begins with [[store.disk]]"#,
        ],
    );
    check(
        r#"[stor]
memory = "2GiB"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[r#"1:2 error: unknown key "stor" in the file | did you mean "store"?"#],
    );
}

#[test]
fn syntax_errors_are_shown_with_what_came_before_them() {
    check(
        r#"[edge]
workers = 0
memory = 
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            "2:11 error: workers is 0; it may be 1 to 1024",
            "3:10 error: not TOML: string values must be quoted, expected literal string | what stands behind it is checked once this is right",
        ],
    );
    check(
        r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
ttl = "30d
"#,
        &[
            r#"5:11 error: not TOML: invalid basic string, expected `"` | what stands behind it is checked once this is right"#,
        ],
    );
    check(
        r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
ttl = "1d"
ttl = "2d"
"#,
        &["6:1 error: not TOML: duplicate key | leave one of them out"],
    );
    check(
        r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
[site.rule]
path = "/"
"#,
        &[
            "5:1 error: rule is a table; wanted is at most 1000 of [[site.rule]] | begin each with a line [[site.rule]]",
        ],
    );
    // What a table lacks may be what could not be read.
    check(
        r#"[[site]]
name: "shop"
"#,
        &[
            "2:5 error: not TOML: invalid unquoted key, expected letters, numbers, `-`, `_` | what stands behind it is checked once this is right",
        ],
    );
    check(
        r#"[[site]
"#,
        &[
            "1:8 error: not TOML: unclosed array table, expected `]` | what stands behind it is checked once this is right",
        ],
    );
}

#[test]
fn of_the_many_errors_behind_a_missing_quote_the_first_is_shown() {
    check(
        r#"[edge]
workers = 0
[[site]]
domains = ["shop.example, "www.shop.example"]
origin = "https://o.example"
[[site.rule]]
path = "/a
"#,
        &[
            "2:11 error: workers is 0; it may be 1 to 1024",
            r#"4:28 error: not TOML: missing opening quote, expected `"` | what stands behind it is checked once this is right"#,
        ],
    );
    check(
        r#"[[site]]
domains = ["shop.example", "www.shop.example]
origin = "https://o.example"
ttl = "1d"
"#,
        &[
            r#"2:46 error: not TOML: invalid basic string, expected `"` | what stands behind it is checked once this is right"#,
        ],
    );
}

#[test]
fn keys_that_stand_twice_hide_nothing() {
    let twice = r#"[edge]
workers = 2
workers = 3
[[site]]
name = "shop"
name = "store"
domains = ["shop.example"]
ttl = "5 parsecs"
[edge]
admin = "off"
"#;
    let double = "error: not TOML: duplicate key | leave one of them out";
    let findings: [&str; 5] = [
        &format!("3:1 {double}"),
        r#"4:1 error: [[site]] has no origin | add origin = "https://origin.shop.example""#,
        &format!("6:1 {double}"),
        r#"8:7 error: ttl: "5 parsecs" is not a duration | write e.g. "90s""#,
        &format!("9:2 {double}"),
    ];
    check(twice, &findings);
    let stumbles = format!("{twice}listen = off\nworkers = 4\n");
    let stumble = "11:10 error: not TOML: string values must be quoted, expected literal string | what stands behind it is checked once this is right";
    check(&stumbles, &[findings[0], findings[2], findings[3], findings[4], stumble]);
}

#[test]
fn names_and_domains_of_sites_are_checked() {
    check(
        r#"[[site]]
name = ""
domains = []
origin = []
"#,
        &[
            r#"2:8 error: the site name "" may have 1 to 64 letters, digits, "-", "_" and "." | write e.g. "shop""#,
            r#"3:11 error: domains is an empty list | write e.g. domains = ["www.shop.example"]"#,
            r#"4:10 error: origin is an empty list | write e.g. origin = "https://origin.shop.example""#,
        ],
    );
    check(
        r#"[[site]]
name = "a"
domains = ["https://a.example/x", "a.example:80", "a.example/x", "*.*.example", "a*.example", "ü.example", "-a.example", ""]
origin = "https://o.example"
"#,
        &[
            r#"3:12 error: the domain "https://a.example/x" has a scheme | a domain is only the host: "a.example""#,
            r#"3:35 error: the domain "a.example:80" has a port | a site answers on every port: "a.example""#,
            r#"3:51 error: the domain "a.example/x" has a path | a domain is only the host: "a.example"; paths belong into rules"#,
            r#"3:66 error: the domain "*.*.example" has a "*" in the middle | a "*" stands alone, or at the start before a dot: "*.shop.example""#,
            r#"3:81 error: the domain "a*.example" has a "*" in the middle | a "*" stands alone, or at the start before a dot: "*.shop.example""#,
            r#"3:95 error: the domain "ü.example" is not ASCII | write it as browsers send it, in Punycode: "xn--…""#,
            r#"3:108 error: the domain "-a.example" is no host name | write e.g. "www.shop.example""#,
            r#"3:122 error: the domain "" is no host name | write e.g. "www.shop.example""#,
        ],
    );
    check(
        r#"[[site]]
name = "a"
domains = ["*.a.example", "www.a.example", "WWW.A.example"]
origin = "https://o.example"
"#,
        &[
            r#"3:27 warning: the domain "www.a.example" is part of "*.a.example", which this site has too | leave it out"#,
            r#"3:44 warning: the domain "www.a.example" stands twice in this site, first in line 3 | leave one out"#,
            r#"3:44 warning: the domain "www.a.example" is part of "*.a.example", which this site has too | leave it out"#,
        ],
    );
    check(
        r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#,
        &[
            r#"6:8 error: two sites have the name "shop"; the first is in line 2 | give each site its own name"#,
            r#"7:12 error: the domain "shop.example" belongs to the site "shop" already, in line 3 | each domain belongs to one site"#,
        ],
    );
    check(
        r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
[[site]]
name = "blog"
domains = ["SHOP.example"]
origin = "https://o.example"
"#,
        &[
            r#"7:12 error: the domain "shop.example" belongs to the site "shop" already, in line 3 | each domain belongs to one site"#,
        ],
    );
    check(
        r#"[[site]]
name = "a"
domain = "a.example"
backend = "https://o.example"
"#,
        &[
            r#"1:1 error: [[site]] has no origin | add origin = "https://origin.shop.example""#,
            r#"3:1 error: unknown key "domain" in [[site]] | did you mean "domains"?"#,
            r#"4:1 error: unknown key "backend" in [[site]] | write origin"#,
        ],
    );
}

#[test]
fn origins_are_checked() {
    let check = |body: &str, expected: &[&str]| {
        check(
            &format!(
                "{}{body}",
                r#"[[site]]
name = "shop"
domains = ["shop.example"]
"#
            ),
            expected,
        )
    };
    check(
        r#"origin = "o.example"
"#,
        &[
            r#"4:10 error: the origin "o.example" has no scheme | write "https://o.example" or "http://o.example""#,
        ],
    );
    check(
        r#"origin = "ftp://o.example"
"#,
        &[
            r#"4:10 error: the origin "ftp://o.example" has the scheme "ftp" | an origin speaks http or https"#,
        ],
    );
    check(
        r#"origin = "htps://o.example"
"#,
        &[r#"4:10 error: the origin "htps://o.example" has the scheme "htps" | did you mean "https"?"#],
    );
    check(
        r#"origin = "https://"
"#,
        &[r#"4:10 error: the origin "https://" has no host | write e.g. "https://origin.shop.example""#],
    );
    check(
        r#"origin = "https://u:p@o.example"
"#,
        &[
            r#"4:10 error: the origin "https://u:p@o.example" has a user name | send credentials with origin_options = { request_headers = { set = { Authorization = "…" } } }"#,
        ],
    );
    check(
        r#"origin = "https://o.example?x=1"
"#,
        &[
            r##"4:10 error: the origin "https://o.example?x=1" has a query or a fragment | leave out what is behind "?" or "#""##,
        ],
    );
    check(
        r#"origin = "https://o.example:0"
"#,
        &[
            r#"4:10 error: the origin "https://o.example:0" has a bad port | a port is a number from 1 to 65535"#,
        ],
    );
    check(
        r#"origin = "https://o.example:99999"
"#,
        &[
            r#"4:10 error: the origin "https://o.example:99999" has a bad port | a port is a number from 1 to 65535"#,
        ],
    );
    check(
        r#"origin = "http://::1:80"
"#,
        &[
            r#"4:10 error: the origin "http://::1:80" has an IPv6 address without brackets | write e.g. "http://[2001:db8::1]:8080""#,
        ],
    );
    check(
        r#"origin = "http://[::1"
"#,
        &[
            r#"4:10 error: the origin "http://[::1" has a "[" without "]" | write e.g. "http://[2001:db8::1]:8080""#,
        ],
    );
    check(
        r#"origin = "https://o ex.example"
"#,
        &[
            r#"4:10 error: the origin "https://o ex.example" has a character that no URL has | write e.g. "https://origin.shop.example""#,
        ],
    );
    check(
        r#"origin = "https://o_.-.example"
"#,
        &[
            r#"4:10 error: the origin "https://o_.-.example" has the host "o_.-.example", which is no name or address | write e.g. "https://origin.shop.example""#,
        ],
    );
    check(
        r#"origin = ["https://o.example", "https://O.example/"]
"#,
        &[r#"4:32 warning: the origin "https://O.example/" stands twice in the list | leave one out"#],
    );
    check(
        r#"origin = 1
"#,
        &[
            r#"4:10 error: origin is the number 1; wanted is a URL | write e.g. origin = "https://origin.shop.example""#,
        ],
    );
    check(
        r#"origin = ["https://o.example", 7]
"#,
        &[
            r#"4:32 error: origin is the number 7; wanted is a URL | write e.g. origin = "https://origin.shop.example""#,
        ],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { path_prefix = "/x" }
"#,
        &[
            r#"5:20 error: unknown key "path_prefix" in origin_options | put the prefix into the origin's URL: origin = "https://origin.example/prefix""#,
        ],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { host = "https://x.example/" }
"#,
        &[r#"5:27 error: host: "https://x.example/" is not a host | leave out the scheme: "x.example""#],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { tls = { verify = false } }
"#,
        &[
            r#"5:37 warning: the origin's certificate is not checked: anyone on the way can read and change everything | for a private certificate write ca = "file.pem" instead"#,
        ],
    );
    check(
        r#"origin = "http://o.example"
origin_options = { tls = { ca = "ca.pem" } }
"#,
        &["5:26 warning: tls has no effect: the origin is http | write https in the origin's URL"],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { timeouts = { connect = "1ms", total = "2" } }
"#,
        &[
            r#"5:43 error: connect is "1ms"; it may be "10ms" to "1m""#,
            r#"5:58 error: total: "2" has no unit | write e.g. "2s""#,
        ],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { fail_over = ["5x", 99, 404, "600"] }
"#,
        &[
            r#"5:33 error: fail_over: "5x" is not a status, a class or a range of statuses from 100 to 599 | write e.g. 404, "5xx" or "500-503""#,
            "5:39 error: fail_over is 99; it may be 100 to 599",
            r#"5:48 error: fail_over: "600" is not a status, a class or a range of statuses from 100 to 599 | write e.g. 404, "5xx" or "500-503""#,
        ],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { budget = { queue = "1s" } }
"#,
        &[
            "5:29 error: the budget allows everything | write e.g. budget = { requests_per_second = 200, in_flight = 50 }",
        ],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { budget = { in_flight = 0, requests = 5 } }
[[site.rule]]
path = "/a"
origin_options = { budget = { in_flight = 5 } }
"#,
        &[
            "5:43 error: in_flight is 0; it may be 1 to 1000000",
            r#"5:46 error: unknown key "requests" in budget | allowed here: requests_per_second, in_flight, queue, stale_deadline, reserve_percent, nodes, grace"#,
            "8:29 error: budget is a site's and no rule's: all rules with the same origin draw on one | put it into the origin_options of the site",
        ],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { health = { interval = "5s" } }
"#,
        &[
            r#"5:31 warning: interval has no effect: health has no path, so there are no probes | add path = "/healthz""#,
        ],
    );
    check(
        r#"origin = "https://o.example"
origin_options = { health = { path = "healthz" }, request_headers = { set = { Host = "x" } } }
"#,
        &[
            r#"5:38 error: the health path "healthz" is no path | write e.g. "/healthz""#,
            r#"5:79 error: Host cannot be changed by a rule | for the Host that origins are asked for write origin_options = { host = "…" }"#,
        ],
    );
}

#[test]
fn headers_of_one_origin_name_one_of_the_origins() {
    check(
        r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = ["https://a.example", "https://b.example"]
origin_options.request_headers_of."https://c.example" = { set = { X-A = "1" } }
[site.origin_options.request_headers_of."https://b.example"]
set = { Host = "x" }
"#,
        &[
            r#"5:35 error: request_headers_of names "https://c.example", which is none of the origins | the origins are https://a.example, https://b.example"#,
            r#"7:9 error: Host cannot be changed by a rule | for the Host that origins are asked for write origin_options = { host = "…" }"#,
        ],
    );
}

#[test]
fn paths_methods_and_conditions_are_checked() {
    let check = |body: &str, expected: &[&str]| {
        check(
            &format!(
                "{}{body}",
                r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
[[site.rule]]
"#
            ),
            expected,
        )
    };
    check(
        r#"path = "static/*"
"#,
        &[r#"6:8 error: the path "static/*" does not begin with "/" or "*" | write "/static/*""#],
    );
    check(
        r#"path = ["/a?x=1", "/a#b", "/a b", "/ü", "/%7euser"]
"#,
        &[
            r#"6:9 error: the path "/a?x=1" has a "?" | the query is not part of the path; write "/a", and query = { keep = […] } for the cache key"#,
            r##"6:19 error: the path "/a#b" has a "#", which browsers never send | write "/a""##,
            r#"6:27 error: the path "/a b" has a character that no URL has | write "/a%20b""#,
            r#"6:35 error: the path "/ü" has a character that no URL has | write "/%C3%BC""#,
            r#"6:41 error: the path "/%7euser" is not in the spelling in which paths are compared | write "/~user""#,
        ],
    );
    check(
        r#"path = []
"#,
        &["6:8 error: path is an empty list, so the rule would never match | leave path out to match all"],
    );
    check(
        r#"paths = "/"
"#,
        &[r#"6:1 error: unknown key "paths" in [[site.rule]] | did you mean "path"?"#],
    );
    check(
        r#"methods = ["get", "GTE", "PURGE", "A B"]
"#,
        &[
            r#"6:12 error: the method "get" is not the method "GET": case counts | write "GET""#,
            r#"6:19 warning: the method "GTE" is unusual | did you mean "GET"?"#,
            r#"6:35 error: "A B" is not a method | write e.g. GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"#,
        ],
    );
    check(
        r#"hosts = ["shop.exmple"]
"#,
        &[
            r#"6:10 warning: the host "shop.exmple" is none of the site's domains, so the rule never matches it | did you mean "shop.example"?"#,
        ],
    );
    check(
        r#"hosts = ["*.shop.example"]
"#,
        &[
            r#"6:10 warning: the host "*.shop.example" is none of the site's domains, so the rule never matches it | did you mean "shop.example"?"#,
        ],
    );
    check(
        r#"scheme = "htps"
"#,
        &[r#"6:10 error: scheme is "htps"; it may be "http" or "https" | did you mean "https"?"#],
    );
    check(
        r#"with_header = { "X Y" = true, "X:" = "a", X = 1 }
"#,
        &[
            r#"6:17 error: "X Y" is not a header name | a header name has letters, digits and "-", as in "X-Device""#,
            r#"6:31 error: "X:" is not a header name | leave out the colon: "X""#,
            r#"6:47 error: with_header.X is the number 1; wanted is true or false, or a text with "*" for any part"#,
        ],
    );
    check(
        r#"with_cookie = { "a=b" = true }
"#,
        &[r#"6:17 error: "a=b" is not a cookie name | write the name before "=", as in "session""#],
    );
    check(
        r#"name = "my rule"
"#,
        &[
            r#"6:8 error: the rule name "my rule" may have 1 to 64 letters, digits, "-", "_" and "." | write e.g. "my-rule""#,
        ],
    );
    check(
        r#"status = [404, "6xx", "503-500"]
response_headers = { remove = "X" }
"#,
        &[
            r#"6:16 error: status: "6xx" is not a status, a class or a range of statuses from 100 to 599 | write e.g. 404, "5xx" or "500-503""#,
            r#"6:23 error: status: "503-500" is not a status, a class or a range of statuses from 100 to 599 | write e.g. 404, "5xx" or "500-503""#,
        ],
    );
    check(
        r#"status = "4xx"
ttl = "1s"
cache = false
"#,
        &[
            "7:1 error: ttl in a rule with status comes too late: the response is already here | write ttl_by_status in a rule without status",
            "8:1 error: cache in a rule with status comes too late: the response is already here | put it into a rule without status; a rule with status may say response_headers and browser_ttl",
        ],
    );
    check(
        r#"headers = { X = "y" }
"#,
        &[r#"6:1 error: unknown key "headers" in [[site.rule]] | write request_headers or response_headers"#],
    );
}

#[test]
fn what_a_rule_says_is_checked() {
    let check = |body: &str, expected: &[&str]| {
        check(
            &format!(
                "{}{body}",
                r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
[[site.rule]]
path = "/a/*"
"#
            ),
            expected,
        )
    };
    check(
        r#"ttl = 30
"#,
        &[
            r#"7:7 error: ttl is the number 30; wanted is a duration such as "30d" or "90s" | write "30s", "30m", "30h" or "30d""#,
        ],
    );
    check(
        r#"ttl = "30"
"#,
        &[r#"7:7 error: ttl: "30" has no unit | write e.g. "30s""#],
    );
    check(
        r#"ttl = "5 parsecs"
"#,
        &[r#"7:7 error: ttl: "5 parsecs" is not a duration | write e.g. "90s""#],
    );
    check(
        r#"ttl = "1 day"
"#,
        &[r#"7:7 error: ttl: "1 day" is not a duration | write e.g. "1d""#],
    );
    check(
        r#"ttl = "1.5h"
"#,
        &[r#"7:7 error: ttl: "1.5h" is not a duration | write e.g. "90s""#],
    );
    check(
        r#"ttl = "500ms"
"#,
        &[r#"7:7 error: ttl: "500ms" is not in whole seconds | write e.g. "1s""#],
    );
    check(
        r#"ttl = "100y"
"#,
        &[
            r#"7:7 error: ttl: "100y" is over 2147483648 seconds, the most that caches understand | write e.g. "1y""#,
        ],
    );
    check(
        r#"ttl = true
"#,
        &[r#"7:7 error: ttl is true; wanted is a duration such as "30d" or "90s" | write e.g. ttl = "90s""#],
    );
    check(
        r#"ttl_by_status = { "404" = "10s", "5xx" = 1, "abc" = "1s" }
"#,
        &[
            r#"7:42 error: ttl_by_status.5xx is the number 1; wanted is a duration such as "30d" or "90s" | write "1s", "1m", "1h" or "1d""#,
            r#"7:45 error: ttl_by_status: "abc" is not a status, a class or a range of statuses from 100 to 599 | write e.g. 404, "5xx" or "500-503""#,
        ],
    );
    check(
        r#"set_cookie = "rfc911"
"#,
        &[
            r#"7:14 error: set_cookie is "rfc911"; it may be "refuse", "rfc9111", "strip" or "never" | did you mean "rfc9111"?"#,
        ],
    );
    check(
        r#"set_cookie = true
"#,
        &[r#"7:14 error: set_cookie is true; wanted is "refuse", "rfc9111", "strip" or "never""#],
    );
    check(
        r#"max_age = "1d"
"#,
        &[
            r#"7:1 error: unknown key "max_age" in [[site.rule]] | for the edge write ttl, for browsers browser_ttl"#,
        ],
    );
    check(
        r#"query = "none"
"#,
        &[r#"7:9 error: query is "none"; it may be "all" or "ignore""#],
    );
    check(
        r#"query = { keep = "a", drop = "b" }
"#,
        &[
            "7:9 error: query has both keep and drop | keep the parameters that count, or drop those that don't",
        ],
    );
    check(
        r#"query = { keep = ["a=1", "*x*"] }
"#,
        &[
            r#"7:19 error: the query parameter "a=1" is no name | write the name before "="; a "*" may stand at its end: "utm_*""#,
            r#"7:26 error: the query parameter "*x*" is no name | write the name before "="; a "*" may stand at its end: "utm_*""#,
        ],
    );
    check(
        r#"query = { sort = 1 }
"#,
        &["7:18 error: sort is the number 1; wanted is true or false | write e.g. sort = true"],
    );
    check(
        r#"query = ["a"]
"#,
        &[r#"7:9 error: query is a list; wanted is "all" or "ignore", or a table with keep, drop, sort"#],
    );
    check(
        r#"key = { headers = "X Y", cookies = ["a;b"], device = "yes" }
"#,
        &[
            r#"7:19 error: "X Y" is not a header name | a header name has letters, digits and "-", as in "X-Device""#,
            r#"7:37 error: "a;b" is not a cookie name | write the name before "=", as in "session""#,
            r#"7:54 error: device is the text "yes"; wanted is true or false | write device = true, without quotes"#,
        ],
    );
    check(
        r#"vary = { Accept-Language = "german" }
"#,
        &[r#"7:28 error: vary.Accept-Language is "german"; it may be "lowercase", "sorted" or "presence""#],
    );
    check(
        r#"request_headers = { set = { Connection = "close" }, add = { X = "a\nb" }, remove = ["Content-Length:"] }
"#,
        &[
            "7:29 error: Connection cannot be changed by a rule | it belongs to the connection, not to the content",
            "7:65 error: the header value has a line break or another control character, or is over 4096 bytes long | write it in one line",
            r#"7:85 error: "Content-Length:" is not a header name | leave out the colon: "Content-Length""#,
        ],
    );
    check(
        r#"response_headers = { X-A = "b" }
"#,
        &[r#"7:22 error: unknown key "X-A" in header changes | allowed here: remove, set, add"#],
    );
    check(
        r#"request_cookies = { keep = "a", drop = "b" }
"#,
        &[
            "7:19 error: request_cookies has both keep and drop | keep the cookies that the origin needs, or drop those that it doesn't",
        ],
    );
    check(
        r#"surrogate_keys = ["a b", ""]
"#,
        &[
            r#"7:19 error: "a b" is not one surrogate key; wanted is one key as the origin sends it: at most 1,024 bytes of UTF-8, without spaces and commas | write e.g. "static""#,
            r#"7:26 error: "" is not one surrogate key; wanted is one key as the origin sends it: at most 1,024 bytes of UTF-8, without spaces and commas | write e.g. "static""#,
        ],
    );
    check(
        r#"redirect = "/x"
"#,
        &[
            r#"7:12 error: redirect is the text "/x"; wanted is a table with to, status | write e.g. redirect = { to = "https://{host}{path}{query}" }"#,
        ],
    );
    check(
        r#"redirect = { status = 301 }
"#,
        &[r#"7:12 error: redirect has no to | add to = "https://{host}{path}{query}""#],
    );
    check(
        r#"redirect = { to = "/x/{2}", status = 304 }
"#,
        &[
            r#"7:19 error: the redirect "/x/{2}" uses {2}, but a path of the rule has 1 "*""#,
            "7:38 error: 304 is no redirect | write 301, 302, 303, 307 or 308",
        ],
    );
    check(
        r#"redirect = { to = "https://x.example{1}" }
"#,
        &[
            r#"7:19 error: the redirect "https://x.example{1}" would let a request choose the host; put a "/" behind the host"#,
        ],
    );
    check(
        r#"redirect = { to = "/x" }
ttl = "1d"
"#,
        &["8:1 warning: ttl has no effect beside redirect | leave one of them out"],
    );
    check(
        r#"cors = "on"
"#,
        &[r#"7:8 error: cors is "on"; it may be "static", "off" or "all""#],
    );
    check(
        r#"cors = { origins = ["https://a.example/", "a.example", "*"], credentials = true }
"#,
        &[
            r#"7:21 error: the origin "https://a.example/" is not as browsers send it | write "https://a.example""#,
            r#"7:43 error: the origin "a.example" has no scheme | write e.g. "https://shop.example""#,
            r#"7:76 error: credentials = true with origins = "*": browsers refuse that, and every site could read visitors' data | list the origins that may"#,
        ],
    );
    check(
        r#"cache = false
ttl = "1d"
"#,
        &["8:1 warning: ttl has no effect beside cache = false | leave one of them out"],
    );
    check(
        r#"heuristic = { percent = 101 }
"#,
        &["7:25 error: percent is 101; it may be 0 to 100"],
    );
    check(
        r#"origin = "o.example"
"#,
        &[
            r#"7:10 error: the origin "o.example" has no scheme | write "https://o.example" or "http://o.example""#,
        ],
    );
}

#[test]
fn rules_that_can_never_match_are_warned_of() {
    let check = |body: &str, expected: &[&str]| {
        check(
            &format!(
                "{}{body}",
                r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
"#
            ),
            expected,
        )
    };
    check(
        r#"[[site.rule]]
path = "/a/*"
[[site.rule]]
path = "/a/b/*"
"#,
        &[
            "7:1 warning: rule 2 can never match: rule 1 in line 5 matches all of its requests first | put the narrower rule first, or leave it out",
        ],
    );
    check(
        r#"[[site.rule]]
name = "all"
[[site.rule]]
name = "css"
path = "*.css"
"#,
        &[
            r#"7:1 warning: rule 2 (css) can never match: "all" in line 5 matches all of its requests first | put the narrower rule first, or leave it out"#,
        ],
    );
    check(
        r#"[[site.rule]]
path = ["/a/*", "/b/*"]
[[site.rule]]
path = ["/a/x", "/b/y*z"]
"#,
        &[
            "7:1 warning: rule 2 can never match: rule 1 in line 5 matches all of its requests first | put the narrower rule first, or leave it out",
        ],
    );
    check(
        r#"[[site.rule]]
path = "/a/*"
methods = "GET"
[[site.rule]]
path = "/a/*"
methods = "HEAD"
"#,
        &[
            "8:1 warning: rule 2 can never match: rule 1 in line 5 matches all of its requests first | put the narrower rule first, or leave it out",
        ],
    );
    check(
        r#"[[site.rule]]
with_cookie = { s = true }
[[site.rule]]
path = "/a"
with_cookie = { s = "x*" }
"#,
        &[
            "7:1 warning: rule 2 can never match: rule 1 in line 5 matches all of its requests first | put the narrower rule first, or leave it out",
        ],
    );
    check(
        r#"[[site.rule]]
status = "5xx"
[[site.rule]]
status = 503
"#,
        &[
            "7:1 warning: rule 2 can never match: rule 1 in line 5 matches all of its requests first | put the narrower rule first, or leave it out",
        ],
    );
    check(
        r#"# none of these
[[site.rule]]
path = "/a/b"
[[site.rule]]
path = "/a/*"
[[site.rule]]
path = "/c/*"
methods = "GET"
[[site.rule]]
path = "/c/*"
[[site.rule]]
status = 404
[[site.rule]]
path = "/d"
with_header = { X = false }
[[site.rule]]
path = "/d"
with_header = { X = true }
"#,
        &[],
    );
    check(
        r#"# a broken rule shadows nothing
[[site.rule]]
path = "a"
[[site.rule]]
path = "/b"
"#,
        &[r#"7:8 error: the path "a" does not begin with "/" or "*" | write "/a""#],
    );
    check(
        r#"[[site.rule]]
name = "a"
path = "/a"
[[site.rule]]
name = "a"
path = "/b"
"#,
        &[
            r#"9:8 error: two rules of the site have the name "a"; the first is in line 5 | give each rule its own name"#,
        ],
    );
}

#[test]
fn tests_in_the_file_are_checked() {
    let check = |body: &str, expected: &[&str]| {
        check(
            &format!(
                "{}{body}",
                r#"[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
[[site.rule]]
name = "images"
path = "/i/*"
"#
            ),
            expected,
        )
    };
    check(
        r#"[[site.test]]
"#,
        &[
            r#"8:1 error: [[site.test]] has no get | add get = "/static/a.css?v=1""#,
            "8:1 error: [[site.test]] has no expect | add expect = { rule = 0 }",
        ],
    );
    check(
        r#"[[site.test]]
get = "https://shop.example/a"
expect = { rule = 1 }
"#,
        &[r#"9:7 error: get: "https://shop.example/a" is no path | write get = "/a", host = "shop.example""#],
    );
    check(
        r#"[[site.test]]
get = "/a"
host = "shop.exampel"
expect = { rule = 2 }
"#,
        &[
            r#"10:8 error: the host "shop.exampel" is none of the site's domains | did you mean "shop.example"?"#,
            "11:19 error: expect: there is no rule 2; the site has 1 | rules count from 1; 0 is the site's own keys",
        ],
    );
    check(
        r#"[[site.test]]
get = "/a"
expect = { rule = "image" }
"#,
        &[r#"10:19 error: expect: no rule has the name "image" | did you mean "images"?"#],
    );
    check(
        r#"[[site.test]]
get = "/a"
expect = {}
"#,
        &["10:10 warning: the test expects nothing | write e.g. expect = { rule = 1 }"],
    );
    check(
        r#"[[site.test]]
get = "/a"
expect = { tll = "1d", redirect = 1 }
"#,
        &[
            r#"10:12 error: unknown key "tll" in expect | did you mean "ttl"?"#,
            r#"10:35 error: redirect is the number 1; wanted is a URL or a path | write e.g. redirect = "https://www.shop.example/""#,
        ],
    );
    check(
        r#"[[site.test]]
get = "/a"
headers = { "A B" = "c" }
status = 99
expect = { rule = 0 }
"#,
        &[
            r#"10:13 error: "A B" is not a header name | a header name has letters, digits and "-", as in "X-Device""#,
            "11:10 error: status is 99; it may be 100 to 599",
        ],
    );
}

#[test]
fn orders_of_certificates_are_checked() {
    let site = "[[site]]\nname = \"shop\"\ndomains = [\"shop.example\", \"*.shop.example\"]\norigin = \"https://o.example\"\n";
    let check = |acme: &str, expected: &[&str]| check(&format!("[acme]\n{acme}\n{site}"), expected);
    check("accept_terms = true", &[]);
    check("", &["1:1 error: [acme] has no accept_terms | add accept_terms = true"]);
    check(
        "accept_terms = false",
        &[
            "2:16 error: accept_terms = false: an authority certifies nothing then | read the authority's terms of service and write accept_terms = true, or take [acme] out",
        ],
    );
    check(
        "accept_terms = true\ndirectory = \"http://ca.example/dir\"\nemail = \"mailto:a@b.example\"",
        &[
            r#"3:13 error: directory: "http://ca.example/dir" is not an https URL | write e.g. "https://acme-v02.api.letsencrypt.org/directory""#,
            r#"4:9 error: email: "mailto:a@b.example" is not an address | write e.g. "admin@shop.example""#,
        ],
    );
    check(
        "accept_terms = true\ndomains = [\"SHOP.example\", \"a.shop.example\", \"*.shop.example\", \"other.example\", \"a_b.shop.example\"]",
        &[
            r#"3:46 error: domains: "*.shop.example" is a wildcard, which takes DNS-01, and that is not spoken yet | name the domains one by one, or get the certificate elsewhere and name it in [[certificate]]"#,
            r#"3:64 error: domains: no site serves "other.example" | add it to the domains of a site, or leave it out here"#,
            r#"3:81 error: domains: "a_b.shop.example" is not a host name | write e.g. "www.shop.example""#,
        ],
    );
}

#[test]
fn visitors_are_asked_for_certificates_only_where_they_can_show_one_that_is_believed() {
    let tls = "[edge]\nlisten_tls = \"127.0.0.1:8443\"\n[[certificate]]\nchain = \"a\"\nkey = \"b\"\n";
    let site = "[[site]]\nname = \"a\"\ndomains = \"*\"\norigin = \"http://o.example\"\n";
    let required = "client_ca = \"ca.pem\"\nclient_certificate = \"required\"\n";
    check(&format!("{tls}{site}{required}https = \"redirect\"\n"), &[]);
    check(
        &format!("{tls}{site}{required}"),
        &[
            r#"11:22 warning: visitors without TLS can show no certificate, and get 403 | https = "redirect" sends them to where they can"#,
        ],
    );
    check(
        &format!("{tls}{site}client_certificate = \"optional\"\n"),
        &[
            r#"10:22 error: client_certificate is "optional", and the site does not say whose certificates it takes | add client_ca = "….pem" to the site, with the certificates of those who issue them"#,
        ],
    );
    check(
        &format!("{tls}{site}client_ca = \"ca.pem\"\n"),
        &[
            r#"10:13 warning: client_ca has no effect: no visitor is asked for a certificate | add client_certificate = "optional" or "required" to the site or to a rule"#,
        ],
    );
    check(
        &format!("{site}{required}https = \"redirect\"\n[edge]\ntrusted_proxies = \"192.0.2.1\"\n"),
        &[
            r#"6:22 error: client_certificate is "required", and this node does not listen with TLS: nobody can show one | add listen_tls to [edge]; a proxy that speaks TLS before this node cannot show it one"#,
        ],
    );
    let rule = "[[site.rule]]\nclient_certificate = \"required\"\nscheme =";
    check(
        &format!("{tls}{site}client_ca = \"ca.pem\"\n{rule} \"http\"\n"),
        &[
            r#"12:22 error: the rule is for visitors without TLS, who can show no certificate: it would answer nobody | leave scheme = "http" out"#,
        ],
    );
    check(&format!("{tls}{site}client_ca = \"ca.pem\"\n{rule} \"https\"\n"), &[]);
}
