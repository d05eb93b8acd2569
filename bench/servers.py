"""The servers that the benches start: Perigee, its rivals from Debian's packages, and fast origins.

Every rival is set up as its users would tune it for hits: one worker, keep-alive without a request limit,
open-file caching, a buffered access log and a status page (the features that Perigee measures itself with too).
"""
import http.client
import os
import shutil
import subprocess

from rig import CORES, SERVER_CORE, CannotMeasure, cost, fetch, run_wrk

SIZES = {"1k": 1024, "10k": 10 * 1024, "100k": 100 * 1024, "1m": 1024 * 1024}


def body_of(size, seed=1):
    """`size` bytes that no compression or shortcut makes cheap: a small linear congruential generator."""
    words = bytearray()
    state = seed
    while len(words) < size:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        words += state.to_bytes(8, "little")
    return bytes(words[:size])


def installed(command):
    return shutil.which(command) is not None


# --- nginx ---


def nginx(rig, name, http, cores=None, workers=1, sendfile=True):
    """Starts nginx with the given `http` block; `{port}` in it is the port and `{dir}` its own directory.

    `tcp_nopush`, which Debian's own file turns on, stays off: with it nginx waits for delayed acknowledgements
    at 100 KiB, at a tenth of the throughput and twice the CPU time.
    """
    port = rig.port()
    folder = f"{name.replace(' ', '-')}-{port}"
    root = rig.path(folder)
    os.makedirs(root)
    user = "user root;" if os.geteuid() == 0 else ""
    http = http.replace("{port}", str(port)).replace("{dir}", root)
    config = rig.write(f"{folder}/nginx.conf", f"""
{user} daemon off; pid {root}/pid; error_log stderr warn;
worker_processes {workers}; worker_rlimit_nofile 20000;
events {{ worker_connections 19000; multi_accept on; }}
http {{
  sendfile {"on" if sendfile else "off"}; output_buffers 1 128k;
  keepalive_timeout 3600s; keepalive_requests 1000000000;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
  types {{ }} default_type application/octet-stream;
{http}
}}
""")
    return rig.start(name, ["nginx", "-p", root, "-c", config, "-e", "stderr"], port, cores)


def requests_of(origin):
    """How many requests an nginx of ours has had, this question not counted."""
    _, _, page = fetch(origin, "/status")
    return int(page.split()[9]) - 1


NGINX_LOG = "access_log {dir}/access.log combined buffer=64k flush=1s;"


def nginx_files(rig, root, name="origin", log="access_log off;", cores=None):
    """nginx static with an open-file cache: the origin that fills the caches, and a rival of its own."""
    return nginx(rig, name, f"""
  {log}
  open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h;
  server {{
    listen 127.0.0.1:{{port}} backlog=16384;
    root {root};
    location / {{ add_header Cache-Control "public, max-age=86400"; }}
    location = /status {{ stub_status; }}
  }}""", cores)


def nginx_static(rig, root):
    return nginx_files(rig, root, "nginx static", NGINX_LOG, {SERVER_CORE})


def nginx_words(rig, body, line=None):
    """An origin that answers every path with the same short text, cacheable for a day, as fast as nginx can; with one
    more header line, if there is one."""
    name, _, value = (line or "").partition(": ")
    more = f'add_header {name} "{value}"; ' if line else ""
    return nginx(rig, "origin", f"""
  access_log off;
  server {{
    listen 127.0.0.1:{{port}} backlog=16384;
    location / {{ add_header Cache-Control "public, max-age=86400"; {more}return 200 "{body}"; }}
    location = /status {{ stub_status; }}
  }}""")


def nginx_bodies(rig, folder, bodies, pattern):
    """An origin of many paths and few bodies, each cacheable for a day.

    `bodies` maps names to bytes; in a path, the group of `pattern` is the name. Each line of `origin.access_log` is the
    number of bytes of one body that was sent.
    """
    for name, body in bodies.items():
        rig.write(f"{folder}/{name}", body)
    origin = nginx(rig, "origin", f"""
  log_format bytes "$body_bytes_sent";
  access_log {{dir}}/access.log bytes buffer=64k flush=1s;
  open_file_cache max=1000 inactive=1h; open_file_cache_valid 1h;
  server {{
    listen 127.0.0.1:{{port}} backlog=16384;
    root {rig.path(folder)};
    location / {{ rewrite {pattern} /$1 break; add_header Cache-Control "public, max-age=86400"; }}
    location = /status {{ stub_status; access_log off; }}
  }}""")
    origin.access_log = rig.path(f"origin-{origin.port}", "access.log")
    return origin


def certificate(rig):
    """A certificate of the rig's own for 127.0.0.1, ECDSA on P-256 as most sites have: (chain, key) as paths."""
    chain, key = rig.path("chain.pem"), rig.path("key.pem")
    if not os.path.exists(key):
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-keyout", key, "-out", chain, "-days", "30", "-subj", "/CN=bench.example",
                "-addext", "subjectAltName=DNS:bench.example,IP:127.0.0.1"]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise CannotMeasure(f"openssl makes no certificate: {done.stderr}")
        os.chmod(key, 0o644)
    return chain, key


def nginx_cache(rig, origin, cores=None, workers=1, sendfile=True, size="4g", tls=False):
    """nginx `proxy_cache` of `size` in front of `origin`, with the lock that its users turn on against stampedes.

    Without sendfile it answers small objects with one system call instead of two, and large ones with a copy.
    """
    name = "nginx proxy_cache" if sendfile else "nginx without sendfile"
    secure, settings = "", ""
    if tls:
        chain, key = certificate(rig)
        secure = " ssl http2"
        settings = f"ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; http2_max_requests 1000000000;"
    server = nginx(rig, name, f"""
  {NGINX_LOG}
  proxy_cache_path {{dir}}/cache levels=1:2 keys_zone=hits:64m max_size={size} inactive=1d use_temp_path=off;
  open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h;
  upstream origin {{ server 127.0.0.1:{origin.port}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{{port}} backlog=16384{secure};
    {settings}
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache hits; proxy_cache_lock on;
      add_header X-Cache $upstream_cache_status;
    }}
    location = /status {{ stub_status; }}
  }}""", cores or {SERVER_CORE}, workers, sendfile)
    server.is_tls = tls
    return server


# --- Varnish, HAProxy ---


def varnish(rig, origin, cores=None):
    """Varnish with its memory storage; its log stays in shared memory, as by default."""
    port = rig.port()
    root = rig.path(f"varnish-{port}")
    argv = ["varnishd", "-F", "-n", root, "-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{origin.port}",
            "-s", "malloc,4g", "-T", "none", "-p", "thread_pools=1", "-p", "thread_pool_max=5000",
            "-p", "timeout_idle=3600", "-p", "listen_depth=16384"]
    return rig.start("varnish", argv, port, cores or {SERVER_CORE})


def haproxy(rig, origin, cores=None):
    """HAProxy with its small-object cache, raised so that the largest size fits."""
    port = rig.port()
    config = rig.write(f"haproxy-{port}.cfg", f"""
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
cache hits
  total-max-size 512
  max-object-size 2097152
  max-age 86400
frontend edge
  bind 127.0.0.1:{port} backlog 16384
  default_backend origin
backend origin
  http-request cache-use hits
  http-response cache-store hits
  server origin 127.0.0.1:{origin.port}
""")
    return rig.start("haproxy", ["haproxy", "-db", "-f", config], port, cores or {SERVER_CORE})


def caddy_files(rig, root):
    """Caddy over TLS, with HTTP/3, which none of the others here speaks: files from the page cache, for it has no cache of its own."""
    port = rig.port()
    chain, key = certificate(rig)
    config = rig.write(f"caddy-{port}/Caddyfile", f"""
{{
  admin off
  default_sni bench.example
  storage file_system {rig.path(f"caddy-{port}", "storage")}
}}
https://bench.example:{port}, https://127.0.0.1:{port} {{
  tls {chain} {key}
  root * {root}
  file_server
}}
""")
    argv = ["env", "GOMAXPROCS=1", f"HOME={rig.path(f'caddy-{port}')}", "caddy", "run", "--adapter", "caddyfile", "--config", config]
    server = rig.start("Caddy, files", argv, port, {SERVER_CORE})
    server.is_tls = True
    return server


# --- Perigee ---


def perigee(rig, origin, cores=None, memory="1GiB", disk=None, log=True, tls=False, writes_per_day=None,
            edge="", site=""):
    """Perigee as it comes, with its JSON access log to a file; `memory` and `disk` are the sizes of the store,
    `writes_per_day` the write budget of its disk if not the default, `edge` further lines of `[edge]`, `site` of the site. With `tls` its port is the one that speaks it.

    Its files stand in `server.root`, those of its disk tier in `server.root`/disk.
    """
    binary = os.environ.get("PERIGEE", "")
    if not os.access(binary, os.X_OK):
        raise CannotMeasure(f"PERIGEE names no executable: {binary!r}")
    port, admin = rig.port(), rig.port()
    root = rig.path(f"perigee-{port}")
    os.makedirs(f"{root}/disk")
    access_log = f'access_log = "{root}/access.log"' if log else ""
    disks = f"""
[[store.disk]]
path = "{root}/disk"
size = "{disk}"
{f"writes_per_day = {writes_per_day}" if writes_per_day else ""}
""" if disk else ""
    certificates, listen_tls = "", ""
    listen = port
    if tls:
        chain, key = certificate(rig)
        listen, listen_tls = rig.port(), f'listen_tls = "127.0.0.1:{port}"'
        certificates = f"""
[[certificate]]
chain = "{chain}"
key = "{key}"
"""
    config = rig.write(f"perigee-{port}/perigee.toml", f"""
[edge]
{edge}
{access_log}
{listen_tls}
{certificates}

[store]
memory = "{memory}"
{disks}
[[site]]
name = "bench"
domains = ["*"]
{site}
origin = "http://127.0.0.1:{origin.port}"
# The rivals have no limit here; a thousand requests of a second each need a thousand connections.
origin_options = {{ connections_max = 10000 }}
""")
    argv = [binary, "serve", "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}",
            "--state", root, "--config", config]
    server = rig.start("perigee", argv, port, cores or {SERVER_CORE})
    server.admin, server.root, server.is_tls = admin, root, tls
    return server


def launch_again(rig, server, cores=None):
    """Starts a Perigee that has ended on the same state, disk and ports, and waits for nothing."""
    again = rig.launch(server.name, server.argv, server.port, cores or {SERVER_CORE})
    again.admin, again.root = server.admin, server.root
    return again


def metric(server, name, **labels):
    """The sum of the series of `name` that have these labels, from /metrics; 0 when there are none."""
    connection = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=30)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    except (OSError, http.client.HTTPException) as reason:
        raise CannotMeasure(f"{server.name} does not tell its metrics: {reason}") from reason
    finally:
        connection.close()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines
               if line.startswith((name + "{", name + " ")) and all(label in line for label in wanted))


def is_hit(fields):
    """Whether Perigee says that it answered from its cache, and asked nobody."""
    own = [part.strip() for part in fields.get("Cache-Status", "").rsplit(",", 1)[-1].split(";")]
    return "hit" in own and not any(part.startswith("fwd") for part in own)


def both_cores():
    """The cores of a run that uses two: the server's, and the next."""
    return set(CORES[:2])


# --- Many objects ---

# The bound of a fill, which ends itself when all is stored.
HOURS_2 = 7200


def store_objects(server, prefix, count):
    """Has `server` fetch /prefix/1 … /prefix/count from its origin, each once."""
    run_wrk(server, "/", HOURS_2, 64, script="spread.lua", arguments=[prefix, count, "fill", 0], cores=set(CORES))


def ask_objects(server, prefix, count, seconds, seed=0):
    """Hits on /prefix/1 … /prefix/count at random: (CPU µs per hit, Load)."""
    return cost(server, "/", seconds, 32, script="spread.lua", arguments=[prefix, count, "ask", seed])
