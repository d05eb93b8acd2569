"""A site with every construct whose URLs can move, and those whose cannot, made and served here.

Usage: origin.py PORT      Prints `METHOD HOST PATH` for each request. Wherever a script of the page has got what it wanted it says so in
the page itself, so that a comparison of pages is one of what works.
"""
import base64
import hashlib
import json
import struct
import sys
import zlib
from glob import glob
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SITE = "http://www.shop.test"


def picture(hue):
    """A PNG of 8 × 8 in one colour."""
    rows = b"".join(b"\0" + bytes(hue) * 8 for _ in range(8))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sound():
    """A tenth of a second of silence, as WAV."""
    samples = bytes([128]) * 800
    return b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data" + struct.pack("<I", len(samples)) + samples


def drawing(hue):
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="{hue}"/></svg>'.encode()


def integrity(content):
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


FILES = {}


def file(path, kind, content):
    content = content.encode() if isinstance(content, str) else content
    FILES[path] = (kind, content)
    return content


# Each picture has a colour of its own, so that one in the place of another shows.
PICTURES = [
    "img", "relative", "absolute", "protocol", "set-1", "set-2", "comma,1", "source", "lazy", "poster", "button", "svg-image",
    "attribute", "inline", "in-set", "by-sheet", "imported", "preload", "quoted", "og", "ld", "escaped", "stays",
]
for number, name in enumerate(PICTURES):
    file(f"/static/{name}.png", "image/png", picture(((number * 53) % 256, (number * 97 + 40) % 256, (number * 151 + 80) % 256)))
file("/static/icon.svg", "image/svg+xml", drawing("teal"))
file("/static/embed.svg", "image/svg+xml", drawing("purple"))
file("/static/sprite.svg", "image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"><symbol id="dot" viewBox="0 0 8 8"><circle cx="4" cy="4" r="4" fill="olive"/></symbol></svg>')
file("/static/sound.wav", "audio/wav", sound())
file("/static/track.vtt", "text/vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n")
file("/static/app.webmanifest", "application/manifest+json", json.dumps({"name": "Lantern Works", "start_url": "/"}))
style = file("/static/site.css", "text/css", '@import "imported.css"; .sheet { background: url("by-sheet.png") }\n')
file("/static/imported.css", "text/css", f'.imported {{ background: url({SITE}/static/imported.png) }}\n')
file("/static/inline.css", "text/css", ".by-inline { outline: 2px solid navy }\n")
classic = file("/static/classic.js", "text/javascript", "document.documentElement.dataset.classic = 'ran';\n")
file("/static/plain.js", "text/javascript", "document.documentElement.dataset.plain = 'ran';\n")
file("/static/written.js", "text/javascript", "document.documentElement.dataset.written = 'ran';\n")
file("/static/module.js", "text/javascript", 'import { name } from "lamps"; import "./sibling.js"; import "wicks/short.js"; document.documentElement.dataset.module = name;\n')
file("/static/sibling.js", "text/javascript", 'import { scoped } from "scoped"; document.documentElement.dataset.scoped = scoped;\n')
lamps = file("/static/lamps.js", "text/javascript", 'export const name = "lamps";\n')
file("/static/wicks/short.js", "text/javascript", "document.documentElement.dataset.wicks = 'ran';\n")
file("/static/scoped.js", "text/javascript", 'export const scoped = "in its scope";\n')
file("/static/worker.js", "text/javascript", "postMessage('worker ran');\n")
file("/api/stock.json", "application/json", json.dumps({"lamps": 3}))
file("/frame.html", "text/html; charset=utf-8", "<!doctype html><title>frame</title><p>frame</p>")
file("/notes.pdf", "application/pdf", "%PDF-1.4\n")

# A font of this system, which browsers fetch with CORS alone.
FONTS = sorted(glob("/usr/share/fonts/**/*.ttf", recursive=True))
if FONTS:
    with open(FONTS[0], "rb") as font:
        file("/static/lettering.ttf", "font/ttf", font.read())
FACE = '@font-face { font-family: lettering; src: url("/static/lettering.ttf") }' if FONTS else ""

IMPORT_MAP = json.dumps({
    "imports": {"lamps": "/static/lamps.js", "wicks/": "/static/wicks/"},
    "scopes": {"/static/": {"scoped": "/static/scoped.js"}},
    "integrity": {"/static/lamps.js": integrity(lamps)},
})
POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"
PAGE = f"""<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<title>Every construct</title>
<meta http-equiv="Content-Security-Policy" content="style-src 'self' 'unsafe-inline'">
<meta property="og:image" content="{SITE}/static/og.png">
<base href="/lamps/">
<link rel=canonical href="{SITE}/static/canonical.css">
<link rel=alternate href="/static/alternate.css" hreflang=de>
<link rel="shortcut icon" href="/static/icon.svg">
<link rel=manifest href=/static/app.webmanifest>
<link rel=stylesheet href="../static/site.css" integrity="{integrity(style)}">
<link rel=preload as=image href="/static/preload.png" imagesrcset="/static/preload.png 1x">
<script type=importmap>{IMPORT_MAP}</script>
<link rel=modulepreload href="/static/lamps.js">
<script type="application/ld+json">{{"@type": "Product", "image": "{SITE.replace('/', chr(92) + '/')}\\/static\\/ld.png"}}</script>
<style>
@import "/static/inline.css";
{FACE}
h1 {{ font: 20px lettering }}
p {{ display: inline-block; width: 40px; height: 40px; margin: 4px }}
img, embed, input {{ width: 40px; height: 40px }}
.inline {{ background: url(/static/inline.png) }}
.in-set {{ background: image-set("/static/in-set.png" 1x) }}
</style>
</head>
<body>
<h1>Lantern Works</h1>
<img alt="" src=/static/img.png>
<img alt="" src="../static/relative.png">
<img alt="" src="{SITE}/static/absolute.png">
<img alt="" src='//www.shop.test/static/protocol.png'>
<img alt="" srcset="/static/set-1.png 1x, /static/set-2.png 2x">
<img alt="" srcset="/static/comma,1.png 1x">
<picture><source srcset="/static/source.png"><img alt="" src="/static/stays.png"></picture>
<img alt="" class=lazy data-src="/static/lazy.png">
<video width=40 height=40 poster="/static/poster.png"></video>
<audio src="/static/sound.wav" preload=auto><track default src="/static/track.vtt"></audio>
<embed src="/static/embed.svg">
<input type=image alt="" src="/static/button.png">
<svg width=40 height=40><image href="/static/svg-image.png" width=40 height=40 /></svg>
<svg width=40 height=40><use href="/static/sprite.svg#dot"/></svg>
<p style="background: url(/static/attribute.png)"></p>
<p style="background: url(&quot;/static/quoted.png&quot;)"></p>
<p class=inline></p><p class=in-set></p><p class=sheet></p><p class=imported></p><p class=by-inline></p>
<a href="/notes.pdf">notes</a> <form action="/static/form.css"><button>go</button></form>
<iframe src="/frame.html" width=80 height=40></iframe>
<p id=worker></p><p id=stock></p>
<script src="/static/classic.js" integrity="{integrity(classic)}"></script>
<script src="//www.shop.test/static/plain.js"></script>
<script>document.write('<script src="/static/written.js"><\\/script>');</script>
<script>
const settings = {{"picture": "http:\\/\\/www.shop.test\\/static\\/escaped.png"}};
document.body.append(Object.assign(new Image(), {{ src: settings.picture, alt: "" }}));
for (const image of document.querySelectorAll(".lazy")) image.src = image.dataset.src;
new Worker("/static" + "/worker.js").onmessage = (event) => {{ worker.title = event.data; }};
fetch("/api/stock.json").then((answer) => answer.json()).then((found) => {{ stock.title = found.lamps; }});
</script>
<script type=module src="/static/module.js"></script>
</body>
</html>
"""
file("/", "text/html; charset=utf-8", PAGE)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        print("GET", self.headers.get("Host", "-"), self.path, flush=True)
        kind, content = FILES.get(path, ("text/plain", None))
        status = 200 if content is not None else 404
        content = content if content is not None else b"not here\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if path.startswith("/static/"):
            self.send_header("Cache-Control", "max-age=600")
        if kind.startswith("text/html"):
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("Link", '</static/preload.png>; rel=preload; as=image')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
