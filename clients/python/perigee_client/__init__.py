"""The API of a Perigee cluster's control (:class:`Control`), and that of one running edge (:class:`Edge`).

    from perigee_client import from_environment

    purge = from_environment().purge(tags=["product-17"], reason="new price")
    purge.wait()            # until every edge in service has signed that it is in force

Nothing but the standard library; typed; one request per connection, so that it can be used from any thread. Answers are the JSON that a
control describes at ``/v1/openapi.json``.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Accepted", "Control", "Edge", "PerigeeError", "Purger", "from_environment"]

#: Where a control listens unless its URL says otherwise.
DEFAULT_PORT = 7700
#: Seconds between two bytes: longer than control lets anybody wait.
PATIENCE = 70.0
#: Seconds that one request waits for receipts, at most.
LOOK = 10.0

Json = dict[str, Any]


class PerigeeError(Exception):
    """What the API has refused, or why it could not be asked."""

    def __init__(self, message: str, status: int | None = None, next: str = "") -> None:
        super().__init__(f"{message}; {next}" if next else message)
        #: The status of the answer that refused; None when there was no answer.
        self.status = status
        #: What to do, in the API's words; may be empty.
        self.next = next


@dataclass(frozen=True)
class Accepted:
    """A purge that is safe: in control's journal, or in force at an edge."""

    #: Its number in the journal, or the edge's log.
    position: int
    #: All that was answered.
    answer: Json
    _control: Control | None = None

    def wait(self, timeout: float = 60.0) -> Json:
        """Waits until every edge in service has signed that it is in force, and returns the receipts. An edge by itself has answered when it was.

        Raises PerigeeError after `timeout` seconds; the purge is in the journal then, and edges apply it before they serve on.
        """
        if self._control is None:
            return self.answer
        until = time.monotonic() + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            status = self._control.purge_status(self.position, min(left, LOOK))
            if status["state"] == "done":
                return status
            if left == 0.0:
                waiting = [str(node["node"]) for node in status["laggards"]]
                raise PerigeeError(f"not every node has signed within {timeout:.0f} s; waiting for {', '.join(waiting) or 'a node in service'}")


class Purger(Protocol):
    """Who can purge: a control, or an edge."""

    def purge(
        self,
        *,
        url: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        site: str | None = None,
        everything: bool = False,
        soft: bool = False,
        reason: str | None = None,
    ) -> Accepted: ...


def _wanted(url: str | None, prefix: str | None, tags: Iterable[str], site: str | None, everything: bool, soft: bool) -> Json:
    if isinstance(tags, str):
        raise TypeError("tags is a list of surrogate keys, not one text")
    body: Json = {"soft": soft}
    for name, value in (("url", url), ("prefix", prefix), ("tags", list(tags)), ("site", site), ("everything", everything)):
        if value:
            body[name] = value
    return body


def _exchange(connection: http.client.HTTPConnection, place: str, token: str, method: str, target: str, body: Json | None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
    try:
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise PerigeeError(f"{place}: {error}") from error
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError as error:
        raise PerigeeError(f"{place}: the answer is not JSON", response.status) from error


def _accepted(status: int, answer: Any) -> Json:
    if 200 <= status < 300 and isinstance(answer, dict):
        return answer
    said = answer if isinstance(answer, dict) else {}
    message = str(said.get("error") or f"status {status}")
    for key in ("found", "wanted"):
        if said.get(key):
            message += f"; {key} {said[key]}"
    raise PerigeeError(message, status, str(said.get("next") or ""))


class Control:
    """A cluster's control.

    `url`: ``https://host[:port]``. `authority`: the file ``ca.pem`` of its state directory; nothing else is believed, and a server only when its
    certificate says that it is a control. `token`: an operator's or a program's.
    """

    def __init__(self, url: str, authority: str | os.PathLike[str], token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            raise PerigeeError(f"{url!r} is no address of a control", next="write e.g. https://control-1.example:7700")
        self._place = f"control at {url}"
        self._host, self._port, self._token = parts.hostname, parts.port or DEFAULT_PORT, token
        try:
            self._tls = ssl.create_default_context(cafile=os.fspath(authority))
        except (OSError, ssl.SSLError) as error:
            raise PerigeeError(f"{os.fspath(authority)}: {error}", next="name the file ca.pem of control's state directory") from error
        # Its name and role stand in a URI, whatever address it was dialled by.
        self._tls.check_hostname = False
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3

    def request(self, method: str, target: str, body: Json | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer, whatever the status. `target` starts with ``/`` and is percent-encoded."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=PATIENCE, context=self._tls)
        try:
            connection.connect()
        except OSError as error:
            raise PerigeeError(f"{self._place}: {error}") from error
        certificate: Any = connection.sock.getpeercert() or {}
        names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
        if not any(name.startswith("perigee://control/") for name in names):
            connection.close()
            raise PerigeeError(f"{self._place}: what answers there is no control")
        return _exchange(connection, self._place, self._token, method, target, body)

    def get(self, target: str, query: Mapping[str, object] | None = None) -> Json:
        """GET of a path of the API."""
        if query:
            target += "?" + urllib.parse.urlencode(query)
        return _accepted(*self.request("GET", target))

    def post(self, target: str, body: Json) -> Json:
        """POST of JSON to a path of the API."""
        return _accepted(*self.request("POST", target, body))

    def purge(
        self,
        *,
        url: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        site: str | None = None,
        everything: bool = False,
        soft: bool = False,
        reason: str | None = None,
    ) -> Accepted:
        """Purges one URL, a prefix, surrogate keys (of one site or of all), a site, or everything. `soft`: stale instead of gone.

        Returns when it is safe in the journal; edges have it within milliseconds, and :meth:`Accepted.wait` proves it.
        """
        body = _wanted(url, prefix, tags, site, everything, soft)
        if reason:
            body["reason"] = reason
        answer = self.post("/v1/purges", body)
        return Accepted(int(answer["position"]), answer, self)

    def purge_status(self, position: int, wait: float = 0.0) -> Json:
        """How far a purge has come: `state`, `receipts`, `laggards`, `out_of_contact`. `wait`: seconds to wait for its end, 55 at most."""
        # Control takes no wait of nothing.
        millis = int(min(wait, 55.0) * 1000)
        return self.get(f"/v1/purges/{position}", {"wait": f"{millis}ms"} if millis > 0 else None)

    def nodes(self) -> list[Json]:
        """The nodes of the cluster."""
        return list(self.get("/v1/nodes")["nodes"])

    def statistics(self, **query: object) -> Json:
        """Statistics, by the parameters of ``/v1/stats``; `from_` is ``from``."""
        return self.get("/v1/stats", {name.rstrip("_"): value for name, value in query.items()})

    def check(self, text: str) -> list[Json]:
        """What is wrong with a configuration, or could be: each finding with `severity`, `line` and `message`. Changes nothing."""
        body: Json = {"text": text, "reason": "", "source": "python", "dry_run": True}
        status, answer = self.request("POST", "/v1/configurations", body)
        if "diagnostics" not in answer:
            _accepted(status, answer)
        return list(answer.get("diagnostics") or [])

    def apply(self, text: str, reason: str, *, stage: str = "edge") -> Json:
        """Adds a configuration as a version and begins to roll it out; `stage` is ``edge``, ``pop`` or ``all``. Raises PerigeeError when it is wrong."""
        added = self.post("/v1/configurations", {"text": text, "reason": reason, "source": "python"})
        return self.post("/v1/rollouts", {"version": added["version"], "stage": stage, "reason": reason})

    def rollout(self) -> Json:
        """How the roll-out stands; its `state` is ``running``, ``paused``, ``promoted`` or ``undone``."""
        return self.get("/v1/rollouts/current")

    def diff(self, from_: int | None = None, to: int | None = None) -> Json:
        """What tells two versions apart: from what is stable to the newest one, unless they are named."""
        return self.get("/v1/diff", {name: value for name, value in (("from", from_), ("to", to)) if value is not None})

    def rollback(self, version: int | None = None, reason: str | None = None) -> Json:
        """Goes back to a version, or to what was stable before, at all edges at once."""
        return self.post("/v1/rollback", {"version": version, "reason": reason})


class Edge:
    """The admin API of one running edge (``perigee serve``): plain HTTP on its own machine.

    `token`: what its state directory has as ``admin-token``.
    """

    def __init__(self, address: str = "127.0.0.1:9090", token: str = "") -> None:
        self._address, self._token = address, token

    def purge(
        self,
        *,
        url: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        site: str | None = None,
        everything: bool = False,
        soft: bool = False,
        reason: str | None = None,
    ) -> Accepted:
        """As :meth:`Control.purge`; returns when it is in force. An edge keeps no list of purges: `reason` is not sent."""
        body = _wanted(url, prefix, tags, site, everything, soft)
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        answer = _accepted(*_exchange(connection, f"admin API at {self._address}", self._token, "POST", "/v1/purge", body))
        return Accepted(int(answer["position"]), answer)


def from_environment(environment: Mapping[str, str] = os.environ) -> Control | Edge:
    """By ``PERIGEE_CONTROL``, ``PERIGEE_AUTHORITY`` (a file) and ``PERIGEE_TOKEN``; without the first, an edge by ``PERIGEE_ADMIN`` (``host:port``)."""
    token = environment.get("PERIGEE_TOKEN", "")
    if control := environment.get("PERIGEE_CONTROL"):
        return Control(control, environment.get("PERIGEE_AUTHORITY", ""), token)
    return Edge(environment.get("PERIGEE_ADMIN") or "127.0.0.1:9090", token)
