"""A shop for the tests of the how-to guides, at 127.0.0.1:8000: pages with surrogate keys, static files, a private cart, a sitemap, and a
price that can be changed (`PUT /price` with the new one)."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRICE = ["59"]
STYLE = "h1 { color: teal }\n" + "".join(f".c{n} {{ margin: {n}px }}\n" for n in range(200))


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, text, kind, **fields):
        body = text.encode()
        self.send_response(200)
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in fields.items()}}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        host = self.headers.get("Host", "")
        page = '<!doctype html><html lang="en"><title>Shop</title><link rel="stylesheet" href="/wp-content/app.css"><h1>{}</h1>{}\n'
        match self.path.partition("?")[0]:
            case "/":
                self.answer(page.format("Shop", '<a href="/product/shoes">Shoes</a>'), "text/html", Cache_Control="max-age=60", Surrogate_Key="home")
            case "/product/shoes":
                self.answer(page.format("Shoes", f"<p>{PRICE[0]} EUR</p>"), "text/html", Cache_Control="max-age=3600", Surrogate_Key="product-7")
            case "/wp-content/app.css" | "/static/app.css":
                self.answer(STYLE, "text/css", ETag='"1"')
            case "/cart/":
                self.answer(page.format("Cart", "<p>empty</p>"), "text/html", Cache_Control="private", Set_Cookie="cart=1; Path=/")
            case "/sitemap.xml":
                urls = "".join(f"<url><loc>http://{host}{path}</loc></url>" for path in ("/", "/product/shoes", "/wp-content/app.css"))
                self.answer(f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>', "application/xml")
            case _:
                self.send_error(404)

    do_HEAD = do_GET

    def do_PUT(self):
        PRICE[0] = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self.answer("", "text/plain")

    def log_message(self, format, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 8000), Shop)
print("ready", flush=True)
sys.exit(server.serve_forever())
