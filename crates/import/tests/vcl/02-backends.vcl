vcl 4.0;
import std;
probe healthy { .url = "/health"; .interval = 5s; .timeout = 1s; .window = 5; .threshold = 3; }
backend app { .host = "app.internal"; .port = "80"; .probe = healthy; }
backend images { .host = "img.internal"; .port = "9000"; .probe = { .url = "/ok"; } }
acl purgers { "127.0.0.1"; }
sub vcl_recv {
    if (req.method == "PURGE") {
        if (!client.ip ~ purgers) { return (synth(405, "no")); }
        return (purge);
    }
    if (req.url ~ "^/img/") { set req.backend_hint = images; }
    if (req.http.Authorization) { return (pass); }
    if (req.http.host == "old.example") { return (synth(750, "moved")); }
    set req.url = regsub(req.url, "\?utm_.*", "");
}
sub vcl_backend_response { if (beresp.status == 404) { set beresp.ttl = 10s; } }
#### expect
# left: import std
# left: .window
# left: .threshold
# left: backend app
# left: backend images
# left: acl purgers
# left: "127.0.0.1"
# left: if (! client.ip
# left: return (synth (405
# left: return (synth (750
# left: set req.url
# left: if (beresp.status
# left: set beresp.ttl
[[site.test]]
get = "/"
method = "PURGE"
expect = { origin = "http://refused.invalid" }
[[site.test]]
get = "/"
host = "old.example"
expect = { origin = "http://refused.invalid" }
[[site.test]]
get = "/img/a.png"
expect = { origin = "http://img.internal:9000", ttl = "2m" }
[[site.test]]
get = "/"
headers = { Authorization = "x" }
expect = { cache = false }
[[site.test]]
get = "/"
headers = { Cookie = "a=1" }
expect = { cache = false, origin = "http://app.internal" }
