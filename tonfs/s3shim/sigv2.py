"""URLs signed with AWS Signature Version 2: only GET and HEAD of one object, only until they expire. Pure.

boto3 without `signature_version='s3v4'`, `aws s3 presign` of version 1 and s3cmd still make such URLs. Nothing else of
Version 2 is taken: its headers leave the body and most of the query unsigned. Rules: Amazon's "Signing and
authenticating REST requests", section "Query string request authentication alternative".
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import Final

from ..errors import S3Error
from .sigv4 import MAX_EXPIRES, MAX_SKEW, Identity, Lookup, PayloadKind, Request, canonical_value, known
from .uri import decode, encode

_NAMES: Final = ("AWSAccessKeyId", "Expires", "Signature")
_SIGNED: Final = frozenset(
    [
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
    ]
)
"""Query words that the signature covers and a GET of an object obeys. Any other word is refused: it is not signed."""
_DIGITS: Final = re.compile(r"[0-9]{1,12}")
SETTING: Final = (
    "tonfs takes Signature Version 4 only. For boto3 pass Config(signature_version='s3v4'), for the aws cli run "
    "'aws configure set default.s3.signature_version s3v4', for s3cmd set signature_v2 = False."
)


def is_presigned(request: Request) -> bool:
    return any(key in ("AWSAccessKeyId", "Signature") for key, _, _ in request.query)


def refused() -> S3Error:
    return S3Error("InvalidRequest", 400, f"This request is signed with Signature Version 2. {SETTING}")


def by_query(request: Request, lookup: Lookup, now: float) -> Identity:
    """Who made this URL. Raises S3Error: InvalidRequest for what Version 2 does not do here, AccessDenied,
    InvalidAccessKeyId, SignatureDoesNotMatch."""
    bucket, _, key = request.raw_path[1:].partition("/")
    if request.method not in ("GET", "HEAD") or not bucket or not key:
        raise refused()
    values: dict[str, str] = {}
    for name in _NAMES:
        value = request.parameter(name)
        if value is None:
            raise S3Error("AccessDenied", 403, "Query-string authentication needs Signature, Expires, AWSAccessKeyId.")
        values[name] = value
    expires = values["Expires"]
    if not _DIGITS.fullmatch(expires):
        raise S3Error("AccessDenied", 403, "Expires must be seconds since 1970.")
    if now >= int(expires):
        raise S3Error("AccessDenied", 403, "The request has expired.")
    if int(expires) > now + MAX_EXPIRES + MAX_SKEW:
        raise S3Error("AccessDenied", 403, "The URL is valid for more than a week, which is not accepted.")
    words = sorted((name, value) for name, _, value in request.query if name not in _NAMES)
    if any(name not in _SIGNED for name, _ in words) or len({name for name, _ in words}) != len(words):
        raise refused()
    access = known(lookup, values["AWSAccessKeyId"])
    if not _matches(request, words, expires, access.secret_key.reveal(), values["Signature"]):
        raise S3Error("SignatureDoesNotMatch", 403, "The signature of this URL is not the one that we calculated.")
    return Identity(access, PayloadKind.UNSIGNED, "", "", "", "", b"", presigned=True)


def _matches(request: Request, words: list[tuple[str, bytes]], expires: str, secret: bytes, signature: str) -> bool:
    amz = "".join(
        f"{name}:{canonical_value(request, name)}\n" for name in sorted(request.values) if name.startswith("x-amz-")
    )
    start = (request.method, request.header("content-md5") or "", request.header("content-type") or "", expires)
    tail = "&".join(f"{name}={value.decode('utf-8', 'surrogateescape')}" for name, value in words)
    given = signature.encode("utf-8", "surrogateescape")
    good = False
    # Clients sign the path as they send it, or as AWS encodes it.
    for path in (request.raw_path, encode(decode(request.raw_path), keep_slash=True)):
        text = "\n".join(start) + f"\n{amz}{path}" + (f"?{tail}" if tail else "")
        digest = hmac.digest(secret, text.encode("utf-8", "surrogateescape"), "sha1")
        good |= hmac.compare_digest(base64.b64encode(digest), given)
    return good
