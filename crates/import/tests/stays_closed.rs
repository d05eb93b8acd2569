//! What an import must not do: open what was guarded, share what was not, keep what was not kept. Each text is a configuration as
//! people run them; the tests of the site (`[[site.test]]`, as in configuration.md) are run against what comes of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use import::{Imported, Source, import};
use model::Snapshot;

/// Imports a text, and asks the last site that comes of it: by a line `PATH [METHOD] [HOST] [Header: value, …] -> WANTED`, where
/// what is wanted is `refused`, `passed`, `cached`, or an origin with one of the last two behind it.
#[track_caller]
fn check(source: Source, text: &str, asked: &[(&str, &str)]) -> Imported {
    let imported = import(source, text, "text").unwrap();
    let mut config = imported.config.clone();
    for (request, wanted) in asked {
        let (line, headers) = request.split_once(" with ").unwrap_or((request, ""));
        let mut words = line.split(' ');
        config.push_str(&format!("\n[[site.test]]\nget = {:?}\n", words.next().unwrap()));
        for word in words {
            let key = if word.bytes().all(|byte| byte.is_ascii_uppercase()) { "method" } else { "host" };
            config.push_str(&format!("{key} = {word:?}\n"));
        }
        if let Some((name, value)) = headers.split_once(": ") {
            config.push_str(&format!("headers = {{ {name} = {value:?} }}\n"));
        }
        let expect = match wanted.split_once(' ') {
            _ if *wanted == "refused" => "origin = \"http://refused.invalid\", cache = false".to_owned(),
            Some(("to", target)) => format!("redirect = {target:?}"),
            Some((origin, how)) => format!("origin = \"http://{origin}\", cache = {}", how == "cached"),
            None => format!("cache = {}", *wanted == "cached"),
        };
        config.push_str(&format!("expect = {{ {expect} }}\n"));
    }
    let parsed = Snapshot::parse(&config, "imported");
    let snapshot = parsed.snapshot.unwrap_or_else(|| panic!("{config}\n{:?}", parsed.diagnostics));
    let failed: String = snapshot.run_tests().iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{failed}\n{config}");
    imported
}

/// Whether the report says of a statement that it is not mapped.
fn is_told(imported: &Imported, statement: &str) -> bool {
    imported.items.iter().any(|item| item.directive.starts_with(statement) && item.is_open())
}

// --- nginx ---

fn server(inside: &str) -> String {
    format!(
        "proxy_cache_path /c keys_zone=z:1m max_size=1g; proxy_cache z; proxy_cache_valid 200 1h;\n\
         server {{ server_name a.example; {inside} }}"
    )
}

const REST: &str = "location / { proxy_pass http://10.0.0.1; }";

#[test]
fn a_guard_under_an_expression_that_cannot_be_said_refuses_all_that_it_could_be_for() {
    let text = server(&format!("location ~ ^/(?!public)secret[0-9]+/(a|b)\\1 {{ deny all; }} {REST}"));
    let imported = check(
        Source::Nginx,
        &text,
        &[("/secret1/aa", "refused"), ("/secretary/b/x", "refused"), ("/other", "10.0.0.1 cached")],
    );
    assert!(is_told(&imported, "location ~ ^/(?!public)"));
    let text = server(&format!("location ~ \\Qx\\E {{ auth_basic on; proxy_pass http://10.0.0.2; }} {REST}"));
    check(Source::Nginx, &text, &[("/x", "refused"), ("/other", "refused")]);
}

#[test]
fn a_guard_that_ignores_letter_case_is_closed_in_every_case() {
    let text = server(&format!(
        "if ($http_user_agent ~* (badbot|evil)) {{ return 403; }} location ~* \\.(php|bak)$ {{ deny all; }} {REST}"
    ));
    check(
        Source::Nginx,
        &text,
        &[
            ("/a.PhP", "refused"),
            ("/a with User-Agent: a BadBot/1", "refused"),
            ("/a with User-Agent: EVIL", "refused"),
            ("/a with User-Agent: good", "10.0.0.1 cached"),
        ],
    );
}

#[test]
fn a_guard_whose_condition_cannot_be_said_refuses_the_whole_place_that_it_stands_in() {
    for condition in
        ["$geo_blocked", "$arg_token !~ \"^[a-f]+$\"", "$remote_addr ~ ^10", "!-f $request_filename"]
    {
        let imported = check(
            Source::Nginx,
            &server(&format!("if ({condition}) {{ return 403; }} {REST}")),
            &[("/", "refused"), ("/x", "refused")],
        );
        assert!(imported.config.contains("so all is refused"), "{}", imported.config);
        check(
            Source::Nginx,
            &server(&format!(
                "location /p/ {{ if ({condition}) {{ return 403; }} proxy_pass http://10.0.0.1; }} {REST}"
            )),
            &[("/p/x", "refused"), ("/x", "10.0.0.1 cached")],
        );
    }
    // A variable may stand for the query.
    for sets in
        ["set $bad 0; if ($arg_x = 1) { set $bad 1; }", "set $bad ''; if ($args ~ passwd) { set $bad yes; }"]
    {
        check(
            Source::Nginx,
            &server(&format!("{sets} if ($bad) {{ return 403; }} {REST}")),
            &[("/", "refused"), ("/x?x=1", "refused")],
        );
    }
    let map = "map $arg_x $bad { default 0; 1 1; }";
    let guarded = server(&format!("if ($bad) {{ return 403; }} {REST}"));
    check(Source::Nginx, &format!("{map} {guarded}"), &[("/", "refused"), ("/x?x=1", "refused")]);
    // What is in the query may be what is refused.
    check(
        Source::Nginx,
        &server(&format!("if ($request_uri ~ \"passwd\") {{ return 403; }} {REST}")),
        &[("/x?file=passwd", "refused")],
    );
}

#[test]
fn a_guard_for_all_but_some_lets_these_in_and_nobody_else() {
    check(
        Source::Nginx,
        &server(&format!("if ($http_x_secret != \"abc\") {{ return 403; }} {REST}")),
        &[("/", "refused"), ("/ with X-Secret: abd", "refused"), ("/ with X-Secret: abc", "10.0.0.1 cached")],
    );
    check(
        Source::Nginx,
        &server(&format!(
            "location /p/ {{ if ($cookie_a !~ \"^(b|c)$\") {{ return 302 /login; }} proxy_pass http://10.0.0.2; }} {REST}"
        )),
        &[("/p/x", "to /login"), ("/p/x with Cookie: a=c", "10.0.0.2 cached"), ("/x", "10.0.0.1 cached")],
    );
    // Methods that nobody thinks of are refused too.
    check(
        Source::Nginx,
        &server(
            "if ($request_method !~ ^(GET|HEAD|POST)$) { return 405; } location / { limit_except GET { deny all; } proxy_pass http://10.0.0.1; }",
        ),
        &[
            ("/ PROPFIND", "refused"),
            ("/ POST", "refused"),
            ("/", "10.0.0.1 cached"),
            ("/ HEAD", "10.0.0.1 cached"),
        ],
    );
}

#[test]
fn a_map_that_guards_is_read() {
    let text = format!(
        "map $http_user_agent $bad {{ default 0; ~*curl 1; }} {}",
        server(&format!("if ($bad) {{ return 403; }} {REST}"))
    );
    check(Source::Nginx, &text, &[("/ with User-Agent: Curl/8", "refused"), ("/", "10.0.0.1 cached")]);
}

#[test]
fn networks_that_are_denied_in_one_place_are_blocked() {
    let text = server("location / { deny 203.0.113.0/24; allow all; proxy_pass http://10.0.0.1; }");
    let imported = check(Source::Nginx, &text, &[("/", "10.0.0.1 cached")]);
    assert!(imported.config.contains("block = \"203.0.113.0/24\""), "{}", imported.config);
    let text = server("location / { deny 0.0.0.0/0; proxy_pass http://10.0.0.1; }");
    check(Source::Nginx, &text, &[("/", "refused")]);
}

#[test]
fn a_pattern_that_holds_for_more_opens_no_guard_behind_it() {
    let text = server(&format!(
        "location ~ ^/v[0-9]+/ {{ proxy_pass http://10.0.0.2; }} location /vault/ {{ deny all; }} \
         location /v-own/ {{ proxy_pass http://10.0.0.3; proxy_cache off; }} {REST}"
    ));
    check(
        Source::Nginx,
        &text,
        &[
            ("/v1/x", "10.0.0.2 cached"),
            ("/vault/x", "refused"),
            ("/v-own/me/", "10.0.0.3 passed"),
            ("/x", "10.0.0.1 cached"),
        ],
    );
    // An expression that nginx would try before the prefix that lies within another.
    let text = server(&format!(
        "location ^~ /static/ {{ proxy_pass http://10.0.0.2; }} location /static/up/ {{ proxy_pass http://10.0.0.3; }} \
         location ~ \\.php$ {{ deny all; }} {REST}"
    ));
    check(Source::Nginx, &text, &[("/static/up/x.php", "refused"), ("/static/up/x", "10.0.0.3 cached")]);
}

#[test]
fn another_spelling_of_a_path_is_no_way_around_its_guard() {
    let text = server(&format!("location /admin/ {{ deny all; }} {REST}"));
    let asked = [
        "/admin/",
        "//admin/",
        "/./admin/",
        "/x/../admin/",
        "/admin%2Fx",
        "/%2e/admin/",
        "/%61dmin/",
        "/x/..",
    ]
    .map(|path| (path, "refused"));
    check(Source::Nginx, &text, &asked);
    check(Source::Nginx, &text, &[("/a.b/c..d/.well-known/x", "10.0.0.1 cached")]);
    check(
        Source::Nginx,
        &server("location \"/my files/\" { deny all; } location / { proxy_pass http://10.0.0.1; }"),
        &[("/my%20files/x", "refused"), ("/x", "10.0.0.1 cached")],
    );
}

#[test]
fn a_location_that_was_not_shared_and_cannot_be_said_is_shared_nowhere() {
    let text = server(&format!(
        "location ~ ^/(?!css)me {{ proxy_pass http://10.0.0.2; proxy_cache off; }} location /css/ {{ proxy_pass http://10.0.0.1; }} {REST}"
    ));
    check(Source::Nginx, &text, &[("/me", "10.0.0.1 passed"), ("/css/a", "10.0.0.1 cached")]);
}

#[test]
fn a_pass_whose_paths_only_meet_those_of_its_location_is_a_pass() {
    let text = server(
        "set $skip 0; if ($uri ~ \\.json$) { set $skip 1; } location /api/ { proxy_pass http://10.0.0.1; proxy_no_cache $skip; proxy_cache_bypass $skip; }",
    );
    check(Source::Nginx, &text, &[("/api/x.json", "10.0.0.1 passed"), ("/api/x", "10.0.0.1 cached")]);
}

#[test]
fn a_server_of_this_machine_alone_is_no_site_for_all() {
    let text = format!(
        "{} server {{ listen 127.0.0.1:8081; server_name status.example; location / {{ proxy_pass http://10.0.0.9; }} }}",
        server(REST)
    );
    let imported = check(Source::Nginx, &text, &[("/", "10.0.0.1 cached")]);
    assert!(
        !imported.config.contains("status.example") && !imported.config.contains("8081"),
        "{}",
        imported.config
    );
}

#[test]
fn what_sends_strangers_away_is_not_passed_by() {
    let text = server(&format!(
        "location ~ ^/v[0-9]+/ {{ proxy_pass http://10.0.0.2; }} \
         location /vault/ {{ if ($cookie_a !~ \"^(b|c)$\") {{ return 302 /login; }} proxy_pass http://10.0.0.3; }} {REST}"
    ));
    check(
        Source::Nginx,
        &text,
        &[("/vault/x", "to /login"), ("/v1/x", "10.0.0.2 cached"), ("/x", "10.0.0.1 cached")],
    );
}

#[test]
fn a_pass_that_comes_before_a_wide_rule_opens_no_guard() {
    // The guard never meets the wide rule, so that it has to come before the pass alone.
    let text = server(&format!(
        "location ~ ^/[a-z]+/x$ {{ proxy_pass http://10.0.0.2; }} \
         location ~ \\.php$ {{ deny all; }} location ~ ^/p {{ proxy_pass http://10.0.0.3; proxy_cache off; }} {REST}"
    ));
    check(
        Source::Nginx,
        &text,
        &[
            ("/p.php", "refused"),
            ("/p/x", "10.0.0.3 passed"),
            ("/a/x", "10.0.0.2 cached"),
            ("/a", "10.0.0.1 cached"),
        ],
    );
}

#[test]
fn a_rule_that_shares_with_more_takes_nothing_that_is_kept_apart() {
    let text = server(&format!(
        "location ~ ^/u[0-9]+/ {{ proxy_pass http://10.0.0.2; }} \
         location /user/ {{ proxy_pass http://10.0.0.3; proxy_cache_key $host$request_uri$cookie_session; }} {REST}"
    ));
    check(Source::Nginx, &text, &[("/user/x", "10.0.0.3 passed"), ("/u1/x", "10.0.0.2 cached")]);
    // The query is not in every key.
    for (wide, own, wanted) in [
        ("$host$uri", "$host$request_uri", "10.0.0.3 passed"),
        ("$host$uri$arg_a", "$host$uri$arg_b", "10.0.0.3 passed"),
        ("$host$request_uri", "$host$uri", "10.0.0.2 cached"),
        ("$host$uri", "$host$uri", "10.0.0.2 cached"),
    ] {
        let text = server(&format!(
            "location ~ ^/u[0-9]+/ {{ proxy_pass http://10.0.0.2; proxy_cache_key {wide}; }} \
             location /user/ {{ proxy_pass http://10.0.0.3; proxy_cache_key {own}; }} \
             location / {{ proxy_pass http://10.0.0.1; proxy_cache_key {wide}; }}"
        ));
        check(Source::Nginx, &text, &[("/user/x?a=1&b=2", wanted), ("/u1/x", "10.0.0.2 cached")]);
    }
}

#[test]
fn a_redirect_of_one_location_is_none_of_the_whole_site() {
    let text = server(&format!(
        "location /a/ {{ rewrite ^(.*)$ https://b.example/new$1 permanent; proxy_pass http://10.0.0.2; }} \
         location /c/ {{ rewrite ^/c/(.*)$ /d/$1 permanent; proxy_pass http://10.0.0.2; }} {REST}"
    ));
    let imported = check(
        Source::Nginx,
        &text,
        &[
            ("/x", "10.0.0.1 cached"),
            ("/b/a/", "10.0.0.1 cached"),
            ("/a/x", "10.0.0.2 cached"),
            ("/c/x", "to /d/x"),
        ],
    );
    assert!(is_told(&imported, "rewrite ^(.*)$"), "{:#?}", imported.items);
}

#[test]
fn rules_beyond_what_a_site_may_have_are_not_left_out() {
    let many = |count: usize| {
        let locations: String = (0..count)
            .map(|number| format!("location ~ ^/{number}[0-9]+/ {{ proxy_pass http://10.0.0.1; }} "))
            .collect();
        server(&format!("{locations} location / {{ deny all; }}"))
    };
    for count in [100, 600] {
        check(Source::Nginx, &many(count), &[("/x", "refused"), ("/1x/", "refused")]);
    }
    let broken = import(Source::Nginx, &many(1000), "nginx.conf").unwrap_err();
    assert!(broken.message.contains("a site may have 1000"), "{broken}");
}

#[test]
fn what_is_rewritten_is_as_closed_as_where_it_leads_to() {
    let rewritten = |rewrite: &str| {
        server(&format!(
            "{rewrite} location /app/ {{ proxy_pass http://10.0.0.2; proxy_cache off; }} location /own/ {{ deny all; }} \
             location ~ /\\.ht {{ deny all; }} {REST}"
        ))
    };
    let cases = [
        ("rewrite ^/(.*)\\.html$ /app/$1 last;", "passed"),
        ("rewrite ^/(.*)\\.html$ /own/$1;", "refused"),
        ("rewrite ^/(.*)\\.html$ /static/$1 last;", "cached"),
        ("if ($http_x) { rewrite ^/(.*)\\.html$ /app/ break; }", "passed"),
        ("rewrite ^/[a-z]+(/.*\\.html)$ $1 last;", "refused"),
        ("location /x/ { rewrite ^/x/(.*) /app/$1 last; proxy_pass http://10.0.0.1; }", "passed"),
        ("location /x/ { rewrite ^/x/(.*) /app/$1 break; proxy_pass http://10.0.0.1; }", "cached"),
    ];
    for (rewrite, wanted) in cases {
        let imported = check(
            Source::Nginx,
            &rewritten(rewrite),
            &[("/x/a.html", wanted), ("/y", "cached"), ("/own/a.html", "refused")],
        );
        assert!(is_told(&imported, "rewrite"), "{rewrite}");
    }
}

#[test]
fn a_key_that_nginx_computes_shares_nothing() {
    let keyed = |key: &str| server(&format!("proxy_cache_key {key}; {REST}"));
    for key in ["$host$uri$remote_user", "$host$request_uri$geoip_country_code", "$uri$my_segment"] {
        let imported = check(Source::Nginx, &keyed(key), &[("/x", "10.0.0.1 passed")]);
        assert!(is_told(&imported, "proxy_cache_key"), "{key}");
    }
    let imported =
        check(Source::Nginx, &keyed("$host$request_uri$http_cookie"), &[("/x", "10.0.0.1 cached")]);
    assert!(imported.config.contains("key.headers = \"Cookie\""), "{}", imported.config);
    let map = "map $http_user_agent $kind { default pc; ~*mobile phone; }";
    let text = format!("{map} {}", keyed("$host$request_uri$kind"));
    let imported = check(Source::Nginx, &text, &[("/x", "10.0.0.1 cached")]);
    assert!(imported.config.contains("key.headers = \"user-agent\""), "{}", imported.config);
    assert!(is_told(&imported, "proxy_cache_key"));
    // What a map says may be a variable too.
    let mapped = |map: &str| format!("{map} {}", keyed("$host$request_uri$who"));
    for map in [
        "map $cookie_lang $who { default $remote_user; x anon; }",
        "map $cookie_lang $who { default anon; x \"a-${ssl_client_s_dn}\"; }",
        "map $cookie_lang $who { default anon; include elsewhere.map; }",
        "map $cookie_lang $who { default anon; x $2of_no_expression; }",
    ] {
        check(Source::Nginx, &mapped(map), &[("/x", "10.0.0.1 passed")]);
    }
    for (map, said) in [
        ("map $cookie_lang $who { default $http_x_a; x anon; }", "key.headers = \"x-a\""),
        ("map $cookie_lang $who { default \"\"; \"~^(?<own>..)(.)\" $own$2; }", "key.cookies = \"lang\""),
    ] {
        let imported = check(Source::Nginx, &mapped(map), &[("/x", "10.0.0.1 cached")]);
        assert!(imported.config.contains("key.cookies = \"lang\""), "{}", imported.config);
        assert!(imported.config.contains(said), "{}", imported.config);
    }
}

#[test]
fn what_is_rewritten_twice_is_as_closed_as_where_it_leads_to_at_last() {
    let rewritten = |rewrites: &str| {
        server(&format!(
            "{rewrites} location /own/ {{ deny all; }} location ~ \\.php$ {{ deny all; }} location ~ /\\.ht {{ deny all; }} {REST}"
        ))
    };
    for (rewrites, wanted) in [
        ("rewrite ^/x/(.*) /y/$1; rewrite ^/y/(.*) /own/$1;", "refused"),
        ("rewrite ^/x/(.*) /y/$1; rewrite ^/y/(.*) /z/$1; rewrite ^/z/ /own/;", "refused"),
        ("rewrite ^/x/(.*) /y/$1.php; rewrite ^/y/(.*) /app/$1;", "refused"),
        ("rewrite ^/x/ /y/ last; location /y/ { rewrite ^/y/ /own/ last; }", "refused"),
        ("rewrite ^/x/b(.*)$ /files/$1;", "refused"),
        // Nothing comes behind it, or it comes too late.
        ("rewrite ^/x/(.*) /y/$1 last; rewrite ^/y/(.*) /own/$1;", "cached"),
        ("rewrite ^/y/(.*) /own/$1; rewrite ^/x/(.*) /y/$1;", "cached"),
    ] {
        check(Source::Nginx, &rewritten(rewrites), &[("/x/b", wanted), ("/z2", "cached")]);
    }
}

#[test]
fn what_may_keep_somebody_out_in_a_way_that_is_not_read_refuses_all() {
    for guard in [
        "access_by_lua_file /etc/nginx/who.lua;",
        "rewrite_by_lua_block { require(\"resty.openidc\").authenticate() }",
        "js_access main.check;",
        "auth_ldap \"members\";",
        "auth_gss on;",
        "auth_oidc main;",
        "modsecurity on;",
        "include snippets/office-only.conf;",
        "include snippets/ssl-clients.conf;",
        "include /etc/nginx/guards/*.conf;",
    ] {
        let place = format!("location /x/ {{ {guard} proxy_pass http://10.0.0.2; }} {REST}");
        let imported =
            check(Source::Nginx, &server(&place), &[("/x/a", "refused"), ("/other", "10.0.0.1 cached")]);
        assert!(is_told(&imported, guard.split([' ', ';']).next().unwrap()), "{guard}");
        check(Source::Nginx, &server(&format!("{guard} {REST}")), &[("/x/a", "refused")]);
    }
    for harmless in [
        "auth_ldap off;",
        "auth_basic off; auth_basic_user_file /etc/nginx/.htpasswd;",
        "modsecurity off;",
        "include proxy_params;",
        "include /etc/letsencrypt/options-ssl-nginx.conf;",
        "header_filter_by_lua_block { ngx.header.x = 1 }",
    ] {
        check(Source::Nginx, &server(&format!("{harmless} {REST}")), &[("/x/a", "10.0.0.1 cached")]);
    }
    // What nginx prints has all files: of a pattern that none is for there is none.
    let dump = |include: &str| {
        let inside = server(&format!("include {include}; {REST}"));
        format!("# configuration file /etc/nginx/nginx.conf:\nhttp {{ {inside} }}\n")
    };
    check(Source::Nginx, &dump("/etc/nginx/default.d/*.conf"), &[("/x/a", "10.0.0.1 cached")]);
    check(Source::Nginx, &dump("/etc/nginx/guard.conf"), &[("/x/a", "refused")]);
    // Whoever imports nginx.conf alone has no servers of others in it.
    let text = format!("http {{ include conf.d/*.conf; server {{ server_name a.example; {REST} }} }}");
    check(Source::Nginx, &text, &[("/x/a", "10.0.0.1 passed")]);
}

#[test]
fn braces_in_texts_and_comments_of_lua_end_no_block() {
    for lua in [
        r#"ngx.say("}", '{"', "\"}")"#,
        "-- it's {",
        "--[[ {\n' ]] local a = b[c[1]]",
        "local a = [==[ }}\" ]] ]=] ]==]",
        "local a = { '--' } -- }",
    ] {
        let text = server(&format!("header_filter_by_lua_block {{ {lua}\n }} {REST}"));
        check(Source::Nginx, &text, &[("/x/a", "10.0.0.1 cached")]);
    }
}

#[test]
fn what_the_origin_told_the_old_cache_alone_is_heard_or_spoken_of() {
    let rulesets = "{\"result\": {\"rules\": [{\"action\": \"set_cache_settings\", \"expression\": \"true\", \
                    \"action_parameters\": {\"cache\": true}}]}}";
    let imported = import(Source::Cloudflare, rulesets, "text").unwrap();
    let snapshot = Snapshot::parse(&imported.config, "imported").snapshot.unwrap();
    let targeted = &snapshot.sites[0].rules[0].policy.targeted;
    let place = |name: &str| targeted.iter().position(|known| known.eq_ignore_ascii_case(name)).unwrap();
    assert!(place("Cloudflare-CDN-Cache-Control") < place("CDN-Cache-Control"), "{targeted:?}");

    // In the configuration, and in the report.
    let said = |imported: Imported, header: &str, statement: &str| {
        (imported.config.contains(header), is_told(&imported, statement))
    };
    let of = |inside: &str| {
        said(import(Source::Nginx, &server(inside), "text").unwrap(), "X-Accel-Expires", "proxy_cache z")
    };
    assert_eq!(of(REST), (true, true));
    assert_eq!(of(&format!("proxy_ignore_headers X-Accel-Expires; {REST}")), (false, false));
    assert_eq!(of("location / { proxy_cache off; proxy_pass http://10.0.0.1; }"), (false, false));
    let vcl = "vcl 4.0; backend default { .host = \"10.0.0.1\"; }";
    let vcl = import(Source::Vcl, vcl, "text").unwrap();
    assert_eq!(said(vcl, "Surrogate-Control", "backend default"), (true, true));
}

#[test]
fn what_is_guarded_where_try_files_leads_to_is_guarded() {
    let text = server(
        "location / { try_files $uri @app; } \
         location @app { auth_basic members; auth_basic_user_file f; proxy_pass http://10.0.0.2; }",
    );
    check(Source::Nginx, &text, &[("/x", "refused")]);
}

#[test]
fn what_is_rewritten_to_a_file_is_as_closed_as_such_files() {
    for (place, wanted) in [
        ("fastcgi_pass 127.0.0.1:9000;", "passed"),
        ("auth_basic on; proxy_pass http://10.0.0.2;", "refused"),
    ] {
        let rewritten = |rewrite: &str| server(&format!("{rewrite} location ~ \\.php$ {{ {place} }} {REST}"));
        for rewrite in [
            "rewrite ^/page/(.*)$ /app/$1.php last;",
            "rewrite ^/page/(.*)$ /app/${1}.php;",
            "rewrite ^/page/ $fastcgi_script_name.php last;",
            "rewrite ^/page/(.*)/(.*)$ /$1/$2x.php?y=$1 last;",
        ] {
            let asked = [("/page/a/b", wanted), ("/x.php", wanted), ("/x", "cached")];
            check(Source::Nginx, &rewritten(rewrite), &asked);
        }
        // What ends so is so where it comes from.
        for rewrite in ["rewrite ^/page/(.*)$ /app/$1.html last;", "rewrite ^/page/(.*)$ /app/$1 last;"] {
            let asked = [("/page/a/b", "cached"), ("/page/a.php", wanted)];
            check(Source::Nginx, &rewritten(rewrite), &asked);
        }
        for rewrite in [
            "rewrite ^/page/(.*)/b$ /app/$1 last;",
            "rewrite ^/page/ /app/$arg_file last;",
            "rewrite ^/page/a/([a-z.]+) /$1;",
            "rewrite ^/page(?<own>/a)(/.*)$ $1;",
            "rewrite ^/page/(.*)$ /app.p$1;",
            "rewrite ^/page/(a|.*b) /app/$1;",
        ] {
            check(Source::Nginx, &rewritten(rewrite), &[("/page/a/b", wanted), ("/x", "cached")]);
        }
    }
}

#[test]
fn another_spelling_of_a_path_that_is_not_stored_is_not_stored() {
    let text =
        server(&format!("location /account/ {{ proxy_pass http://10.0.0.1; proxy_cache off; }} {REST}"));
    let asked = ["//account/x", "/x//account/", "/account%2Fx"].map(|path| (path, "passed"));
    check(Source::Nginx, &text, &asked);
    check(Source::Nginx, &text, &[("/x", "cached")]);
    // What is guarded wherever it is stays so.
    let text = server(
        "location /account/ { proxy_pass http://10.0.0.1; proxy_cache off; } \
         location / { if ($cookie_a !~ \"^b$\") { return 302 /login; } proxy_pass http://10.0.0.1; }",
    );
    check(Source::Nginx, &text, &[("//account/x", "refused"), ("/x", "to /login")]);
}

// --- Varnish ---

fn program(recv: &str, rest: &str) -> String {
    format!(
        "vcl 4.1; backend default {{ .host = \"10.0.0.1\"; }} backend b {{ .host = \"10.0.0.2\"; }} sub vcl_recv {{ {recv} }} {rest}"
    )
}

#[test]
fn a_statement_after_a_return_is_not_reached() {
    let text = program(
        "if (req.url ~ \"^/a/\") { return (pass); set req.backend_hint = b; } \
         if (req.url ~ \"^/a/b/\") { set req.backend_hint = b; unset req.http.Cookie; return (hash); } \
         unset req.http.Cookie; return (hash); set req.backend_hint = b;",
        "",
    );
    let imported = check(
        Source::Vcl,
        &text,
        &[("/a/b/c", "10.0.0.1 passed"), ("/x with Cookie: a=1", "10.0.0.1 cached")],
    );
    assert!(
        imported
            .items
            .iter()
            .any(|item| item.outcomes.iter().any(|one| one.text().starts_with("nothing comes there")))
    );
    // What a pass sends to the origin is as it was there.
    let text = program("if (req.url ~ \"^/a/\") { return (pass); } unset req.http.Cookie;", "");
    let imported = check(Source::Vcl, &text, &[("/a/x", "10.0.0.1 passed")]);
    let rule = imported.config.split("[[site.rule]]").nth(1).unwrap();
    assert!(rule.contains("/a/*") && !rule.contains("request_cookies"), "{}", imported.config);
}

#[test]
fn else_holds_where_what_stands_before_it_does_not() {
    let text = program(
        "if (req.http.host == \"a.example\") { set req.backend_hint = b; } \
         elsif (req.http.X-Debug) { return (pass); } else { unset req.http.Cookie; } return (hash);",
        "",
    );
    check(
        Source::Vcl,
        &text,
        &[
            ("/ a.example with X-Debug: 1", "10.0.0.2 cached"),
            ("/ b.example with X-Debug: 1", "10.0.0.1 passed"),
            ("/ b.example", "10.0.0.1 cached"),
        ],
    );
    let imported = import(Source::Vcl, &text, "text").unwrap();
    let of_host = imported.config.split("[[site.rule]]").find(|rule| rule.contains("a.example")).unwrap();
    assert!(!of_host.contains("request_cookies"), "{}", imported.config);
}

#[test]
fn is_not_is_said_by_the_order_of_rules() {
    let text = program(
        "if (req.http.X-Secret != \"abc\" && !(req.url ~ \"^/open/\")) { return (synth(403)); } return (hash);",
        "",
    );
    check(
        Source::Vcl,
        &text,
        &[
            ("/", "refused"),
            ("/ with X-Secret: abd", "refused"),
            ("/ with X-Secret: abc", "10.0.0.1 cached"),
            ("/open/x", "10.0.0.1 cached"),
        ],
    );
}

#[test]
fn a_pass_whose_condition_cannot_be_read_passes_the_smallest_scope_that_can_be_said() {
    let text = program(
        "if (req.http.host == \"a.example\") { if (std.ip(req.http.X-Ip, \"0\") ~ office) { return (pass); } } return (hash);",
        "",
    );
    let imported = check(Source::Vcl, &text, &[("/ a.example", "passed"), ("/ b.example", "cached")]);
    assert!(is_told(&imported, "if (std.ip"));
    let text = program("if (req.url ~ \"^/shop/(?!static)\") { return (pass); } return (hash);", "");
    check(Source::Vcl, &text, &[("/shop/x", "passed"), ("/x", "cached")]);
    let text = program(
        "return (hash);",
        "sub vcl_backend_response { if (beresp.http.X-Mine) { set beresp.uncacheable = true; } }",
    );
    check(Source::Vcl, &text, &[("/x", "passed")]);
    // It may have to be passed with its cookies.
    let text =
        program("if (client.ip ~ office) { return (pass); } unset req.http.Cookie; return (hash);", "");
    let imported = check(Source::Vcl, &text, &[("/x", "passed")]);
    assert!(!imported.config.contains("request_cookies"), "{}", imported.config);
}

#[test]
fn what_is_stored_by_no_cache_is_no_reason_to_pass_all() {
    let text = program(
        "return (hash);",
        "sub vcl_backend_response { if (beresp.http.Set-Cookie || beresp.http.Cache-Control ~ \"no-cache|no-store|private\" || beresp.ttl <= 0s) \
         { set beresp.ttl = 120s; set beresp.uncacheable = true; return (deliver); } }",
    );
    let imported = check(Source::Vcl, &text, &[("/x", "cached")]);
    let mut open = imported.items.iter().filter(|item| item.is_open());
    // These are told about Surrogate-Control.
    assert!(open.all(|item| item.directive.starts_with("backend ")), "{:#?}", imported.items);
}

#[test]
fn a_guard_by_address_refuses_all_that_stand_before_it() {
    let text = program(
        "if (req.method == \"PURGE\") { if (!client.ip ~ purgers) { return (synth(405)); } return (purge); } \
         if (req.url ~ \"^/admin/\" && !(client.ip ~ office)) { return (synth(403)); } return (hash);",
        "acl office { \"10.0.0.0\"/8; }",
    );
    check(Source::Vcl, &text, &[("/ PURGE", "refused"), ("/admin/x", "refused"), ("/x", "cached")]);
    check(Source::Vcl, &program("if (client.ip ~ bad) { return (synth(403)); }", ""), &[("/x", "refused")]);
    check(
        Source::Vcl,
        &program("if (req.url ~ \"secret=\") { return (synth(403)); }", ""),
        &[("/x", "refused")],
    );
}

#[test]
fn what_is_called_is_done() {
    let text = program(
        "call guard; call hide; return (hash);",
        "sub guard { if (req.url ~ \"^/open/\") { return; } if (!req.http.X-Token) { return (synth(401)); } } sub hide { unset req.http.Cookie; }",
    );
    check(Source::Vcl, &text, &[("/x", "refused"), ("/x with X-Token: 1", "cached"), ("/open/x", "cached")]);
    check(Source::Vcl, &program("call elsewhere; return (hash);", ""), &[("/x", "passed")]);
}

#[test]
fn a_key_that_is_computed_shares_nothing() {
    let hash = "sub vcl_hash { hash_data(req.url); hash_data(req.http.X-Lang); }";
    let recv = "set req.http.X-Lang = regsub(req.http.Cookie, \".*lang=(..).*\", \"\\1\"); return (hash);";
    check(Source::Vcl, &program(recv, hash), &[("/x", "passed")]);
    check(Source::Vcl, &program("return (hash);", hash), &[("/x", "cached")]);
    check(
        Source::Vcl,
        &program("return (hash);", "sub vcl_hash { hash_data(cookie.get(\"a\")); }"),
        &[("/x", "passed")],
    );
}

#[test]
fn a_key_of_texts_that_the_program_sets_shares_nothing() {
    let recv = "if (req.http.User-Agent ~ \"Mobile\") { set req.http.X-Kind = \"phone\"; } else { set req.http.X-Kind = \"pc\"; } return (hash);";
    let imported = check(
        Source::Vcl,
        &program(recv, "sub vcl_hash { hash_data(req.url); hash_data(req.http.X-Kind); }"),
        &[("/x", "passed"), ("/x with User-Agent: Mobile", "passed")],
    );
    assert!(is_told(&imported, "hash_data (req.http.X-Kind"), "{:#?}", imported.items);
}

#[test]
fn what_the_program_has_changed_is_not_what_visitors_send() {
    // Whatever visitors send in it.
    let office = "set req.http.X-Office = regsub(client.ip, \"^10.*\", \"1\");";
    for (before, asked) in [
        (office, "req.http.X-Office == \"1\""),
        (office, "req.http.x-office"),
        ("header.remove(req.http.X-Office, \"a\");", "req.http.X-Office"),
        ("if (client.ip ~ office) { set req.http.X-Office = \"1\"; }", "req.http.X-Office"),
        ("unset req.http.X-Office;", "req.http.X-Office"),
        ("set req.http.X-Office = \"0\";", "req.http.X-Office == \"1\""),
        ("set req.http.X-Office = \"0\";", "req.http.X-Office ~ \"^1\""),
        ("call elsewhere;", "req.http.X-Office"),
        // Varnish adds the visitor's address to it.
        ("", "req.http.X-Forwarded-For ~ \"10.0.0.1\""),
    ] {
        let text =
            program(&format!("{before} if (!({asked})) {{ return (synth(403)); }} return (hash);"), "");
        check(
            Source::Vcl,
            &text,
            &[
                ("/", "refused"),
                ("/ with X-Office: 1", "refused"),
                ("/ with X-Forwarded-For: 10.0.0.1", "refused"),
            ],
        );
    }
    // A path without its language, which nobody asks for.
    let url = |asked: &str| {
        let recv = format!(
            "set req.url = regsub(req.url, \"^/[a-z][a-z]/\", \"/\"); if ({asked}) {{ return (pass); }} return (hash);"
        );
        program(&recv, "")
    };
    check(Source::Vcl, &url("req.url ~ \"^/account\""), &[("/en/account", "passed"), ("/account", "passed")]);
    check(Source::Vcl, &url("req.url == \"/account\""), &[("/en/account", "passed")]);
    let text = program(
        "return (hash);",
        "sub vcl_backend_fetch { set bereq.url = \"/app\" + bereq.url; } \
         sub vcl_backend_response { if (bereq.url ~ \"^/app/account\") { set beresp.uncacheable = true; } }",
    );
    check(Source::Vcl, &text, &[("/account", "passed")]);
    // What vcl_deliver asks for is not what went to the origin, and what vcl_hit asks for not what vcl_deliver has made of it.
    for (first, second, wanted) in [
        ("vcl_backend_response", "vcl_deliver", "refused"),
        ("vcl_deliver", "vcl_hit", "refused"),
        ("vcl_deliver", "vcl_pass", "refused"),
    ] {
        for (change, asked) in [
            ("unset req.http.X-Own;", "req.http.X-Own"),
            ("set req.http.X-Own = \"1\";", "req.http.X-Own ~ \"2\""),
        ] {
            let change =
                if first == "vcl_deliver" { change.to_owned() } else { change.replace("req.", "bereq.") };
            let text = program(
                "return (hash);",
                &format!(
                    "sub {first} {{ {change} }} sub {second} {{ if ({asked}) {{ return (synth(403)); }} }}"
                ),
            );
            check(Source::Vcl, &text, &[("/x with X-Own: 2", wanted)]);
        }
    }
    // All of it is as visitors sent it again.
    for change in ["unset req.http.X-Own;", "set req.http.X-Own = \"1\";"] {
        let recv = format!(
            "{change} std.rollback(req); if (req.http.X-Own == \"2\") {{ return (synth(403)); }} return (hash);"
        );
        check(Source::Vcl, &program(&recv, ""), &[("/x with X-Own: 2", "refused")]);
    }
}

#[test]
fn a_program_knows_what_it_has_set_itself() {
    // As what comes there is told by the path, it is no doubt.
    let text = program(
        "if (req.url ~ \"^/open/\") { set req.http.X-Open = \"1\"; unset req.http.Cookie; } \
         if (!req.http.X-Open) { unset req.http.X-Other; if (req.http.Cookie) { return (pass); } } \
         if (req.http.X-Other && req.http.X-Open != \"1\") { return (synth(403)); } return (hash);",
        "",
    );
    check(
        Source::Vcl,
        &text,
        &[
            ("/open/x with Cookie: a=1", "cached"),
            ("/x with Cookie: a=1", "passed"),
            ("/x with X-Other: 1", "cached"),
        ],
    );
    // Nothing of the path, or of the host, is changed.
    for harmless in [
        "set req.url = std.querysort(req.url);",
        "set req.url = regsuball(req.url, \"(\\?|&)(utm_[a-z]+)=[^&]+\", \"\\1\");",
        "set req.url = regsub(req.url, \"\\?$\", \"\");",
    ] {
        let text =
            program(&format!("{harmless} if (req.url ~ \"^/a/\") {{ return (pass); }} return (hash);"), "");
        check(Source::Vcl, &text, &[("/a/x", "passed"), ("/x", "cached")]);
    }
    let text = program(
        "set req.http.Host = regsub(req.http.Host, \":[0-9]+\", \"\"); if (req.http.host == \"a.example\") { return (pass); } return (hash);",
        "",
    );
    check(Source::Vcl, &text, &[("/ a.example", "passed"), ("/ b.example", "cached")]);
    // What is left of the visitor's cookies are the visitor's.
    let text = program(
        "set req.http.Cookie = regsuball(req.http.Cookie, \"_ga[^=]*=[^;]+;? *\", \"\"); \
         if (req.http.Cookie ~ \"session\") { return (pass); } unset req.http.Cookie; return (hash);",
        "",
    );
    check(Source::Vcl, &text, &[("/ with Cookie: session=1", "passed"), ("/", "cached")]);
    let text = program(
        "set req.http.Cookie = regsuball(req.http.Cookie, \"_ga=[^;]+\", \"\"); if (req.http.Cookie ~ \"^$\") { return (pass); } return (hash);",
        "",
    );
    check(Source::Vcl, &text, &[("/", "passed")]);
}

#[test]
fn the_query_settles_no_other_doubt() {
    let passes =
        |condition: &str| program(&format!("if ({condition}) {{ return (pass); }} return (hash);"), "");
    for (condition, wanted) in [
        // All who ask with the same query come there.
        ("req.url ~ \"preview=\"", "cached"),
        ("req.url ~ \"preview=\" && client.ip ~ office", "passed"),
        ("client.ip ~ office && req.url ~ \"preview=\"", "passed"),
        ("req.url ~ \"preview=\" && req.http.Cookie ~ \"session\"", "passed"),
        ("req.http.Cookie ~ \"session\" && req.url ~ \"preview=\"", "passed"),
    ] {
        check(Source::Vcl, &passes(condition), &[("/x with Cookie: session=1", wanted)]);
    }
    for nested in [
        "if (req.url ~ \"preview=\") { if (client.ip ~ office) { return (pass); } } return (hash);",
        "if (client.ip ~ office) { if (req.url ~ \"preview=\") { return (pass); } } return (hash);",
        "if (req.http.Cookie ~ \"session\") { if (req.url ~ \"preview=\") { return (pass); } } return (hash);",
        "if (req.url ~ \"preview=\") { if (!(req.http.Cookie ~ \"anonymous\")) { return (pass); } } return (hash);",
        "if (req.url ~ \"preview=\") { if (req.http.Cookie ~ \"anonymous\") { return (hash); } return (pass); } return (hash);",
    ] {
        check(Source::Vcl, &program(nested, ""), &[("/x with Cookie: session=1", "passed")]);
    }
    let either = passes("req.url ~ \"preview=\" || req.http.Cookie ~ \"session\"");
    check(Source::Vcl, &either, &[("/x with Cookie: session=1", "passed"), ("/x", "cached")]);
}

#[test]
fn what_is_done_about_errors_is_no_rule_for_all() {
    for (sub, statements) in [
        ("vcl_backend_response", "if (beresp.status >= 500 && bereq.retries < 3) { return (retry); }"),
        ("vcl_backend_response", "if (beresp.status == 503 || beresp.status == 502) { return (abandon); }"),
        (
            "vcl_backend_response",
            "if (beresp.status > 499) { set beresp.uncacheable = true; return (deliver); }",
        ),
        (
            "vcl_backend_response",
            "if (beresp.status >= 500) { if (bereq.is_bgfetch) { return (abandon); } return (retry); }",
        ),
        ("vcl_deliver", "if (resp.status >= 500 && req.restarts == 0) { return (restart); }"),
        ("vcl_deliver", "if (resp.status == 404) { return (synth(404, \"gone\")); }"),
        ("vcl_deliver", "if (client.ip ~ office) { if (resp.status == 500) { return (synth(503)); } }"),
        ("vcl_fetch", "if (beresp.status >= 500) { error 503; }"),
        ("vcl_recv", "if (req.restarts > 0) { return (pass); } return (hash);"),
    ] {
        let text = program("", &format!("sub {sub} {{ {statements} }}"));
        let imported = check(Source::Vcl, &text, &[("/x", "cached")]);
        let opens = imported.items.iter().filter(|item| item.is_open()).count();
        assert!(opens > 0 || sub == "vcl_recv", "{statements}: {:#?}", imported.items);
        assert_eq!(imported.refusals(), 0, "{statements}: {}", imported.config);
    }
    // What is done about all others is.
    for statements in [
        "if (beresp.status < 400) { return (retry); }",
        "if (beresp.http.X-Again) { return (retry); }",
        "if (beresp.status >= 500 || beresp.http.X-Again) { return (retry); }",
        "if (!(beresp.status >= 500)) { set beresp.uncacheable = true; }",
    ] {
        let text = program("", &format!("sub vcl_backend_response {{ {statements} }}"));
        check(Source::Vcl, &text, &[("/x", "passed")]);
    }
}

#[test]
fn what_may_not_be_reached_is_done_to_nobody() {
    for (recv, fetch) in [
        ("if (client.ip ~ office) { set req.http.X = \"1\"; } else { return (hash); }", ""),
        ("if (client.ip ~ office) { return; } return (hash);", ""),
        (
            "return (hash);",
            "if (beresp.http.X-Own) { set beresp.grace = 1s; } else { unset beresp.http.Set-Cookie; }",
        ),
        ("return (hash);", "if (beresp.http.X-Own) { return (deliver); } unset beresp.http.Set-Cookie;"),
    ] {
        let text = program(recv, &format!("sub vcl_backend_response {{ {fetch} }}"));
        let imported = import(Source::Vcl, &text, "text").unwrap();
        assert!(!imported.config.contains("set_cookie = \"strip\""), "{}", imported.config);
        if fetch.is_empty() {
            check(Source::Vcl, &text, &[("/x with Cookie: a=1", "passed")]);
        }
    }
}

#[test]
fn requests_with_cookies_are_passed_under_every_condition() {
    let text = program("if (req.http.X-Kind == \"a\") { set req.backend_hint = b; }", "");
    check(
        Source::Vcl,
        &text,
        &[
            ("/x with Cookie: a=1", "10.0.0.1 passed"),
            ("/x with X-Kind: a", "10.0.0.2 cached"),
            ("/x", "10.0.0.1 cached"),
        ],
    );
    let imported = import(Source::Vcl, &text, "text").unwrap();
    assert_eq!(imported.config.matches("with_header.Cookie = true").count(), 2, "{}", imported.config);
}

#[test]
fn a_program_of_many_conditions_stays_on_the_safe_side() {
    let mut recv = String::new();
    for number in 0..12 {
        recv.push_str(&format!("if (req.http.X-{number}) {{ set req.http.Y-{number} = \"1\"; }} "));
    }
    recv.push_str(
        "if (req.http.X-Last) { return (pass); } if (req.http.X-Bad) { return (synth(403)); } return (hash);",
    );
    let imported = check(
        Source::Vcl,
        &program(&recv, ""),
        &[("/x with X-Last: 1", "passed"), ("/x with X-Bad: 1", "refused")],
    );
    assert!(imported.config.matches("[[site.rule]]").count() <= 256, "too many rules");
}

// --- Cloudflare ---

/// Rules, each with its expression and what it does.
fn zone(rules: &[(&str, &str, &str)]) -> String {
    let rules: Vec<String> = rules
        .iter()
        .map(|(expression, action, parameters)| {
            format!("{{\"expression\": {expression:?}, \"action\": {action:?}, \"action_parameters\": {parameters}}}")
        })
        .collect();
    format!("{{\"rules\": [{}]}}", rules.join(", "))
}

const CACHED: &str = "{\"cache\": true, \"edge_ttl\": {\"mode\": \"override_origin\", \"default\": 3600}}";

#[test]
fn what_one_rule_passes_no_other_shares_that_says_nothing_of_it() {
    let text = zone(&[
        ("true", "set_cache_settings", CACHED),
        ("http.cookie contains \"session\"", "set_cache_settings", "{\"cache\": false}"),
        (
            "starts_with(http.request.uri.path, \"/a/\")",
            "set_cache_settings",
            "{\"browser_ttl\": {\"mode\": \"override_origin\", \"default\": 60}}",
        ),
        ("starts_with(http.request.uri.path, \"/b/\")", "set_cache_settings", CACHED),
        ("starts_with(http.request.uri.path, \"/a/\")", "route", "{\"origin\": {\"host\": \"c.example\"}}"),
    ]);
    let imported = check(
        Source::Cloudflare,
        &text,
        &[
            ("/a/x with Cookie: session=1", "passed"),
            ("/a/x", "cached"),
            ("/b/x with Cookie: session=1", "cached"),
            ("/x with Cookie: session=1", "passed"),
            ("/x", "cached"),
        ],
    );
    assert!(imported.config.contains("origin = \"https://c.example\""), "{}", imported.config);
}

#[test]
fn a_rule_that_says_nothing_of_the_cache_makes_nothing_cached() {
    let pages = "{\"result\": [{\"targets\": [{\"constraint\": {\"value\": \"a.example/*\"}}], \
                 \"actions\": [{\"id\": \"always_use_https\"}], \"priority\": 1, \"status\": \"active\"}]}";
    check(Source::Cloudflare, pages, &[("/page a.example", "passed"), ("/a.css a.example", "cached")]);
    let text = zone(&[("http.request.uri.path eq \"/x\"", "route", "{\"host_header\": \"b.example\"}")]);
    check(Source::Cloudflare, &text, &[("/x", "passed"), ("/x.css", "cached")]);
}

#[test]
fn what_is_blocked_or_passed_under_what_cannot_be_said_is_so_wherever_it_may_hold() {
    let text = zone(&[
        ("ip.src ne 192.0.2.1 and http.request.uri.path wildcard \"/Admin/*\"", "block", "{}"),
        (
            "not http.cookie contains \"a\" and http.host eq \"a.example\"",
            "set_cache_settings",
            "{\"cache\": false}",
        ),
        ("true", "set_cache_settings", CACHED),
    ]);
    check(Source::Cloudflare, &text, &[("/admin/x a.example", "refused"), ("/x a.example", "passed")]);
    let text = zone(&[("ip.geoip.country eq \"XX\"", "block", "{}"), ("true", "set_cache_settings", CACHED)]);
    let imported = check(Source::Cloudflare, &text, &[("/x", "refused")]);
    assert!(is_told(&imported, "rules[0].expression"));
}

#[test]
fn an_inexact_path_shares_nothing_that_another_rule_does_not() {
    let text = zone(&[
        ("http.request.uri.path eq \"/v-own/me\"", "set_cache_settings", "{\"cache\": false}"),
        ("http.request.uri.path matches \"^/v[0-9]+/\"", "set_cache_settings", CACHED),
    ]);
    check(Source::Cloudflare, &text, &[("/v-own/me", "passed"), ("/v1/x", "passed"), ("/x.css", "cached")]);
}

#[test]
fn who_passes_for_a_cookie_is_passed() {
    let pages = |action: &str| {
        format!(
            "{{\"result\": [{{\"targets\": [{{\"constraint\": {{\"value\": \"a.example/*\"}}}}], \
             \"actions\": [{{\"id\": \"cache_level\", \"value\": \"cache_everything\"}}, {action}], \"priority\": 1, \"status\": \"active\"}}]}}"
        )
    };
    let by_cookie = |expression: &str| {
        pages(&format!("{{\"id\": \"bypass_cache_on_cookie\", \"value\": {expression:?}}}"))
    };
    check(
        Source::Cloudflare,
        &by_cookie("wp-.*|wordpress.*"),
        &[
            ("/x a.example with Cookie: a=1; wordpress_logged_in_x=1", "passed"),
            ("/x a.example with Cookie: a=1", "cached"),
            ("/x a.example", "cached"),
        ],
    );
    check(Source::Cloudflare, &by_cookie("^wp$"), &[("/x a.example with Cookie: a=1; wp=1", "passed")]);
    for action in [
        "{\"id\": \"cache_on_cookie\", \"value\": \"a\"}",
        "{\"id\": \"cache_key_fields\", \"value\": {\"cookie\": {\"include\": [\"session\"]}}}",
    ] {
        check(Source::Cloudflare, &pages(action), &[("/x a.example", "passed")]);
        // In whatever order, and whatever a cache rule says beside it.
        let first = format!("{action}, {{\"id\": \"cache_level\", \"value\": \"cache_everything\"}}");
        check(Source::Cloudflare, &pages(&first), &[("/x a.example", "passed")]);
        let both = format!("[{}, {}]", pages(action), zone(&[("true", "set_cache_settings", CACHED)]));
        check(Source::Cloudflare, &both, &[("/x a.example", "passed")]);
    }
}

#[test]
fn a_key_of_cloudflare_is_said_or_shares_nothing() {
    let keyed = |key: &str| {
        let parameters = format!(
            "{{\"cache\": true, \"edge_ttl\": {{\"mode\": \"override_origin\", \"default\": 60}}, \"cache_key\": {{\"custom_key\": {key}}}}}"
        );
        zone(&[("true", "set_cache_settings", &parameters)])
    };
    for (key, said) in [
        (
            "{\"header\": {\"include\": [\"X-A\"], \"check_presence\": [\"X-B\"]}}",
            "key.headers = [\"X-A\", \"X-B\"]",
        ),
        ("{\"header\": {\"contains\": {\"Accept\": [\"image/webp\"]}}}", "key.headers = \"Accept\""),
        ("{\"user\": {\"lang\": true}}", "key.headers = \"Accept-Language\""),
        ("{\"cookie\": {\"check_presence\": [\"session\"]}}", "key.cookies = \"session\""),
    ] {
        let imported = check(Source::Cloudflare, &keyed(key), &[("/x", "cached")]);
        assert!(imported.config.contains(said), "{key}: {}", imported.config);
    }
    check(Source::Cloudflare, &keyed("{\"user\": {\"geo\": true}}"), &[("/x", "passed")]);
    let by_country = "{\"cache\": true, \"cache_key\": {\"custom_key\": {\"user\": {\"geo\": true}}}}";
    let text = zone(&[
        ("starts_with(http.request.uri.path, \"/p/\")", "set_cache_settings", by_country),
        ("true", "set_cache_settings", CACHED),
    ]);
    check(Source::Cloudflare, &text, &[("/p/x", "passed"), ("/x", "cached")]);
}

#[test]
fn a_rate_limit_keeps_nobody_out() {
    let text = "{\"rules\": [{\"expression\": \"true\", \"action\": \"block\", \"ratelimit\": {\"period\": 10}}, \
                {\"expression\": \"true\", \"action\": \"set_cache_settings\", \"action_parameters\": {\"cache\": true}}]}";
    let imported = check(Source::Cloudflare, text, &[("/x", "cached")]);
    assert!(is_told(&imported, "rules[0].ratelimit"), "{:#?}", imported.items);
    // It has none, so that it is a block as others are.
    let text = "{\"rules\": [{\"expression\": \"true\", \"action\": \"block\", \"ratelimit\": null}, \
                {\"expression\": \"true\", \"action\": \"set_cache_settings\", \"action_parameters\": {\"cache\": true}}]}";
    check(Source::Cloudflare, text, &[("/x", "refused")]);
}

#[test]
fn another_spelling_is_no_way_around_what_is_blocked() {
    let text = zone(&[
        ("starts_with(http.request.uri.path, \"/admin\")", "block", "{}"),
        ("true", "set_cache_settings", CACHED),
    ]);
    let asked =
        ["/admin/x", "//admin/x", "/x/../admin", "/x\\admin", "/%2e/admin"].map(|path| (path, "refused"));
    check(Source::Cloudflare, &text, &asked);
    check(Source::Cloudflare, &text, &[("/x", "cached")]);
    let signed = r#"{"PathPattern": "/paid/*", "TargetOriginId": "o", "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6",
        "TrustedKeyGroups": {"Enabled": true, "Items": ["k"]}}"#;
    let asked = ["/paid/x", "/x/../paid/x", "/./paid/x", "/x/%2e%2e/paid/x"].map(|path| (path, "refused"));
    check(Source::CloudFront, &distribution("", signed, ""), &asked);
}

// --- CloudFront ---

fn distribution(default: &str, behaviours: &str, more: &str) -> String {
    format!(
        r#"{{"DistributionConfig": {{ {more} "Origins": {{"Items": [
            {{"Id": "o", "DomainName": "10.0.0.1", "CustomOriginConfig": {{"OriginProtocolPolicy": "http-only"}}}},
            {{"Id": "p", "DomainName": "10.0.0.2", "CustomOriginConfig": {{"OriginProtocolPolicy": "http-only"}}}}]}},
            "DefaultCacheBehavior": {{"TargetOriginId": "o", "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6" {default} }},
            "CacheBehaviors": {{"Items": [{behaviours}]}} }} }}"#
    )
}

#[test]
fn a_distribution_that_is_closed_by_what_cannot_be_said_is_closed() {
    for closed in [
        r#""WebACLId": "arn:aws:wafv2:x","#,
        r#""Restrictions": {"GeoRestriction": {"RestrictionType": "whitelist", "Items": ["DE"]}},"#,
        r#""Enabled": false,"#,
    ] {
        check(Source::CloudFront, &distribution("", "", closed), &[("/x", "refused")]);
    }
    check(Source::CloudFront, &distribution("", "", r#""Enabled": true,"#), &[("/x", "10.0.0.1 cached")]);
}

#[test]
fn a_behaviour_whose_requests_a_function_sees_first_answers_nobody() {
    let function =
        r#", "FunctionAssociations": {"Items": [{"EventType": "viewer-request", "FunctionARN": "a"}]}"#;
    let text = distribution(
        function,
        r#"{"PathPattern": "/open/*", "TargetOriginId": "o", "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6"}"#,
        "",
    );
    check(Source::CloudFront, &text, &[("/x", "refused"), ("/open/x", "10.0.0.1 cached")]);
}

#[test]
fn methods_that_a_behaviour_does_not_let_through_are_refused() {
    let text = distribution(r#", "AllowedMethods": {"Items": ["GET", "HEAD"]}"#, "", "");
    check(
        Source::CloudFront,
        &text,
        &[("/x", "10.0.0.1 cached"), ("/x POST", "refused"), ("/x PURGE", "refused")],
    );
}

#[test]
fn a_behaviour_for_one_character_shares_nothing_that_another_does_not() {
    let text = distribution(
        "",
        r#"{"PathPattern": "/v??/*", "TargetOriginId": "o", "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6"},
           {"PathPattern": "/vip/*", "TargetOriginId": "p", "CachePolicyId": "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"}"#,
        "",
    );
    check(Source::CloudFront, &text, &[("/vip/x", "10.0.0.2 passed"), ("/v12/x", "10.0.0.1 cached")]);
    // Where less would be refused or passed, more is.
    let text = distribution(
        "",
        r#"{"PathPattern": "/v?/*", "TargetOriginId": "p", "CachePolicyId": "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"}"#,
        "",
    );
    check(Source::CloudFront, &text, &[("/v!/x", "10.0.0.2 passed"), ("/x", "10.0.0.1 cached")]);
}

// --- Lifetimes ---

/// How long what comes with some Cache-Control is kept; nothing is "not stored".
#[track_caller]
fn lives(source: Source, text: &str, said: &str, wanted: &str) {
    status_lives(source, text, 200, said, wanted);
}

#[track_caller]
fn status_lives(source: Source, text: &str, status: u16, said: &str, wanted: &str) {
    let imported = import(source, text, "text").unwrap();
    let expect = if wanted.is_empty() { "stored = false".to_owned() } else { format!("ttl = {wanted:?}") };
    let config = format!(
        "{}\n[[site.test]]\nget = \"/x\"\nstatus = {status}\nresponse_headers = {{ Cache-Control = {said:?} }}\nexpect = {{ {expect} }}\n",
        imported.config
    );
    let parsed = Snapshot::parse(&config, "imported");
    let snapshot = parsed.snapshot.unwrap_or_else(|| panic!("{config}\n{:?}", parsed.diagnostics));
    let failed: String = snapshot.run_tests().iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{failed}\n{config}");
}

#[test]
fn the_maximum_of_cloudfront_cuts_what_the_origin_says() {
    let legacy = r#"{"DistributionConfig": {"Origins": {"Items": [{"Id": "o", "DomainName": "10.0.0.1"}]},
        "DefaultCacheBehavior": {"TargetOriginId": "o", "MinTTL": 0, "DefaultTTL": 60, "MaxTTL": 600}}}"#;
    for (said, wanted) in [("max-age=86400", "10m"), ("max-age=300", "5m"), ("public", "1m")] {
        lives(Source::CloudFront, legacy, said, wanted);
    }
}

#[test]
fn errors_are_kept_for_as_long_as_the_origin_says_and_the_report_says_so() {
    for statements in [
        "if (beresp.status == 403) { set beresp.uncacheable = true; }",
        "if (beresp.status >= 400) { set beresp.ttl = 0s; return (deliver); }",
        "if (beresp.status == 403 && bereq.url ~ \"^/x\") { return (pass); }",
    ] {
        let fetch = format!("sub vcl_backend_response {{ set beresp.ttl = 1h; {statements} }}");
        let text = program("return (hash);", &fetch);
        status_lives(Source::Vcl, &text, 403, "", "");
        status_lives(Source::Vcl, &text, 403, "max-age=60", "1m");
        status_lives(Source::Vcl, &text, 403, "no-store", "");
        status_lives(Source::Vcl, &text, 200, "max-age=60", "1h");
        let imported = import(Source::Vcl, &text, "text").unwrap();
        let says =
            |item: &import::Item| item.outcomes.iter().any(|one| one.text().contains("have it say no-store"));
        assert!(imported.items.iter().any(says), "{:#?}", imported.items);
    }
}

#[test]
fn an_origin_that_says_nothing_is_not_kept_where_cloudflare_does_not() {
    let text = zone(&[(
        "true",
        "set_cache_settings",
        "{\"cache\": true, \"edge_ttl\": {\"mode\": \"bypass_by_default\"}}",
    )]);
    lives(Source::Cloudflare, &text, "public", "");
    lives(Source::Cloudflare, &text, "max-age=60", "1m");
}

#[test]
fn a_time_by_status_that_is_none_keeps_nothing_and_is_told_where_cloudflare_would_have_validated() {
    let cases = [("60", "1m", false), ("-1", "", false), ("0", "", true)];
    let broken = ["-2", "1.5", "\"1h\"", "null"].map(|value| (value, "", true));
    for (value, wanted, told) in cases.into_iter().chain(broken) {
        let ttl = format!(
            "{{\"mode\": \"override_origin\", \"default\": 3600, \"status_code_ttl\": [{{\"status_code\": 404, \"value\": {value}}}]}}"
        );
        let parameters = format!("{{\"cache\": true, \"edge_ttl\": {ttl}}}");
        let text = zone(&[("true", "set_cache_settings", &parameters)]);
        status_lives(Source::Cloudflare, &text, 404, "max-age=300", wanted);
        let imported = import(Source::Cloudflare, &text, "text").unwrap();
        let statement = "rules[0].action_parameters.edge_ttl.status_code_ttl[0].value";
        assert_eq!(is_told(&imported, statement), told, "{value}: {:#?}", imported.items);
    }
}

#[test]
fn no_cache_counts_where_varnish_goes_on_by_its_own_program() {
    let fetch = |end: &str| {
        program("return (hash);", &format!("sub vcl_backend_response {{ set beresp.ttl = 1h; {end} }}"))
    };
    lives(Source::Vcl, &fetch(""), "no-cache", "");
    lives(Source::Vcl, &fetch(""), "max-age=1", "1h");
    lives(Source::Vcl, &fetch("return (deliver);"), "no-cache", "1h");
}

#[test]
fn what_sets_a_cookie_is_not_kept_where_it_was_not() {
    let texts = [
        (Source::Nginx, server(REST), "false"),
        (Source::Nginx, server(&format!("proxy_ignore_headers Set-Cookie; {REST}")), "true"),
        (Source::Vcl, program("return (hash);", ""), "false"),
        (
            Source::Vcl,
            program("return (hash);", "sub vcl_backend_response { unset beresp.http.Set-Cookie; }"),
            "true",
        ),
    ];
    for (source, text, wanted) in texts {
        let imported = import(source, &text, "text").unwrap();
        let config = format!(
            "{}\n[[site.test]]\nget = \"/x\"\nresponse_headers = {{ Cache-Control = \"public, max-age=60\", Set-Cookie = \"a=1\" }}\nexpect = {{ stored = {wanted} }}\n",
            imported.config
        );
        let parsed = Snapshot::parse(&config, "imported");
        let snapshot = parsed.snapshot.unwrap_or_else(|| panic!("{config}\n{:?}", parsed.diagnostics));
        let failed: String = snapshot.run_tests().iter().map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{failed}\n{config}");
    }
}

#[test]
fn redirects_are_kept_where_nginx_keeps_them() {
    let text = server(REST);
    for (status, said, wanted) in [(200, "public", "1h"), (301, "public", ""), (308, "max-age=60", "1m")] {
        status_lives(Source::Nginx, &text, status, said, wanted);
    }
    let text = server(&format!("proxy_cache_valid 200 301 1h; {REST}"));
    status_lives(Source::Nginx, &text, 301, "public", "1h");
}
