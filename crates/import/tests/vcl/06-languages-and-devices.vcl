vcl 4.0;
backend web { .host = "web.internal"; }
backend api { .host = "api.internal"; .port = "8081"; }
sub detect {
    set req.http.X-Device = "desktop";
    if (req.http.User-Agent ~ "(?i)(iphone|android.*mobile)") { set req.http.X-Device = "phone"; }
}
sub vcl_recv {
    call detect;
    unset req.http.X-User;
    if (req.url ~ "^/[a-z][a-z]/") { set req.url = regsub(req.url, "^/[a-z][a-z]/", "/"); }
    if (req.url ~ "^/account/") { return (pass); }
    if (req.url ~ "^/api/") { set req.backend_hint = api; return (hash); }
    if (req.http.X-User) { return (pass); }
    unset req.http.Cookie;
    return (hash);
}
sub vcl_hash { hash_data(req.url); hash_data(req.http.host); hash_data(req.http.X-Device); return (lookup); }
sub vcl_backend_response {
    if (bereq.url ~ "^/api/") { set beresp.ttl = 10s; }
    if (beresp.status == 503) { return (retry); }
}
#### expect
# left: backend web
# left: backend api
# left: if (req.url ~ "^/[a-z][a-z]/")
# left: set req.url = regsub (req.url, "^/[a-z][a-z]/",
# left: if (req.url ~ "^/account/")
# left: return (pass)
# left: if (req.url ~ "^/api/")
# left: set req.backend_hint = api
# left: unset req.http.Cookie
# left: hash_data (req.http.X-Device)
# left: if (bereq.url ~ "^/api/")
# left: set beresp.ttl = 10s
# left: if (beresp.status == 503)
# left: return (retry)
[[site.test]]
get = "/en/account/"
expect = { cache = false }
[[site.test]]
get = "/account/"
expect = { cache = false }
[[site.test]]
get = "/page"
expect = { cache = false }
[[site.test]]
get = "/page"
headers = { User-Agent = "iPhone" }
expect = { cache = false }
