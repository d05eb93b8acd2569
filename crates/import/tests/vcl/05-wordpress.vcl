vcl 4.1;
import std;
backend default { .host = "10.0.0.5"; .port = "8080"; .first_byte_timeout = 60s; }
acl purgers { "127.0.0.1"; }
sub vcl_recv {
    if (req.restarts == 0) { set req.http.X-Forwarded-Proto = "http"; }
    set req.http.Host = regsub(req.http.Host, ":[0-9]+", "");
    unset req.http.proxy;
    set req.url = std.querysort(req.url);
    if (req.url ~ "(\?|&)(utm_source|utm_medium|gclid)=") {
        set req.url = regsuball(req.url, "&(utm_source|utm_medium|gclid)=([A-z0-9_\-\.%25]+)", "");
        set req.url = regsuball(req.url, "\?(utm_source|utm_medium|gclid)=([A-z0-9_\-\.%25]+)", "?");
    }
    if (req.method == "PURGE") { if (!client.ip ~ purgers) { return (synth(405, "no")); } return (purge); }
    if (req.method != "GET" && req.method != "HEAD") { return (pass); }
    if (req.http.Authorization) { return (pass); }
    if (req.url ~ "^/(wp-admin|wp-login\.php|cart|checkout)") { return (pass); }
    std.collect(req.http.Cookie);
    set req.http.Cookie = regsuball(req.http.Cookie, "(^|;\s*)(_ga|_gid|__utm[a-z]+)=[^;]*", "");
    if (req.http.Cookie ~ "wordpress_logged_in|comment_author|woocommerce_items_in_cart") { return (pass); }
    unset req.http.Cookie;
    return (hash);
}
sub vcl_backend_response {
    if (beresp.status >= 500 && bereq.is_bgfetch) { return (abandon); }
    if (beresp.http.Set-Cookie || beresp.http.Cache-Control ~ "private") { set beresp.uncacheable = true; return (deliver); }
    set beresp.ttl = 1h;
    set beresp.grace = 6h;
}
sub vcl_deliver { if (obj.hits > 0) { set resp.http.X-Cache = "HIT"; } unset resp.http.X-Powered-By; }
#### expect
# left: import std
# left: backend default
# left: acl purgers
# left: "127.0.0.1"
# left: set req.http.Host = regsub (req.http.Host, ":[0-
# left: set req.url = std.querysort (req.url)
# left: if (req.url ~ "(\?|&)(utm_source|utm_medium|gcli
# left: set req.url = regsuball (req.url, "&(utm_source|
# left: set req.url = regsuball (req.url, "\?(utm_source
# left: if (! client.ip ~ purgers)
# left: return (synth (405, "no"))
# left: std.collect (req.http.Cookie)
# left: set req.http.Cookie = regsuball (req.http.Cookie
# left: if (req.http.Cookie ~ "wordpress_logged_in|comme
# left: return (pass)
# left: unset req.http.Cookie
# left: if (beresp.status >= 500 && bereq.is_bgfetch)
# left: return (abandon)
# left: if (obj.hits > 0)
[[site.test]]
get = "/wp-admin/x"
expect = { cache = false }
[[site.test]]
get = "/post"
headers = { Cookie = "a=1; wordpress_logged_in_x=1" }
expect = { cache = false }
[[site.test]]
get = "/post"
method = "POST"
expect = { cache = false }
[[site.test]]
get = "/"
method = "PURGE"
expect = { origin = "http://refused.invalid" }
[[site.test]]
get = "/post"
headers = { Cookie = "_ga=1" }
expect = { ttl = "1h", request_headers = { Cookie = false } }
[[site.test]]
get = "/post"
response_headers = { Cache-Control = "private" }
expect = { stored = false }
