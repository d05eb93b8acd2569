vcl 4.1;
backend default { .host = "10.0.0.1"; .port = "8080"; .connect_timeout = 1s; .first_byte_timeout = 20s; }
sub vcl_recv {
    if (req.url ~ "^/admin/" || req.method != "GET") { return (pass); }
    unset req.http.Cookie;
    return (hash);
}
sub vcl_backend_response {
    if (bereq.url ~ "\.(css|js|png)$") { set beresp.ttl = 7d; unset beresp.http.Set-Cookie; }
    set beresp.grace = 1h;
}
sub vcl_deliver { set resp.http.X-Cache = "HIT"; unset resp.http.X-Powered-By; }
#### expect
# left: backend default
[[site.test]]
get = "/admin/x"
expect = { cache = false, origin = "http://10.0.0.1:8080" }
[[site.test]]
get = "/a.css"
response_headers = { Set-Cookie = "a=1", Cache-Control = "max-age=1", X-Powered-By = "x" }
headers = { Cookie = "b=1" }
expect = { ttl = "7d", request_headers = { Cookie = false }, response_headers = { X-Powered-By = false } }
[[site.test]]
get = "/page"
expect = { ttl = "2m" }
[[site.test]]
get = "/page"
response_headers = { Cache-Control = "max-age=9" }
expect = { ttl = "9s" }
