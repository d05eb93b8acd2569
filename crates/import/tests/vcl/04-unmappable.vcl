vcl 4.1;
include "other.vcl";
backend b1 { .host = "b1"; .max_connections = 100; }
backend b2 { .host = "b2"; }
sub vcl_init { new rr = directors.round_robin(); rr.add_backend(b1); rr.add_backend(b2); }
sub helper { set req.http.X = "1"; }
sub vcl_recv {
    set req.backend_hint = rr.backend();
    call helper;
    if (req.url ~ "^/(?!public)") { return (pass); }
    if (req.esi_level > 0) { unset req.http.X; }
    if (req.url ~ "^/files/") { return (hash); }
}
sub vcl_backend_response {
    if (bereq.url ~ "^/files/") { set beresp.ttl = 1w; set beresp.do_esi = true; }
    set beresp.http.X-Computed = beresp.http.A + "b";
}
#### expect
# left: include
# left: backend b1
# left: .max_connections
# left: backend b2
# left: sub vcl_init
# left: new rr
# left: rr.add_backend
# left: rr.add_backend
# left: set req.backend_hint
# left: if (req.url ~ "^/(?!public)")
# left: return (pass)
# left: if (req.esi_level
# left: unset req.http.X
# left: set beresp.do_esi
# left: set beresp.http.X-Computed
[[site.test]]
get = "/files/a"
expect = { cache = false, origin = "http://b1", request_headers = { X = "1" } }
