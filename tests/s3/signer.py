"""A small client of its own for S3 over raw HTTP: signs by the AWS documents, shares no code with the server."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.etree import ElementTree

Header = tuple[str, str]


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The S3 error code, "" without one."""
        if not self.body.startswith(b"<?xml"):
            return ""
        found = ElementTree.fromstring(self.body).find("Code")
        return (found.text or "") if found is not None else ""

    def texts(self, name: str) -> list[str]:
        """Texts of all elements of this name."""
        root = ElementTree.fromstring(self.body)
        return [node.text or "" for node in root.iter() if node.tag.rpartition("}")[2] == name]


@dataclass
class Client:
    """`now`: what this client believes the time is (seconds since 1970)."""

    host: str
    access_key: str = "AK"
    secret_key: str = "SK"
    region: str = "us-east-1"
    service: str = "s3"
    now: float | None = None
    timeout: float = 30.0
    tweak: dict[str, str] = field(default_factory=dict)
    """Replaces parts of what is signed or sent: date, scope_date, signature, signed_headers, authorization."""

    def stamp(self) -> str:
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.now if self.now is not None else time.time()))

    def scope(self, date: str) -> str:
        return f"{self.tweak.get('scope_date', date[:8])}/{self.region}/{self.service}/aws4_request"

    def signing_key(self, date: str) -> bytes:
        key = b"AWS4" + self.secret_key.encode()
        for part in self.scope(date).split("/"):
            key = _hmac(key, part)
        return key

    def signature(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]],
        headers: Mapping[str, str],
        names: list[str],
        payload: str,
        date: str,
    ) -> str:
        encoded = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in query)
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
        canonical = "\n".join((method, path, "&".join(f"{k}={v}" for k, v in encoded), lines, ";".join(names), payload))
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{date}\n{self.scope(date)}\n{digest}"
        return hmac.new(self.signing_key(date), text.encode(), hashlib.sha256).hexdigest()

    def signed(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        payload: str | None = None,
        unsigned: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Headers with Authorization. `unsigned` ones are sent and left out of the signature."""
        date = self.tweak.get("date", self.stamp())
        payload = hashlib.sha256(body).hexdigest() if payload is None else payload
        all_headers = {"host": self.host, "x-amz-date": date, "x-amz-content-sha256": payload}
        all_headers |= {k.lower(): v for k, v in (headers or {}).items()}
        names = sorted(all_headers)
        if "signed_headers" in self.tweak:
            names = self.tweak["signed_headers"].split(";")
        signature = self.tweak.get("signature", self.signature(method, path, query, all_headers, names, payload, date))
        all_headers["authorization"] = self.tweak.get(
            "authorization",
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{self.scope(date)}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}",
        )
        return all_headers | {k.lower(): v for k, v in (unsigned or {}).items()}

    def request(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        payload: str | None = None,
        unsigned: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Response:
        """Sign and send. `key`: appended to the path percent-encoded."""
        if key is not None:
            path = path + "/" + quote(key.encode("utf-8", "surrogateescape"), safe="/-_.~")
        query = list(query)
        sent = self.signed(method, path, query, headers, body, payload, unsigned)
        return self.send(method, path + _query(query), sent, body)

    def presign(
        self, method: str, path: str, expires: str = "60", query: Iterable[tuple[str, str]] = (), **extra: str
    ) -> str:
        """A target with its authorization in the query; `extra` headers are signed too."""
        date = self.tweak.get("date", self.stamp())
        headers = {"host": self.host} | {k.lower().replace("_", "-"): v for k, v in extra.items()}
        names = sorted(headers)
        pairs = [
            *query,
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", f"{self.access_key}/{self.scope(date)}"),
            ("X-Amz-Date", date),
            ("X-Amz-Expires", expires),
            ("X-Amz-SignedHeaders", self.tweak.get("signed_headers", ";".join(names))),
        ]
        signature = self.signature(method, path, pairs, headers, names, "UNSIGNED-PAYLOAD", date)
        return path + _query([*pairs, ("X-Amz-Signature", signature)])

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """As it is, without signing."""
        connection = http.client.HTTPConnection(self.host, timeout=self.timeout)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value.encode("utf-8", "surrogateescape"))
            if body and not any(name.lower() in ("content-length", "transfer-encoding") for name in headers):
                connection.putheader("content-length", str(len(body)))
            elif method == "PUT" and not body and "content-length" not in headers:
                connection.putheader("content-length", "0")
            connection.endheaders(body)
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def _query(pairs: Iterable[tuple[str, str]]) -> str:
    text = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
    return f"?{text}" if text else ""
