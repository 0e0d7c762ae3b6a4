"""AWS Signature Version 4, the server's side: who sent this request, and what did they promise about its body?

Pure: no I/O. Header and presigned-query authentication. Everything in doubt is refused (reference s3.md, Security):
each `x-amz-*` header that is present must be signed, the scope must name this region, service and day, comparisons
take constant time. Version 2 is another module's business: `sigv2.py`; who asks is decided in `auth.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from calendar import timegm
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import S3Error
from .uri import Pairs, decode, encode, is_plain_path

ALGORITHM: Final = "AWS4-HMAC-SHA256"
MAX_SKEW: Final = 15 * 60
MAX_EXPIRES: Final = 7 * 24 * 3600
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()

_HEX64: Final = re.compile(r"[0-9a-f]{64}")
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")
_DIGITS: Final = re.compile(r"\d{1,18}")
_USUAL: Final = re.compile(
    ALGORITHM + r" Credential=([^,=\s]+), ?SignedHeaders=([^,=\s]+), ?Signature=([0-9a-f]{64})", re.ASCII
)
"""The header as nearly everybody writes it."""
_TOKEN: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


class PayloadKind(Enum):
    EXACT = "exact"
    """The body's SHA-256 is part of the signature."""
    UNSIGNED = "UNSIGNED-PAYLOAD"
    SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @property
    def chunked(self) -> bool:
        return self not in (PayloadKind.EXACT, PayloadKind.UNSIGNED)

    @property
    def signed(self) -> bool:
        return self in (PayloadKind.EXACT, PayloadKind.SIGNED_CHUNKS, PayloadKind.SIGNED_CHUNKS_TRAILER)


_EXACT: Final = PayloadKind.EXACT
_PROMISES: Final = {kind.value: kind for kind in PayloadKind if kind is not PayloadKind.EXACT}


@dataclass(frozen=True)
class Request:
    """A request as it came: header names in lower case, in their order; path and query not decoded."""

    method: str
    raw_path: str
    query: Pairs
    headers: Sequence[tuple[str, str]]
    has_body: bool = False

    _map: dict[str, list[str]] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def header_map(self) -> Mapping[str, list[str]]:
        """Name -> its values."""
        found = self._map
        if not found:
            for key, value in self.headers:
                found.setdefault(key, []).append(value)
        return found

    def header(self, name: str) -> str | None:
        """The header's value; None when absent. Raises S3Error when it comes twice."""
        values = self.header_map.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise S3Error("InvalidRequest", 400, f"The header {name} was sent more than once.")
        return values[0]

    def parameter(self, name: str) -> str | None:
        if not self.query:
            return None
        values = [value for key, _, value in self.query if key == name]
        if len(values) > 1:
            raise S3Error("InvalidArgument", 400, f"The parameter {name} was sent more than once.")
        return values[0].decode("utf-8", "surrogateescape") if values else None


class Identity(NamedTuple):
    """Who asks, and how the body is protected. `signing_key`, `date`, `scope`, `signature` seed chunk signatures."""

    access_key: str
    payload: PayloadKind
    sha256: str
    """Hex digest that the body must have; only for EXACT."""
    date: str
    scope: str
    signature: str
    signing_key: bytes
    presigned: bool


Lookup = Callable[[str], str | None]
"""Access key -> secret key."""


def authenticate(request: Request, lookup: Lookup, *, now: float, region: str) -> Identity:
    """Raises S3Error: AccessDenied, InvalidAccessKeyId, SignatureDoesNotMatch, RequestTimeTooSkewed, ..."""
    authorization = request.header("authorization")
    presigned = is_presigned(request)
    if authorization is not None and presigned:
        raise S3Error("InvalidArgument", 400, "Only one auth mechanism allowed; both header and query were given.")
    if "x-amz-security-token" in request.header_map or _has(request, "X-Amz-Security-Token"):
        raise S3Error("InvalidToken", 400, "There are no temporary credentials here: send no security token.")
    if authorization is not None:
        return _by_header(request, authorization, lookup, now, region)
    if presigned:
        return _by_query(request, lookup, now, region)
    raise anonymous()


def anonymous() -> S3Error:
    return S3Error("AccessDenied", 403, "Anonymous access is not allowed.")


def _has(request: Request, name: str) -> bool:
    return any(key == name for key, _, _ in request.query)


_QUERY_NAMES: Final = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
)
_QUERY_LOWER: Final = frozenset(name.lower() for name in _QUERY_NAMES)


def is_presigned(request: Request) -> bool:
    """Whether the query claims to authenticate, in whatever spelling."""
    return bool(request.query) and any(name.lower() in _QUERY_LOWER for name, _, _ in request.query)


# By header.


def _by_header(request: Request, authorization: str, lookup: Lookup, now: float, region: str) -> Identity:
    credential, names, signature = _authorization(authorization)
    date = _request_date(request)
    access_key, scope = _credential_of_header(credential, date[:8], region)
    if abs(now - _seconds(date)) > MAX_SKEW:
        raise S3Error(
            "RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."
        )
    kind, sha256 = _declared_payload(request)
    signed = _signed_headers(request, names)
    secret = secret_of(lookup, access_key)
    payload_hash = sha256 if kind is _EXACT else kind.value
    key = _check(request, secret, date, scope, signed, payload_hash, signature, request.query)
    return Identity(access_key, kind, sha256, date, scope, signature, key, presigned=False)


def _authorization(text: str) -> tuple[str, str, str]:
    """(credential, signed headers, signature)."""
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        return usual[1], usual[2], usual[3]
    method, _, rest = text.strip().partition(" ")
    if method != ALGORITHM:
        raise S3Error("InvalidRequest", 400, f"The authorization mechanism is not supported. Use {ALGORITHM}.")
    fields: dict[str, str] = {}
    for item in rest.split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or name in fields:
            raise _malformed("it is not a list of Credential, SignedHeaders and Signature")
        fields[name] = value.strip()
    if set(fields) != {"Credential", "SignedHeaders", "Signature"}:
        raise _malformed("it needs Credential, SignedHeaders and Signature, and nothing else")
    return fields["Credential"], fields["SignedHeaders"], fields["Signature"]


@lru_cache(256)
def _credential_of_header(text: str, day: str, region: str) -> tuple[str, str]:
    """Clients send the same one all day."""
    return _credential(text, day, region)


def _malformed(detail: str) -> S3Error:
    return S3Error("AuthorizationHeaderMalformed", 400, f"The authorization header is malformed; {detail}.")


def _request_date(request: Request) -> str:
    """Basic ISO form, as it stands in the string to sign."""
    date = request.header("x-amz-date")
    if date is None:
        http_date = request.header("date")
        if http_date is None:
            raise S3Error("AccessDenied", 403, "AWS authentication requires a valid Date or x-amz-date header.")
        try:
            date = time.strftime("%Y%m%dT%H%M%SZ", parsedate_to_datetime(http_date).utctimetuple())
        except (ValueError, TypeError, OverflowError):
            date = http_date.strip()
    if not _valid_date(date):
        raise S3Error("AccessDenied", 403, "AWS authentication requires a valid Date or x-amz-date header.")
    return date


@lru_cache(1024)
def _parse_date(date: str) -> float | None:
    """Seconds since 1970 of `20130524T000000Z`; None when it is no such date."""
    if not _DATE.fullmatch(date) or not date.isascii():
        return None
    try:
        return timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        return None


def _valid_date(date: str) -> bool:
    return _parse_date(date) is not None


def _seconds(date: str) -> float:
    found = _parse_date(date)
    assert found is not None, "checked before"
    return found


def _credential(text: str, date: str, region: str, error: Callable[[str], S3Error] = _malformed) -> tuple[str, str]:
    """(access key, scope). The key itself may hold slashes, so the scope is counted from the end."""
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise error("the credential must be KEY/YYYYMMDD/REGION/s3/aws4_request")
    access_key, day, place, service, end = parts
    if end != "aws4_request" or service != "s3":
        raise error("the credential's service must be s3 and its end aws4_request")
    if place != region:
        raise error(f"the region {place[:40]!r} is wrong; expecting {region!r}")
    if day != date[:8]:
        raise error("the credential's date is not the date of the request")
    return access_key, "/".join(parts[1:])


def _declared_payload(request: Request) -> tuple[PayloadKind, str]:
    declared = request.header("x-amz-content-sha256")
    if declared is None:
        if request.has_body:
            raise S3Error("InvalidRequest", 400, "Missing required header for this request: x-amz-content-sha256")
        return PayloadKind.EXACT, EMPTY_SHA256
    return parse_payload(declared)


def parse_payload(declared: str) -> tuple[PayloadKind, str]:
    """(kind, hex digest for EXACT). Raises S3Error."""
    if _HEX64.fullmatch(declared) and declared.isascii():
        return _EXACT, declared
    kind = _PROMISES.get(declared)
    if kind is not None:
        return kind, ""
    if declared.startswith("STREAMING-"):
        raise S3Error("NotImplemented", 501, "This way of signing a body is not implemented.")
    raise S3Error(
        "InvalidArgument", 400, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING form, or a SHA-256 in hex."
    )


def _signed_headers(request: Request, text: str) -> Sequence[str]:
    """The names in order, checked: unique, `host` among them, no `x-amz-*` header of the request left out."""
    names, in_order = _names(text)
    present = request.header_map
    if not names <= present.keys():
        raise _mismatch(f"The header {min(names - present.keys())!r} is signed but was not sent.")
    loose = [key for key in present if key not in names and key.startswith("x-amz-")]
    if loose:
        raise S3Error(
            "AccessDenied", 403, f"There were headers present in the request which were not signed: {min(loose)}"
        )
    return in_order


@lru_cache(256)
def _names(text: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Of SignedHeaders, also in order; clients send the same few lists again and again."""
    names = text.split(";")
    if any(not _TOKEN.fullmatch(name) for name in names) or len(set(names)) != len(names):
        raise _malformed("SignedHeaders must be lower-case names, each once")
    if "host" not in names:
        raise _malformed("the header host must be signed")
    return frozenset(names), tuple(sorted(names))


def secret_of(lookup: Lookup, access_key: str) -> str:
    secret = lookup(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", 403, "The access key does not exist in our records.")
    return secret


# By query.


def _by_query(request: Request, lookup: Lookup, now: float, region: str) -> Identity:
    def bad(detail: str) -> S3Error:
        return S3Error("AuthorizationQueryParametersError", 400, f"The query's authorization is wrong; {detail}.")

    values: dict[str, str] = {}
    for name in _QUERY_NAMES:
        value = request.parameter(name)
        if value is None:
            raise bad(f"{name} is missing")
        values[name] = value
    exact = {*_QUERY_NAMES, "X-Amz-Content-Sha256"}
    for name, _, _ in request.query:
        if name.lower() in _QUERY_LOWER and name not in exact:
            raise bad("a parameter is spelled in another case")
    if values["X-Amz-Algorithm"] != ALGORITHM:
        raise bad(f"X-Amz-Algorithm must be {ALGORITHM}")
    date = values["X-Amz-Date"]
    if not _valid_date(date):
        raise bad("X-Amz-Date must be in the form YYYYMMDDTHHMMSSZ")
    access_key, scope = _credential(values["X-Amz-Credential"], date, region, bad)
    expires = values["X-Amz-Expires"]
    if not (_DIGITS.fullmatch(expires.removeprefix("-")) and expires.isascii()):
        raise bad(f"X-Amz-Expires must be a number from 1 to {MAX_EXPIRES}")
    if not 1 <= int(expires) <= MAX_EXPIRES:
        # A life that never was, or is over the limit: what clients and the public suite take for expired.
        raise S3Error("AccessDenied", 403, f"X-Amz-Expires must be a number from 1 to {MAX_EXPIRES}.")
    begin = _seconds(date)
    if now < begin - MAX_SKEW:
        raise S3Error("AccessDenied", 403, "The request is not valid yet.")
    if now > begin + int(expires):
        raise S3Error("AccessDenied", 403, "The request has expired.")
    signed = _signed_headers(request, values["X-Amz-SignedHeaders"])
    kind, sha256, payload_hash = _presigned_payload(request)
    secret = secret_of(lookup, access_key)
    query = [pair for pair in request.query if pair[0] != "X-Amz-Signature"]
    key = _check(request, secret, date, scope, signed, payload_hash, values["X-Amz-Signature"], query)
    return Identity(access_key, kind, sha256, date, scope, values["X-Amz-Signature"], key, presigned=True)


def _presigned_payload(request: Request) -> tuple[PayloadKind, str, str]:
    """A presigned URL promises nothing about the body unless it says so."""
    declared = request.parameter("X-Amz-Content-Sha256")
    header = request.header("x-amz-content-sha256")
    if declared is not None and header is not None and declared != header:
        raise S3Error("InvalidArgument", 400, "Query and header promise different bodies.")
    promise = declared if declared is not None else header
    if promise is None:
        return PayloadKind.UNSIGNED, "", PayloadKind.UNSIGNED.value
    kind, sha256 = parse_payload(promise)
    if kind.chunked:
        raise S3Error("InvalidArgument", 400, "A presigned URL cannot sign chunks.")
    return kind, sha256, promise


# The signature itself.


def _mismatch(detail: str = "") -> S3Error:
    text = "The request signature we calculated does not match the signature you provided. Check your key and method."
    return S3Error("SignatureDoesNotMatch", 403, detail or text)


def canonical_query(query: Pairs) -> str:
    pairs = sorted((encode(name), encode(value)) for _, name, value in query)
    return "&".join(f"{name}={value}" for name, value in pairs)


def canonical_headers(headers: Mapping[str, Sequence[str]], names: Sequence[str]) -> str:
    """`name:value` lines in order of name; values trimmed, runs of blanks folded, repeated headers joined by comma."""
    return "".join([f"{name}:{_folded(headers[name])}\n" for name in sorted(names)])


def _folded(values: Sequence[str]) -> str:
    return " ".join(values[0].split()) if len(values) == 1 else ",".join(" ".join(value.split()) for value in values)


@lru_cache(256)
def signing_key(secret: str, scope: str) -> bytes:
    """Good for one key, day and region, so it is made once a day for each key."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def string_to_sign(date: str, scope: str, canonical_request: str) -> str:
    digest = hashlib.sha256(canonical_request.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{date}\n{scope}\n{digest}"


def _spellings(raw_path: str) -> Iterable[str]:
    if is_plain_path(raw_path):
        return (raw_path,)
    return dict.fromkeys((encode(decode(raw_path), keep_slash=True), raw_path))


def _check(
    request: Request,
    secret: str,
    date: str,
    scope: str,
    signed: Sequence[str],
    payload_hash: str,
    signature: str,
    query: Pairs,
) -> bytes:
    """The signing key, if the signature holds. Raises S3Error(SignatureDoesNotMatch).

    Clients sign the path either as AWS encodes it or exactly as they send it; both name the same bytes.
    """
    key = signing_key(secret, scope)
    given = signature.encode("utf-8", "surrogateescape")
    names = ";".join(signed)
    text = canonical_query(query) if query else ""
    headers = canonical_headers(request.header_map, signed)
    good = False
    for path in _spellings(request.raw_path):
        canonical = f"{request.method}\n{path}\n{text}\n{headers}\n{names}\n{payload_hash}"
        expected = hmac.digest(key, string_to_sign(date, scope, canonical).encode(), "sha256").hex()
        good |= hmac.compare_digest(expected.encode(), given)
    if not good:
        raise _mismatch()
    return key
