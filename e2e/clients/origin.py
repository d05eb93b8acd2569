"""An origin that counts: /KEY answers how often it was asked for, with KEY as the surrogate key."""
import collections
import http.server
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = collections.Counter()

    def do_GET(self):
        self.asked[self.path] += 1
        body = f"{self.asked[self.path]}\n".encode()
        self.send_response(200)
        for name, value in (("Surrogate-Key", self.path.strip("/")), ("Cache-Control", "max-age=3600"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
