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
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import S3Error
from ..ids import Secret
from .keys import AccessKey
from .uri import Pairs, decode, encode, is_plain_path

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

ALGORITHM: Final = "AWS4-HMAC-SHA256"
MAX_SKEW: Final = 15 * 60
MAX_EXPIRES: Final = 7 * 24 * 3600
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()

_HEX64: Final = re.compile(r"[0-9a-f]{64}")
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")
_DIGITS: Final = re.compile(r"\d{1,18}")
_USUAL: Final = re.compile(ALGORITHM + r" Credential=([^,=\s]+), ?SignedHeaders=([^,=\s]+), ?Signature=", re.ASCII)
"""The header as nearly everybody writes it, before the signature."""
_HEX: Final = 64
"""Characters of a signature."""
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


_ONCE: Final[Mapping[str, Sequence[str]]] = {}


@dataclass(slots=True)
class Request:
    """A request as it came: header names in lower case, in their order; path and query not decoded. Not to be
    changed."""

    method: str
    raw_path: str
    query: Pairs
    headers: Sequence[tuple[str, str]]
    has_body: bool = False

    values: dict[str, str] = field(init=False, repr=False, compare=False)
    """Name -> value, the last one when it came more than once."""
    repeated: Mapping[str, Sequence[str]] = field(init=False, repr=False, compare=False)
    """Name -> all values, of headers that came more than once."""

    def __post_init__(self) -> None:
        self.values = dict(self.headers)
        self.repeated = _ONCE if len(self.values) == len(self.headers) else _repeated(self.headers)

    def header(self, name: str) -> str | None:
        """The header's value; None when absent. Raises S3Error when it comes twice."""
        if name in self.repeated:
            raise S3Error("InvalidRequest", 400, f"The header {name} was sent more than once.")
        return self.values.get(name)

    def parameter(self, name: str) -> str | None:
        if not self.query:
            return None
        values = [value for key, _, value in self.query if key == name]
        if len(values) > 1:
            raise S3Error("InvalidArgument", 400, f"The parameter {name} was sent more than once.")
        return values[0].decode("utf-8", "surrogateescape") if values else None


def _repeated(headers: Sequence[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return {name: values for name, values in found.items() if len(values) > 1}


class Identity(NamedTuple):
    """Who asks, and how the body is protected. `signing_key`, `date`, `scope`, `signature` seed chunk signatures."""

    access: AccessKey
    payload: PayloadKind
    sha256: str
    """Hex digest that the body must have; only for EXACT."""
    date: str
    scope: str
    signature: str
    signing_key: bytes
    presigned: bool


Lookup = Callable[[str], AccessKey | None]
"""By its name."""


def authenticate(request: Request, lookup: Lookup, *, now: float, region: str) -> Identity:
    """Raises S3Error: AccessDenied, InvalidAccessKeyId, SignatureDoesNotMatch, RequestTimeTooSkewed, ..."""
    authorization = request.header("authorization")
    presigned = is_presigned(request)
    if authorization is not None and presigned:
        raise S3Error("InvalidArgument", 400, "Only one auth mechanism allowed; both header and query were given.")
    if "x-amz-security-token" in request.values or _has(request, "X-Amz-Security-Token"):
        raise S3Error("InvalidToken", 400, "There are no temporary credentials here: send no security token.")
    if authorization is not None:
        return _by_header(request, authorization, lookup, now, region)
    if presigned:
        return _by_query(request, lookup, now, region)
    raise anonymous()


def anonymous() -> S3Error:
    return S3Error("AccessDenied", 403, "Anonymous access is not allowed.")


def _has(request: Request, name: str) -> bool:
    return bool(request.query) and any(key == name for key, _, _ in request.query)


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


class _Claim(NamedTuple):
    """What an Authorization header says, but for its signature."""

    access_key: str
    day: str
    scope: str
    names: str
    """SignedHeaders."""


def _by_header(request: Request, authorization: str, lookup: Lookup, now: float, region: str) -> Identity:
    claim, signature = _usual(authorization[:-_HEX], region), authorization[-_HEX:]
    if claim is None:
        credential, names, signature = _authorization(authorization)
        claim = _claim(credential, names, region)
    date, seconds = _request_date(request)
    if claim.day != date[:8]:
        raise _malformed(_OTHER_DAY)
    if abs(now - seconds) > MAX_SKEW:
        raise S3Error(
            "RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."
        )
    kind, sha256 = _declared_payload(request)
    access = known(lookup, claim.access_key)
    payload_hash = sha256 if kind is _EXACT else kind.value
    key = _check(request, access, date, claim.scope, claim.names, payload_hash, signature, request.query)
    return Identity(access, kind, sha256, date, claim.scope, signature, key, False)


@lru_cache(256)
def _usual(text: str, region: str) -> _Claim | None:
    """Of the header without its last 64 characters, when it is written as nearly everybody does: a client sends the
    same all day. Raises S3Error."""
    usual = _USUAL.fullmatch(text)
    return None if usual is None else _claim(usual[1], usual[2], region)


def _claim(credential: str, names: str, region: str) -> _Claim:
    access_key, day, scope = _credential(credential, region)
    return _Claim(access_key, day, scope, names)


def _authorization(text: str) -> tuple[str, str, str]:
    """(credential, signed headers, signature)."""
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


def _malformed(detail: str) -> S3Error:
    return S3Error("AuthorizationHeaderMalformed", 400, f"The authorization header is malformed; {detail}.")


def _request_date(request: Request) -> tuple[str, float]:
    """(basic ISO form, as it stands in the string to sign; UTC seconds)."""
    date = request.header("x-amz-date")
    if date is None:
        http_date = request.header("date")
        if http_date is None:
            raise S3Error("AccessDenied", 403, "AWS authentication requires a valid Date or x-amz-date header.")
        try:
            date = time.strftime("%Y%m%dT%H%M%SZ", parsedate_to_datetime(http_date).utctimetuple())
        except (ValueError, TypeError, OverflowError):
            date = http_date.strip()
    seconds = _parse_date(date)
    if seconds is None:
        raise S3Error("AccessDenied", 403, "AWS authentication requires a valid Date or x-amz-date header.")
    return date, seconds


@lru_cache(1024)
def _parse_date(date: str) -> float | None:
    """Seconds since 1970 of `20130524T000000Z`; None when it is no such date."""
    if not _DATE.fullmatch(date) or not date.isascii():
        return None
    try:
        return timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        return None


_OTHER_DAY: Final = "the credential's date is not the date of the request"


def _credential(text: str, region: str, error: Callable[[str], S3Error] = _malformed) -> tuple[str, str, str]:
    """(access key, day, scope). The key itself may hold slashes, so the scope is counted from the end."""
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise error("the credential must be KEY/YYYYMMDD/REGION/s3/aws4_request")
    access_key, day, place, service, end = parts
    if end != "aws4_request" or service != "s3":
        raise error("the credential's service must be s3 and its end aws4_request")
    if place != region:
        raise error(f"the region {place[:40]!r} is wrong; expecting {region!r}")
    return access_key, day, "/".join(parts[1:])


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


@lru_cache(256)
def _names(text: str) -> tuple[frozenset[str], Sequence[str], str]:
    """Of SignedHeaders, also in order, also as text; clients send the same few lists again and again."""
    names = text.split(";")
    if any(not _TOKEN.fullmatch(name) for name in names) or len(set(names)) != len(names):
        raise _malformed("SignedHeaders must be lower-case names, each once")
    if "host" not in names:
        raise _malformed("the header host must be signed")
    names.sort()
    return frozenset(names), tuple(names), ";".join(names)


def known(lookup: Lookup, access_key: str) -> AccessKey:
    found = lookup(access_key)
    if found is None:
        raise S3Error("InvalidAccessKeyId", 403, "The access key does not exist in our records.")
    return found


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
    begin = _parse_date(date)
    if begin is None:
        raise bad("X-Amz-Date must be in the form YYYYMMDDTHHMMSSZ")
    access_key, day, scope = _credential(values["X-Amz-Credential"], region, bad)
    if day != date[:8]:
        raise bad(_OTHER_DAY)
    expires = values["X-Amz-Expires"]
    if not (_DIGITS.fullmatch(expires.removeprefix("-")) and expires.isascii()):
        raise bad(f"X-Amz-Expires must be a number from 1 to {MAX_EXPIRES}")
    if not 1 <= int(expires) <= MAX_EXPIRES:
        # A life that never was, or is over the limit: what clients and the public suite take for expired.
        raise S3Error("AccessDenied", 403, f"X-Amz-Expires must be a number from 1 to {MAX_EXPIRES}.")
    if now < begin - MAX_SKEW:
        raise S3Error("AccessDenied", 403, "The request is not valid yet.")
    if now > begin + int(expires):
        raise S3Error("AccessDenied", 403, "The request has expired.")
    kind, sha256, payload_hash = _presigned_payload(request)
    access = known(lookup, access_key)
    query = [pair for pair in request.query if pair[0] != "X-Amz-Signature"]
    names, signature = values["X-Amz-SignedHeaders"], values["X-Amz-Signature"]
    key = _check(request, access, date, scope, names, payload_hash, signature, query)
    return Identity(access, kind, sha256, date, scope, signature, key, presigned=True)


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


def canonical_headers(request: Request, signed: str) -> tuple[str, str]:
    """`name:value` lines in order of name, and the names: values trimmed, runs of blanks folded, repeated ones joined
    by comma. Raises S3Error when a signed one is missing, `host` is not signed, or an `x-amz-*` one that was sent is
    not signed."""
    names, in_order, text = _names(signed)
    values = request.values
    if not names <= values.keys():
        raise _mismatch(f"The header {min(names - values.keys())!r} is signed but was not sent.")
    loose = [key for key in values if key not in names and key.startswith("x-amz-")]
    if loose:
        raise S3Error(
            "AccessDenied", 403, f"There were headers present in the request which were not signed: {min(loose)}"
        )
    if request.repeated:
        return "".join([f"{name}:{canonical_value(request, name)}\n" for name in in_order]), text
    return "".join([f"{name}:{_folded(values[name])}\n" for name in in_order]), text


def canonical_value(request: Request, name: str) -> str:
    return ",".join(map(_folded, request.repeated.get(name) or (request.values[name],)))


def _folded(value: str) -> str:
    return " ".join(value.split()) if "  " in value or "\t" in value else value.strip()


@lru_cache(256)
def signing_key(secret: Secret, scope: str) -> bytes:
    """Good for one key, day and region, so it is made once a day for each key."""
    key = b"AWS4" + secret.reveal()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@lru_cache(256)
def _pads(key: bytes) -> tuple[Hash, Hash]:
    """What HMAC (RFC 2104) begins its two hashes with."""
    block = key.ljust(64, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in block)), hashlib.sha256(bytes(byte ^ 0x5C for byte in block))


def sign(key: bytes, text: str) -> str:
    """HMAC-SHA256 in hex. `key`: a signing key, 32 bytes.

    `hmac.digest` is slower than this, and lets other threads run meanwhile: then this one waits for its turn again.
    """
    first, second = _pads(key)
    inner, outer = first.copy(), second.copy()
    inner.update(text.encode())
    outer.update(inner.digest())
    return outer.hexdigest()


def string_to_sign(date: str, scope: str, canonical_request: str) -> str:
    digest = hashlib.sha256(canonical_request.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{date}\n{scope}\n{digest}"


def _spellings(raw_path: str) -> Iterable[str]:
    if is_plain_path(raw_path):
        return (raw_path,)
    return dict.fromkeys((encode(decode(raw_path), keep_slash=True), raw_path))


def _check(
    request: Request,
    access: AccessKey,
    date: str,
    scope: str,
    signed: str,
    payload_hash: str,
    signature: str,
    query: Pairs,
) -> bytes:
    """The signing key, if the signature holds. Raises S3Error(SignatureDoesNotMatch), see also `canonical_headers`.

    Clients sign the path either as AWS encodes it or exactly as they send it; both name the same bytes.
    """
    headers, names = canonical_headers(request, signed)
    key = signing_key(access.secret_key, scope)
    given = signature.encode("utf-8", "surrogateescape")
    text = canonical_query(query) if query else ""
    good = False
    for path in _spellings(request.raw_path):
        canonical = f"{request.method}\n{path}\n{text}\n{headers}\n{names}\n{payload_hash}"
        good |= hmac.compare_digest(sign(key, string_to_sign(date, scope, canonical)).encode(), given)
    if not good:
        raise _mismatch()
    return key
