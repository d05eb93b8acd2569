vcl 4.1;
import std;
backend news { .host = "news.internal"; .port = "8000"; .probe = { .url = "/up"; .interval = 10s; } }
acl staff { "198.51.100.0"/24; }
sub vcl_recv {
    if (client.ip ~ staff) { set req.http.X-Staff = "1"; } else { unset req.http.X-Staff; }
    if (req.url ~ "^/drafts/" && !req.http.X-Staff) { return (synth(404)); }
    if (req.url ~ "[?&]preview=" && req.http.Cookie ~ "editor=") { return (pass); }
    if (req.http.Cookie ~ "subscriber=") { set req.http.X-Tier = "paid"; } else { set req.http.X-Tier = "free"; }
    if (req.url ~ "\.(css|js|woff2)(\?.*)?$") { unset req.http.Cookie; unset req.http.X-Tier; return (hash); }
    if (req.http.X-Tier == "paid") { return (pass); }
    unset req.http.Cookie;
    return (hash);
}
sub vcl_backend_response {
    if (beresp.status >= 500 && bereq.retries == 0) { return (retry); }
    if (beresp.http.X-Paywall == "hard") { set beresp.uncacheable = true; return (deliver); }
    set beresp.ttl = 2m;
    if (beresp.status == 404) { set beresp.ttl = 10s; }
}
sub vcl_synth { set resp.http.Content-Type = "text/plain"; return (deliver); }
#### expect
# left: import std
# left: backend news
# left: acl staff
# left: "198.51.100.0" / 24
# left: if (client.ip ~ staff)
# left: set req.http.X-Staff = "1"
# left: else
# left: unset req.http.X-Staff
# left: if (req.url ~ "^/drafts/" && ! req.http.X-Staff)
# left: return (synth (404))
# left: if (req.url ~ "[?&]preview=" && req.http.Cookie
# left: return (pass)
# left: unset req.http.Cookie
# left: unset req.http.Cookie
# left: if (beresp.status >= 500 && bereq.retries == 0)
# left: return (retry)
# left: if (beresp.http.X-Paywall == "hard")
# left: set beresp.uncacheable = true
# left: set beresp.ttl = 2m
# left: if (beresp.status == 404)
# left: set beresp.ttl = 10s
# left: sub vcl_synth
# left: set resp.http.Content-Type = "text/plain"
# left: return (deliver)
[[site.test]]
get = "/drafts/x"
expect = { origin = "http://refused.invalid" }
[[site.test]]
get = "/x"
headers = { Cookie = "subscriber=1" }
expect = { cache = false }
[[site.test]]
get = "/x?preview=1"
headers = { Cookie = "editor=1" }
expect = { cache = false }
[[site.test]]
get = "/x"
expect = { cache = false }
