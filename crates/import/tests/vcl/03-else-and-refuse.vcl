vcl 4.1;
# comments { of ; each kind
backend default { .host = "192.0.2.1:8000"; } // here
sub vcl_recv {
    /* and ; here } */
    if (req.http.User-Agent ~ "BadBot") { return (synth(403, {"go " away"})); }
    elseif (req.url ~ "^/live/") { return (pipe); }
    else { set req.http.X-Kind = "page"; }
}
sub vcl_hash { hash_data(req.url); if (req.http.host) { hash_data(req.http.host); } hash_data(req.http.X-Lang); return (lookup); }
sub vcl_hit { return (deliver); }
sub vcl_backend_response { set beresp.ttl = 5m; set beresp.keep = 1d; set beresp.do_gzip = true; return (deliver); }
#### expect
# left: backend default
# left: return (synth (403
# left: sub vcl_hit
[[site.test]]
get = "/"
headers = { User-Agent = "x BadBot" }
expect = { origin = "http://refused.invalid" }
[[site.test]]
get = "/live/x"
expect = { cache = false }
[[site.test]]
get = "/x"
response_headers = { Cache-Control = "max-age=1" }
expect = { ttl = "5m", request_headers = { X-Kind = "page" } }
