"""What the clients and the examples promise, asked of the cluster that `run` has started."""
import hashlib
import http.client
import os
import shutil
import ssl
import subprocess
import sys
import time
import traceback

import django
from django.db import transaction

from perigee_client import Control, Edge, PerigeeError, from_environment

PATIENCE = 30
ENV = os.environ
FAILED = []
control = from_environment()


def get(place, host, path):
    """Body and Cache-Status of a page."""
    connection = http.client.HTTPConnection(place, timeout=PATIENCE)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    assert response.status == 200, (response.status, body)
    return body.strip(), response.getheader("Cache-Status") or ""


def shop(key):
    return get(ENV["EDGE"], "www.shop.example", f"/products/{key}")


def blog(key):
    return get(ENV["EDGE"], "blog.example", f"/{key}")


def until(what, state):
    """Waits for a state, with a bound."""
    end = time.monotonic() + PATIENCE
    while not (value := state()):
        assert time.monotonic() < end, f"{what} within {PATIENCE} s"
        time.sleep(0.05)
    return value


def stored(page, *arguments):
    """Asks until the answer comes from the cache, and returns it."""
    return until("a hit", lambda: (lambda got: got[0] if "hit" in got[1] else None)(page(*arguments)))


def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except PerigeeError as error:
        return error
    raise AssertionError("it was not refused")


def newest():
    """The position of a purge that matches nothing: what comes before it is in force at the edge."""
    accepted = control.purge(tags=["nothing-has-this"])
    accepted.wait()
    return accepted.position


# --- Checks: each function is one, by its docstring ---

def python_purges():
    """Python: a purge by key is in force at each edge once wait() has returned, with receipts"""
    before = stored(blog, "python")
    proof = control.purge(tags=["python"], site="blog", reason="test").wait()
    assert proof["state"] == "done" and [one["node"] for one in proof["receipts"]] == ["fra-1"], proof
    assert int(blog("python")[0]) == int(before) + 1
    assert control.purge_status(proof["position"])["state"] == "done", "without a wait, too"
    for form in ({"url": "http://blog.example/python"}, {"prefix": "http://blog.example/py"}, {"site": "blog"}, {"everything": True}):
        before = stored(blog, "python")
        control.purge(**form).wait()
        assert int(blog("python")[0]) == int(before) + 1, form
    assert refused(control.purge).status == 400, "nothing is named"


def python_reads():
    """Python: nodes and statistics are read, and errors keep status and next step"""
    assert [node["name"] for node in control.nodes()] == ["fra-1"]
    until("statistics", lambda: control.statistics(by="site"))
    stranger = Control(ENV["PERIGEE_CONTROL"], ENV["PERIGEE_AUTHORITY"], "pgt_wrong")
    assert refused(stranger.nodes).status == 401
    assert refused(control.get, "/v1/purges/99999999").status == 404


def python_believes_one_authority():
    """Python: a control of another authority is not believed, and no token is sent to it"""
    system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    error = refused(Control(ENV["PERIGEE_CONTROL"], system, "secret").nodes)
    assert error.status is None and "certificate" in str(error), error
    assert refused(Control, "http://127.0.0.1", ENV["PERIGEE_AUTHORITY"], "").status is None


def python_configures():
    """Python: a configuration is checked with lines and compared, a wrong one is refused, and the roll-out is told"""
    with open(ENV["SITES"]) as file:
        text = file.read()
    findings = control.check(text + "\n[[site]]\nnmae = \"x\"\n")
    assert any(one["severity"] == "error" and one["line"] == text.count("\n") + 3 for one in findings), findings
    assert not [one for one in control.check(text) if one["severity"] == "error"]
    assert refused(control.apply, "nonsense", "test").status == 422
    second = control.post("/v1/configurations", {"text": text + "[[site.rule]]\npath = \"/x/*\"\nttl = \"1h\"\n", "reason": "a rule more", "source": "walk"})
    assert control.diff(1, second["version"])["changes"]
    assert control.rollout()["state"] in ("running", "promoted")


def python_purges_an_edge():
    """Python: an edge by itself is purged by its admin API"""
    with open(ENV["ALONE_TOKEN_FILE"]) as file:
        edge = Edge(ENV["ALONE_ADMIN"], file.read().strip())
    before = stored(get, ENV["ALONE"], "alone.example", "/alone")
    edge.purge(tags=["alone"]).wait()
    assert int(get(ENV["ALONE"], "alone.example", "/alone")[0]) == int(before) + 1
    assert refused(Edge(ENV["ALONE_ADMIN"], "wrong").purge, everything=True).status == 401


def django_purges():
    """Django: a changed price is on the page once the transaction is through, and not before"""
    from shop.models import Product
    tea = Product.objects.create(name="tea", cents=300)
    assert stored(shop, tea.pk) == "tea: 3.00"
    with transaction.atomic():
        tea.cents = 450
        tea.save()
        newest()
        assert shop(tea.pk)[0] == "tea: 3.00" and "hit" in shop(tea.pk)[1], "nothing is purged before the commit"
    until("the new price", lambda: shop(tea.pk)[0] == "tea: 4.50")
    assert stored(shop, tea.pk) == "tea: 4.50"


def django_rolls_back():
    """Django: what was rolled back purges nothing; what was deleted is gone"""
    from shop.models import Product
    cup = Product.objects.create(name="cup", cents=900)
    assert stored(shop, cup.pk) == "cup: 9.00"
    try:
        with transaction.atomic():
            cup.cents = 1
            cup.save()
            raise KeyError
    except KeyError:
        pass
    newest()
    assert "hit" in shop(cup.pk)[1]
    cup.delete()

    def status():
        try:
            shop(cup.pk)
        except AssertionError as error:
            return error.args[0][0]
    until("404", lambda: status() == 404)


def django_stands():
    """Django: a save stands, and says so in the log, when the CDN cannot be asked"""
    from perigee_purge import purge
    import logging
    lines = []
    logging.getLogger("perigee").addHandler(type("Kept", (logging.Handler,), {"emit": lambda _, record: lines.append(record.getMessage())})())
    purge(["product-1"], Control("https://127.0.0.1:1", ENV["PERIGEE_AUTHORITY"], ""))
    assert len(lines) == 1 and lines[0].startswith("the CDN keeps product-1 until they expire: control at"), lines


def webhook_purges():
    """webhook: curl purges a key and ends when every edge has signed"""
    before = stored(blog, "hook")
    subprocess.run([ENV["CLIENTS"] + "/webhook/purge.sh", "hook", "other"], check=True, stdout=subprocess.DEVNULL)
    assert int(blog("hook")[0]) == int(before) + 1
    wrong = subprocess.run([ENV["CLIENTS"] + "/webhook/purge.sh", "hook"], env={**ENV, "PERIGEE_TOKEN": "pgt_wrong"}, capture_output=True)
    assert wrong.returncode != 0


def rust_purges():
    """Rust: the client's example purges a key and ends when every edge has signed"""
    if "RUST_EXAMPLE" not in ENV:
        return "there is no cargo to build it"
    with open(ENV["PERIGEE_AUTHORITY"]) as file:
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()
    before = stored(blog, "rust")
    run = subprocess.run([ENV["RUST_EXAMPLE"], "rust"], env={**ENV, "PERIGEE_AUTHORITY": fingerprint}, check=True, capture_output=True, text=True)
    assert run.stdout == '"done": 1 receipts\n', run.stdout
    assert int(blog("rust")[0]) == int(before) + 1


def php(scene):
    run = subprocess.run(["php", ENV["HERE"] + "/wordpress.php", ENV["CLIENTS"] + "/wordpress/perigee-purge.php", scene], capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr
    return run.stdout.strip()


def wordpress_purges():
    """WordPress: a changed, deleted or published post is purged with the lists, a draft is not (php-cli, WordPress's functions as stubs)"""
    if not shutil.which("php"):
        return "there is no php"
    subprocess.run(["php", "-l", ENV["CLIENTS"] + "/wordpress/perigee-purge.php"], check=True, stdout=subprocess.DEVNULL)
    assert php("keys") == "post-17 post-18 lists"
    for scene in ("change", "delete"):
        for key in ("post-17", "lists"):
            stored(blog, key)
        php(scene)
        newest()
        assert all("hit" not in blog(key)[1] for key in ("post-17", "lists")), scene
    stored(blog, "post-17")
    php("draft")
    newest()
    assert "hit" in blog("post-17")[1]
    php("theme")
    newest()
    assert "hit" not in blog("post-17")[1]


CHECKS = [
    python_purges, python_reads, python_believes_one_authority, python_purges_an_edge, django_purges, django_rolls_back, django_stands,
    webhook_purges, rust_purges, wordpress_purges, python_configures,
]

if __name__ == "__main__":
    django.setup()
    for check in CHECKS:
        try:
            skipped = check()
            print(f"skip {check.__doc__}: {skipped}" if skipped else f"ok {check.__doc__}", flush=True)
        except Exception:
            print(f"not ok {check.__doc__}", flush=True)
            traceback.print_exc(file=sys.stdout)
            FAILED.append(check)
    sys.exit(1 if FAILED else 0)
