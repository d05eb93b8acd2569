//! Directives by name: what is said of one that nothing has asked for, and how nginx writes amounts.

use super::parse::Directive;
use crate::ledger::Outcome;

/// Directives that are read where they count; one that is left was overridden everywhere.
const READ: &[&str] = &[
    "add_header",
    "expires",
    "gzip",
    "gzip_min_length",
    "gzip_types",
    "limit_req",
    "limit_req_zone",
    "server_name",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_protocols",
    "upstream",
    "keepalive",
    "deny",
    "set_real_ip_from",
];

/// Prefixes of directives that are read for what they pass requests to.
const PASSING: [&str; 4] = ["proxy_", "fastcgi_", "uwsgi_", "scgi_"];

const READ_OF_PASSING: &[&str] = &[
    "cache",
    "cache_bypass",
    "cache_key",
    "cache_use_stale",
    "cache_valid",
    "no_cache",
    "connect_timeout",
    "hide_header",
    "ignore_headers",
    "next_upstream",
    "pass",
    "read_timeout",
    "set_header",
    "cache_methods",
    "ssl_name",
    "ssl_verify",
    "ssl_trusted_certificate",
    "send_timeout",
    "cache_background_update",
];

/// What is said of a directive by its name; nothing of one that is unknown.
pub(super) fn outcome(directive: &Directive) -> Option<Outcome> {
    let name = &*directive.name;
    let not_needed = |why: &str| Some(Outcome::NotNeeded(why.to_owned()));
    let not_mapped = |instead: &str| Some(Outcome::NotMapped(instead.to_owned()));
    let of_passing = PASSING.iter().find_map(|prefix| name.strip_prefix(prefix));
    if READ.contains(&name) || of_passing.is_some_and(|rest| READ_OF_PASSING.contains(&rest)) {
        return not_needed(
            "nothing that is imported has it from here: it is overridden, or there is nothing that it is for",
        );
    }
    if let Some(rest) = of_passing
        && let Some(outcome) = of_fetching(rest)
    {
        return Some(outcome);
    }
    match name {
        "real_ip_header" => match &*directive.arg(0).to_ascii_lowercase() {
            "x-forwarded-for" => {
                not_needed("addresses of trusted proxies are passed over in X-Forwarded-For")
            }
            "proxy_protocol" => not_mapped("write proxy_protocol = true in [edge]"),
            _ => not_mapped("visitors' addresses come from X-Forwarded-For alone: have the proxy send it"),
        },
        "client_max_body_size" => not_mapped("write limits = { body_bytes_max = … } in [edge]"),
        "map" if directive.arg(1) == "$connection_upgrade" => not_needed("WebSocket passes by itself"),
        "set" | "map" => not_mapped("there are no variables: write a rule for each case"),
        "server" => not_mapped("no site comes of it: see its server_name"),
        "location" if directive.arg(0).starts_with('@') => not_mapped(
            "nothing leads to it here: the origin's own error pages are sent, and stale_if_error bridges failures",
        ),
        "location" if directive.args.iter().any(|arg| arg.contains("/.well-known/acme-challenge")) => {
            not_needed("[acme] answers the authority by itself")
        }
        "location" => not_needed("what stands before it answers all requests"),
        "events"
        | "worker_processes"
        | "worker_connections"
        | "worker_rlimit_nofile"
        | "worker_cpu_affinity"
        | "worker_priority"
        | "worker_shutdown_timeout"
        | "use"
        | "multi_accept"
        | "accept_mutex"
        | "thread_pool"
        | "pcre_jit"
        | "timer_resolution" => not_needed(
            "workers are one per core, and limits of the system are raised at the start; see [edge] workers",
        ),
        "user" | "pid" | "daemon" | "master_process" | "lock_file" | "working_directory" | "env"
        | "load_module" => not_needed("the service manager says it: see the units of the package"),
        "sendfile"
        | "sendfile_max_chunk"
        | "tcp_nopush"
        | "tcp_nodelay"
        | "aio"
        | "directio"
        | "output_buffers"
        | "postpone_output"
        | "open_file_cache"
        | "open_file_cache_valid"
        | "open_file_cache_min_uses"
        | "open_file_cache_errors"
        | "read_ahead"
        | "reset_timedout_connection"
        | "client_body_buffer_size"
        | "client_header_buffer_size"
        | "connection_pool_size"
        | "request_pool_size"
        | "client_body_temp_path"
        | "client_body_in_file_only"
        | "variables_hash_max_size"
        | "variables_hash_bucket_size"
        | "map_hash_bucket_size"
        | "map_hash_max_size"
        | "types_hash_max_size"
        | "types_hash_bucket_size"
        | "server_names_hash_bucket_size"
        | "server_names_hash_max_size"
        | "proxy_headers_hash_max_size"
        | "proxy_headers_hash_bucket_size"
        | "lingering_close"
        | "lingering_time"
        | "lingering_timeout" => not_needed("how bytes are moved is the edge's own affair"),
        "types" | "default_type" | "charset" | "charset_types" | "source_charset" | "override_charset" => {
            not_needed("Content-Type comes from the origin")
        }
        "gzip_comp_level" | "gzip_vary" | "gzip_proxied" | "gzip_disable" | "gzip_buffers"
        | "gzip_http_version" | "gzip_static" | "gunzip" | "brotli" | "brotli_static"
        | "brotli_comp_level" | "brotli_types" | "brotli_min_length" | "zstd" | "zstd_types"
        | "zstd_static" => {
            not_needed("copies in zstd, brotli and gzip are made of what is stored, with Vary; see compress")
        }
        "server_tokens"
        | "etag"
        | "if_modified_since"
        | "chunked_transfer_encoding"
        | "msie_padding"
        | "http2"
        | "http2_push_preload"
        | "http3"
        | "quic_retry"
        | "ssl_prefer_server_ciphers"
        | "ssl_session_cache"
        | "ssl_session_timeout"
        | "ssl_session_tickets"
        | "ssl_buffer_size"
        | "ssl_early_data"
        | "ssl_dhparam"
        | "ssl_ecdh_curve"
        | "ssl_ciphers"
        | "ssl_conf_command"
        | "ssl"
        | "server_name_in_redirect"
        | "port_in_redirect"
        | "absolute_redirect"
        | "merge_slashes"
        | "underscores_in_headers"
        | "ignore_invalid_headers"
        | "max_ranges" => not_needed("it is done so by itself, or is of no account here"),
        "ssl_stapling" | "ssl_stapling_verify" | "ssl_trusted_certificate" | "ssl_stapling_file" => {
            not_mapped("write ocsp = \"fetch\" in [[certificate]], if the authority still has a responder")
        }
        "ssl_session_ticket_key" => not_mapped("write ticket_secret_file in [tls]"),
        "ssl_client_certificate" | "ssl_verify_client" | "ssl_verify_depth" | "ssl_crl" => {
            not_mapped("write client_ca and client_certificate into the site")
        }
        "keepalive_timeout"
        | "client_header_timeout"
        | "client_body_timeout"
        | "send_timeout"
        | "keepalive_requests"
        | "large_client_header_buffers"
        | "http2_max_concurrent_streams"
        | "http2_idle_timeout"
        | "http2_recv_timeout" => not_needed("limits have defaults of their own: see [edge] limits"),
        "limit_conn" | "limit_conn_zone" | "limit_conn_status" | "limit_conn_log_level" => {
            not_mapped("write connections_per_client_max in [edge] limits, for all sites together")
        }
        "limit_req_status" | "limit_req_log_level" | "limit_req_dry_run" => {
            not_needed("more than the rate gets 429")
        }
        "limit_rate" | "limit_rate_after" => not_mapped("there is no limit to the speed of one answer"),
        "access_log" | "log_format" | "log_not_found" | "log_subrequest" | "open_log_file_cache" => {
            not_mapped(
                "write access_log and access_log_format (json, combined, cloudfront, logpush) in [edge]",
            )
        }
        "error_log" | "rewrite_log" => {
            not_needed("messages go to standard error, which the service manager keeps")
        }
        "resolver" | "resolver_timeout" => not_needed("names of origins are asked of the system's resolver"),
        "real_ip_recursive" => not_needed("addresses of trusted proxies are passed over"),
        "slice" => not_needed("long bodies are stored in slices of 1 MiB by themselves"),
        "recursive_error_pages" | "error_page" => not_mapped(
            "the origin's own error pages are sent; while it fails, stale_if_error answers with what is stored",
        ),
        "root"
        | "alias"
        | "index"
        | "try_files"
        | "autoindex"
        | "autoindex_exact_size"
        | "autoindex_localtime"
        | "disable_symlinks"
        | "random_index" => {
            not_mapped("files are not served: name a server that has them as the origin of the rule")
        }
        "auth_basic"
        | "auth_basic_user_file"
        | "auth_request"
        | "auth_request_set"
        | "satisfy"
        | "secure_link"
        | "secure_link_md5"
        | "secure_link_secret"
        | "allow"
        | "internal"
        | "auth_jwt"
        | "auth_jwt_key_file"
        | "valid_referers" => not_mapped("nobody is asked who they are: the origin has to refuse"),
        "rewrite" | "break" | "uninitialized_variable_warn" => not_mapped(
            "paths are not changed but by a redirect: have the origin know the path that visitors ask for",
        ),
        "return" => not_mapped("the edge makes no answers but redirects: let the origin answer"),
        "if" => not_mapped("write a rule with the condition: with_header, with_cookie, methods, hosts, path"),
        "split_clients" | "geo" | "perl_set" | "js_set" | "js_import" | "js_content" | "perl"
        | "set_by_lua_block" => not_mapped("there are no variables: write a rule for each case"),
        "geoip_country" | "geoip2" | "geoip_city" | "geoip_org" => {
            not_mapped("rules do not know where visitors are; statistics do, with location in [edge]")
        }
        "sub_filter" | "sub_filter_once" | "sub_filter_types" | "sub_filter_last_modified" => {
            not_mapped("bodies are not changed, but URLs of static files are: see rewrite")
        }
        "mirror" | "mirror_request_body" => {
            not_mapped("requests are not doubled: replay a log instead, by perigee replay")
        }
        "add_trailer" | "add_before_body" | "add_after_body" | "addition_types" | "ssi" | "ssi_types"
        | "image_filter" => not_mapped("bodies are the origin's"),
        "stub_status" => not_needed("perigee has /metrics at its admin address"),
        "grpc_pass" | "memcached_pass" => not_mapped("name an origin that speaks HTTP"),
        "stream" | "mail" => not_mapped("only HTTP is served: leave nginx in front of it"),
        "limit_except" => not_mapped("the origin has to refuse methods"),
        name if name.ends_with("_by_lua_block")
            || name.ends_with("_by_lua_file")
            || name.starts_with("lua_") =>
        {
            not_mapped("programs are not run: write rules, or let the origin do it")
        }
        _ => None,
    }
}

/// What is said of `proxy_…` and its like, without the prefix.
fn of_fetching(rest: &str) -> Option<Outcome> {
    let not_needed = |why: &str| Some(Outcome::NotNeeded(why.to_owned()));
    let not_mapped = |instead: &str| Some(Outcome::NotMapped(instead.to_owned()));
    match rest {
        "cache_lock" | "cache_lock_timeout" | "cache_lock_age" => {
            not_needed("requests for the same are always one fetch, and none waits for it without an end")
        }
        "cache_revalidate" => not_needed("what is stale is always validated, where it can be"),
        "cache_min_uses" => not_needed("what is worth its place is found out by itself; see writes_per_day"),
        "cache_convert_head" | "cache_max_range_offset" | "cache_path" => {
            not_needed("HEAD and ranges are answered from what is stored")
        }
        "cache_purge" => {
            not_mapped("purge by perigee purge, or by the API: by URL, prefix, surrogate key or site")
        }
        "buffering"
        | "buffers"
        | "buffer_size"
        | "busy_buffers_size"
        | "max_temp_file_size"
        | "temp_path"
        | "temp_file_write_size"
        | "request_buffering"
        | "limit_rate"
        | "socket_keepalive"
        | "headers_hash_max_size"
        | "headers_hash_bucket_size"
        | "keep_conn" => not_needed("bodies pass through with bounded memory, in both directions"),
        "http_version"
        | "ssl_server_name"
        | "ssl_session_reuse"
        | "ssl_protocols"
        | "ssl_ciphers"
        | "ssl_verify_depth"
        | "pass_header"
        | "pass_request_headers"
        | "pass_request_body"
        | "force_ranges" => {
            not_needed("origins are asked by HTTP/1.1 with kept connections and, over TLS, with their name")
        }
        "bind" => not_mapped("write origin_source in [edge]"),
        "ssl_certificate" | "ssl_certificate_key" | "ssl_crl" => {
            not_mapped("no certificate is shown to origins")
        }
        "intercept_errors" => not_needed("the origin's own error pages are sent"),
        "ignore_client_abort" => not_needed("a fetch that others may use goes on without its first visitor"),
        "next_upstream_timeout" | "next_upstream_tries" => {
            not_needed("retries have a budget: see origin_options.retry")
        }
        "redirect" | "cookie_domain" | "cookie_path" | "cookie_flags" => not_mapped(
            "Location and Set-Cookie are sent as the origin says them: have it use the public name",
        ),
        "method" | "set_body" | "headers" => not_mapped("requests are sent as visitors ask"),
        "store" | "store_access" => not_mapped("write [[store.disk]] in its place"),
        "param" | "index" | "split_path_info" | "modifier1" | "catch_stderr" => {
            not_mapped("leave it where it is: nginx stays the origin for this")
        }
        _ => None,
    }
}

/// A time as nginx writes it, in milliseconds: `30`, `500ms`, `1h30m`, `1d`, `2w`, `1M` (30 days), `1y`.
pub(super) fn time_ms(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut number = String::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        if next.is_ascii_digit() {
            number.push(next);
            if rest.peek().is_some() {
                continue;
            }
        }
        let unit: u64 = match next {
            'm' if rest.next_if_eq(&'s').is_some() => 1,
            's' => 1000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            'w' => 7 * 86_400_000,
            'M' => 30 * 86_400_000,
            'y' => 365 * 86_400_000,
            next if next.is_ascii_digit() => 1000,
            next if next.is_whitespace() && number.is_empty() => continue,
            _ => return None,
        };
        total = total.checked_add(std::mem::take(&mut number).parse::<u64>().ok()?.checked_mul(unit)?)?;
    }
    (!text.is_empty() && number.is_empty()).then_some(total)
}

/// A size as nginx writes it, in bytes: `1024`, `8k`, `10m`, `1g`.
pub(super) fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (number, unit) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(number) => (number, lower.as_bytes()[lower.len() - 1]),
        None => (&*lower, 0),
    };
    let shift = match unit {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        _ => 0,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_nginx_writes_them() {
        let times = [
            ("30", Some(30_000)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1M", Some(2_592_000_000)),
            ("1y", Some(31_536_000_000)),
            ("", None),
            ("h", None),
            ("5x", None),
            ("99999999999999999999", None),
        ];
        for (text, wanted) in times {
            assert_eq!(time_ms(text), wanted, "{text}");
        }
        let sizes =
            [("10m", Some(10 << 20)), ("1G", Some(1 << 30)), ("512", Some(512)), ("m", None), ("", None)];
        for (text, wanted) in sizes {
            assert_eq!(size(text), wanted, "{text}");
        }
    }
}
