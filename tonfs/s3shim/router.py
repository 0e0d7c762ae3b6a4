"""Which operation a request asks for, exactly. Pure.

A sub-resource or a header that asks for something tonfs does not do is refused; it never falls through to the plain
operation on the bucket or object below (that would, for instance, answer `?acl` with the object's bytes). Query words
that S3 does not know are ignored, as S3 does (`?x-id=PutObject`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..errors import S3Error
from .door import OWNER_ID
from .keys import Rights
from .sigv4 import Request
from .uri import decode


class Operation(Enum):
    """Value: (name in S3, rights it needs)."""

    LIST_BUCKETS = ("ListBuckets", Rights.READ)
    CREATE_BUCKET = ("CreateBucket", Rights.ADMIN)
    DELETE_BUCKET = ("DeleteBucket", Rights.ADMIN)
    HEAD_BUCKET = ("HeadBucket", Rights.READ)
    GET_LOCATION = ("GetBucketLocation", Rights.READ)
    LIST_V1 = ("ListObjects", Rights.READ)
    LIST_V2 = ("ListObjectsV2", Rights.READ)
    DELETE_OBJECTS = ("DeleteObjects", Rights.WRITE)
    PUT_OBJECT = ("PutObject", Rights.WRITE)
    GET_OBJECT = ("GetObject", Rights.READ)
    HEAD_OBJECT = ("HeadObject", Rights.READ)
    DELETE_OBJECT = ("DeleteObject", Rights.WRITE)

    @property
    def label(self) -> str:
        return self.value[0]

    @property
    def rights(self) -> Rights:
        return self.value[1]


@dataclass(frozen=True)
class Target:
    operation: Operation
    bucket: bytes
    key: bytes


SUB_RESOURCES: Final = frozenset(
    [
        "abac",
        "accelerate",
        "acl",
        "analytics",
        "attributes",
        "cors",
        "delete",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "list-type",
        "location",
        "logging",
        "metadataConfiguration",
        "metadataInventoryTable",
        "metadataJournalTable",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "partNumber",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "renameObject",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "select-type",
        "session",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
        "max-buckets",
        "bucket-region",
        "append",
        "position",
    ]
)
"""Query words that make a request mean something else."""

OVERRIDES: Final[Mapping[str, str]] = {
    "response-content-type": "Content-Type",
    "response-content-language": "Content-Language",
    "response-expires": "Expires",
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
}
"""Words on a GET or HEAD that replace headers of the answer."""

_HARMLESS: Final = frozenset(
    [
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-trailer",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-checksum-mode",
        "x-amz-user-agent",
        "x-amz-request-payer",
        "x-amz-optional-object-attributes",
    ]
)
"""`x-amz-*` headers that are obeyed elsewhere, or may be ignored without doing anything wrong."""

_ONLY: Final[Mapping[str, frozenset[str]]] = {
    "x-amz-acl": frozenset({"private"}),
    "x-amz-storage-class": frozenset({"STANDARD"}),
    "x-amz-bucket-object-lock-enabled": frozenset({"false"}),
    "x-amz-object-ownership": frozenset({"BucketOwnerEnforced"}),
    "x-amz-checksum-type": frozenset({"FULL_OBJECT"}),
    "x-amz-metadata-directive": frozenset({"COPY"}),
}
"""Headers of which exactly these values mean what tonfs does anyway."""


def split_path(raw_path: str) -> tuple[bytes, bytes]:
    """(bucket, key), decoded. `/` alone is the service. Raises S3Error(InvalidURI)."""
    bucket, _, key = raw_path[1:].partition("/")
    return decode(bucket), decode(key)


def route(request: Request) -> Target:
    """Raises S3Error: NotImplemented, MethodNotAllowed, InvalidArgument, InvalidURI."""
    bucket, key = split_path(request.raw_path)
    words = {name for name, _, _ in request.query} & SUB_RESOURCES
    if b"/" in bucket or (not bucket and key):
        raise S3Error("InvalidBucketName", 400, "The specified bucket is not valid.")
    if not bucket:
        operation = _service(request, words)
    elif not key:
        operation = _bucket(request, words)
    else:
        operation = _object(request, words)
    return Target(operation, bucket, key)


def not_implemented(what: str) -> S3Error:
    return S3Error("NotImplemented", 501, f"A header or parameter implies functionality that is not there: {what}.")


def _not_allowed() -> S3Error:
    return S3Error("MethodNotAllowed", 405, "The specified method is not allowed against this resource.")


def _plain(words: set[str]) -> None:
    if words:
        raise not_implemented(sorted(words)[0])


def _service(request: Request, words: set[str]) -> Operation:
    if request.method != "GET":
        raise _not_allowed()
    _plain(words | {name for name, _, _ in request.query if name in ("prefix", "continuation-token")})
    return Operation.LIST_BUCKETS


def _bucket(request: Request, words: set[str]) -> Operation:
    method = request.method
    if method == "GET" and words == {"location"}:
        return Operation.GET_LOCATION
    if method == "GET" and words == {"list-type"}:
        if request.parameter("list-type") != "2":
            raise S3Error("InvalidArgument", 400, "list-type must be 2.")
        return Operation.LIST_V2
    if method == "POST" and words == {"delete"}:
        return Operation.DELETE_OBJECTS
    if method == "POST" and not words:
        raise not_implemented("POST to a bucket")
    _plain(words)
    plain = {
        "GET": Operation.LIST_V1,
        "HEAD": Operation.HEAD_BUCKET,
        "PUT": Operation.CREATE_BUCKET,
        "DELETE": Operation.DELETE_BUCKET,
    }
    if method not in plain:
        raise _not_allowed()
    return plain[method]


def _object(request: Request, words: set[str]) -> Operation:
    _plain(words)
    plain = {
        "GET": Operation.GET_OBJECT,
        "HEAD": Operation.HEAD_OBJECT,
        "PUT": Operation.PUT_OBJECT,
        "DELETE": Operation.DELETE_OBJECT,
    }
    if request.method not in plain:
        raise _not_allowed()
    operation = plain[request.method]
    reading = operation in (Operation.GET_OBJECT, Operation.HEAD_OBJECT)
    overrides = [name for name, _, _ in request.query if name in OVERRIDES]
    if overrides and not reading:
        raise not_implemented(overrides[0])
    return operation


def check_headers(request: Request) -> None:
    """Refuse what would change the meaning of the request and is not done here. Raises S3Error."""
    for name, value in request.headers:
        if name == "x-amz-expected-bucket-owner":
            if value != OWNER_ID:
                raise S3Error("AccessDenied", 403, "The bucket does not belong to the expected owner.")
        elif name in _ONLY:
            if value not in _ONLY[name]:
                raise not_implemented(f"{name}: {value[:60]}")
        elif name.startswith("x-amz-") and not (
            name in _HARMLESS or name.startswith(("x-amz-meta-", "x-amz-checksum-"))
        ):
            raise not_implemented(name[:80])
