"""Which operation a request asks for, exactly. Pure.

A sub-resource or a header that asks for something tonfs does not do is refused; it never falls through to the plain
operation on the bucket or object below (that would, for instance, answer `?acl` with the object's bytes). S3 grows: a
word without a value is how it names a sub-resource, so one that is not known here is refused where it could destroy
something. Other unknown words are ignored, as S3 does (`?x-id=PutObject`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from ..errors import S3Error
from .door import OWNER_ID
from .keys import Rights
from .sigv4 import Request
from .uri import decode


class Operation(Enum):
    """Value: (name in S3, rights it needs)."""

    label: str
    rights: Rights

    def __init__(self, label: str, rights: Rights) -> None:
        # Plain attributes: `value` of an enum is a call, and these are asked for with every request.
        self.label = label
        self.rights = rights

    __hash__ = object.__hash__
    """There is one of each."""

    LIST_BUCKETS = ("ListBuckets", Rights.READ)
    CREATE_BUCKET = ("CreateBucket", Rights.ADMIN)
    DELETE_BUCKET = ("DeleteBucket", Rights.ADMIN)
    HEAD_BUCKET = ("HeadBucket", Rights.READ)
    GET_LOCATION = ("GetBucketLocation", Rights.READ)
    GET_VERSIONING = ("GetBucketVersioning", Rights.READ)
    GET_BUCKET_ACL = ("GetBucketAcl", Rights.READ)
    PUT_BUCKET_ACL = ("PutBucketAcl", Rights.ADMIN)
    GET_BUCKET_TAGGING = ("GetBucketTagging", Rights.READ)
    PUT_BUCKET_TAGGING = ("PutBucketTagging", Rights.ADMIN)
    DELETE_BUCKET_TAGGING = ("DeleteBucketTagging", Rights.ADMIN)
    GET_UNSET = ("GetBucketConfiguration", Rights.READ)
    LIST_V1 = ("ListObjects", Rights.READ)
    LIST_V2 = ("ListObjectsV2", Rights.READ)
    LIST_VERSIONS = ("ListObjectVersions", Rights.READ)
    LIST_UPLOADS = ("ListMultipartUploads", Rights.WRITE)
    DELETE_OBJECTS = ("DeleteObjects", Rights.WRITE)
    PUT_OBJECT = ("PutObject", Rights.WRITE)
    COPY_OBJECT = ("CopyObject", Rights.WRITE)
    GET_OBJECT = ("GetObject", Rights.READ)
    HEAD_OBJECT = ("HeadObject", Rights.READ)
    DELETE_OBJECT = ("DeleteObject", Rights.WRITE)
    GET_ATTRIBUTES = ("GetObjectAttributes", Rights.READ)
    GET_OBJECT_ACL = ("GetObjectAcl", Rights.READ)
    PUT_OBJECT_ACL = ("PutObjectAcl", Rights.WRITE)
    GET_TAGGING = ("GetObjectTagging", Rights.READ)
    PUT_TAGGING = ("PutObjectTagging", Rights.WRITE)
    DELETE_TAGGING = ("DeleteObjectTagging", Rights.WRITE)
    CREATE_UPLOAD = ("CreateMultipartUpload", Rights.WRITE)
    UPLOAD_PART = ("UploadPart", Rights.WRITE)
    UPLOAD_PART_COPY = ("UploadPartCopy", Rights.WRITE)
    COMPLETE_UPLOAD = ("CompleteMultipartUpload", Rights.WRITE)
    ABORT_UPLOAD = ("AbortMultipartUpload", Rights.WRITE)
    LIST_PARTS = ("ListParts", Rights.WRITE)


PUBLIC: Final = frozenset(
    {
        Operation.HEAD_BUCKET,
        Operation.LIST_V1,
        Operation.LIST_V2,
        Operation.LIST_VERSIONS,
        Operation.GET_OBJECT,
        Operation.HEAD_OBJECT,
    }
)
"""What a public bucket is open for: as with S3's `public-read`, neither tags nor ACLs nor configurations."""


class Target(NamedTuple):
    operation: Operation
    bucket: bytes
    key: bytes


SUB_RESOURCES: Final = frozenset(
    [
        "abac",
        "accelerate",
        "acl",
        "analytics",
        "annotation",
        "annotation-prefix",
        "annotationName",
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
        "max-annotation-results",
        "max-directory-buckets",
        "metadataAnnotationTable",
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

PARAMETERS: Final = frozenset(
    [
        "continuation-token",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "id",
        "key-marker",
        "marker",
        "max-keys",
        "max-parts",
        "max-uploads",
        "part-number-marker",
        "prefix",
        "start-after",
        "upload-id-marker",
        "version-id-marker",
        "x-id",
    ]
)
"""Query words that say how, not what: they may be empty."""

OVERRIDES: Final[Mapping[str, str]] = {
    "response-content-type": "Content-Type",
    "response-content-language": "Content-Language",
    "response-expires": "Expires",
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
}
"""Words on a GET or HEAD that replace headers of the answer."""

UNSET: Final[Mapping[str, tuple[str, str]]] = {
    "cors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist."),
    "encryption": (
        "ServerSideEncryptionConfigurationNotFoundError",
        "The server side encryption configuration was not found.",
    ),
    "lifecycle": ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist."),
    "object-lock": (
        "ObjectLockConfigurationNotFoundError",
        "Object Lock configuration does not exist for this bucket.",
    ),
    "ownershipControls": ("OwnershipControlsNotFoundError", "The bucket ownership controls were not found."),
    "policy": ("NoSuchBucketPolicy", "The bucket policy does not exist."),
    "publicAccessBlock": (
        "NoSuchPublicAccessBlockConfiguration",
        "The public access block configuration was not found.",
    ),
    "replication": ("ReplicationConfigurationNotFoundError", "The replication configuration was not found."),
    "website": ("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration."),
}
"""Configurations that a bucket never has here: asking for one is answered as S3 does for a bucket without it."""

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
    "x-amz-storage-class": frozenset({"STANDARD"}),
    "x-amz-bucket-object-lock-enabled": frozenset({"false", "False"}),
    "x-amz-object-ownership": frozenset({"BucketOwnerEnforced"}),
}
"""Headers of which exactly these values mean what tonfs does anyway."""

_COPY: Final = frozenset(
    [
        "x-amz-copy-source",
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-modified-since",
        "x-amz-copy-source-if-unmodified-since",
    ]
)
_KEPT: Final = frozenset(["x-amz-acl", "x-amz-tagging"])
_SUMS: Final = frozenset(["x-amz-checksum-algorithm"])
_DELETE: Final = frozenset(
    ["x-amz-bypass-governance-retention", "x-amz-if-match-last-modified-time", "x-amz-if-match-size"]
)
_OBEYED: Final[Mapping[Operation, frozenset[str]]] = {
    Operation.CREATE_BUCKET: frozenset(["x-amz-acl"]),
    Operation.PUT_BUCKET_ACL: frozenset(["x-amz-acl"]),
    Operation.PUT_OBJECT_ACL: frozenset(["x-amz-acl"]),
    Operation.PUT_OBJECT: _KEPT | {"x-amz-checksum-type"} | _SUMS,
    Operation.COPY_OBJECT: _COPY | _KEPT | _SUMS | {"x-amz-metadata-directive", "x-amz-tagging-directive"},
    Operation.CREATE_UPLOAD: _KEPT | _SUMS | {"x-amz-checksum-type"},
    Operation.UPLOAD_PART: _SUMS,
    Operation.UPLOAD_PART_COPY: _COPY | {"x-amz-copy-source-range"},
    Operation.COMPLETE_UPLOAD: frozenset(["x-amz-checksum-type", "x-amz-mp-object-size"]),
    Operation.DELETE_OBJECT: _DELETE,
    Operation.DELETE_OBJECTS: _DELETE,
    Operation.GET_ATTRIBUTES: frozenset(["x-amz-object-attributes", "x-amz-max-parts", "x-amz-part-number-marker"]),
}
"""`x-amz-*` headers that the handler of an operation obeys or refuses itself."""

Words = frozenset[str]
"""Words of the query that ask for something else."""

_NO_WORDS: Final[Words] = frozenset()
_SERVICE_WORDS: Final = frozenset(["max-buckets", "bucket-region"])
_BUCKET_GET: Final[Mapping[str, Operation]] = {
    "location": Operation.GET_LOCATION,
    "versioning": Operation.GET_VERSIONING,
    "acl": Operation.GET_BUCKET_ACL,
    "tagging": Operation.GET_BUCKET_TAGGING,
    "versions": Operation.LIST_VERSIONS,
    "uploads": Operation.LIST_UPLOADS,
}
_BUCKET_SUB: Final[Mapping[tuple[str, str], Operation]] = {
    **{("GET", word): operation for word, operation in _BUCKET_GET.items()},
    **{("GET", word): Operation.GET_UNSET for word in UNSET},
    ("POST", "delete"): Operation.DELETE_OBJECTS,
    ("PUT", "acl"): Operation.PUT_BUCKET_ACL,
    ("PUT", "tagging"): Operation.PUT_BUCKET_TAGGING,
    ("DELETE", "tagging"): Operation.DELETE_BUCKET_TAGGING,
}
_BUCKET: Final[Mapping[str, Operation]] = {
    "GET": Operation.LIST_V1,
    "HEAD": Operation.HEAD_BUCKET,
    "PUT": Operation.CREATE_BUCKET,
    "DELETE": Operation.DELETE_BUCKET,
}
_OBJECT: Final[Mapping[str, Operation]] = {
    "GET": Operation.GET_OBJECT,
    "HEAD": Operation.HEAD_OBJECT,
    "PUT": Operation.PUT_OBJECT,
    "DELETE": Operation.DELETE_OBJECT,
}
_READS: Final = frozenset({Operation.GET_OBJECT, Operation.HEAD_OBJECT})
_COPIES: Final[Mapping[Operation, Operation]] = {
    Operation.PUT_OBJECT: Operation.COPY_OBJECT,
    Operation.UPLOAD_PART: Operation.UPLOAD_PART_COPY,
}
_OBJECT_SUB: Final[Mapping[tuple[str, Words], Operation]] = {
    ("GET", frozenset({"partNumber"})): Operation.GET_OBJECT,
    ("HEAD", frozenset({"partNumber"})): Operation.HEAD_OBJECT,
    ("GET", frozenset({"attributes"})): Operation.GET_ATTRIBUTES,
    ("GET", frozenset({"acl"})): Operation.GET_OBJECT_ACL,
    ("PUT", frozenset({"acl"})): Operation.PUT_OBJECT_ACL,
    ("GET", frozenset({"tagging"})): Operation.GET_TAGGING,
    ("PUT", frozenset({"tagging"})): Operation.PUT_TAGGING,
    ("DELETE", frozenset({"tagging"})): Operation.DELETE_TAGGING,
    ("POST", frozenset({"uploads"})): Operation.CREATE_UPLOAD,
    ("PUT", frozenset({"uploadId", "partNumber"})): Operation.UPLOAD_PART,
    ("POST", frozenset({"uploadId"})): Operation.COMPLETE_UPLOAD,
    ("DELETE", frozenset({"uploadId"})): Operation.ABORT_UPLOAD,
    ("GET", frozenset({"uploadId"})): Operation.LIST_PARTS,
}


def split_path(raw_path: str) -> tuple[bytes, bytes]:
    """(bucket, key), decoded. `/` alone is the service. Raises S3Error(InvalidURI)."""
    bucket, _, key = raw_path[1:].partition("/")
    return decode(bucket), decode(key)


def check_method(request: Request) -> None:
    """A browser asks before it has credentials whether it may: never, there is no CORS here. Raises S3Error."""
    if request.method == "OPTIONS":
        if request.header("origin") is None:
            raise S3Error("BadRequest", 400, "Insufficient information. Origin request header needed.")
        raise S3Error("AccessForbidden", 403, "CORSResponse: CORS is not enabled for this bucket.")


def route(request: Request) -> Target:
    """Raises S3Error: NotImplemented, MethodNotAllowed, InvalidArgument, InvalidURI."""
    bucket, key = split_path(request.raw_path)
    words = _sub_resources(request) if request.query else _NO_WORDS
    if b"/" in bucket or (not bucket and key):
        raise S3Error("InvalidBucketName", 400, "The specified bucket is not valid.")
    if not bucket:
        operation = _service(request, words)
    elif not key:
        operation = _bucket(request, words)
    else:
        operation = _object(request, words)
    return Target(operation, bucket, key)


def _sub_resources(request: Request) -> Words:
    writing = request.method not in ("GET", "HEAD")
    return frozenset(
        name
        for name, _, value in request.query
        if name in SUB_RESOURCES or (writing and not value and not _says_how(name))
    )


def _says_how(name: str) -> bool:
    return name in PARAMETERS or name in OVERRIDES or name.lower().startswith("x-amz-")


def not_implemented(what: str) -> S3Error:
    return S3Error("NotImplemented", 501, f"A header or parameter implies functionality that is not there: {what}.")


def _not_allowed() -> S3Error:
    return S3Error("MethodNotAllowed", 405, "The specified method is not allowed against this resource.")


def _plain(words: Words) -> None:
    if words:
        raise not_implemented(sorted(words)[0][:80])


def _service(request: Request, words: Words) -> Operation:
    if request.method != "GET":
        raise _not_allowed()
    _plain(words - _SERVICE_WORDS)
    return Operation.LIST_BUCKETS


def _bucket(request: Request, words: Words) -> Operation:
    method = request.method
    if method == "GET" and words == {"list-type"}:
        if request.parameter("list-type") != "2":
            raise S3Error("InvalidArgument", 400, "list-type must be 2.")
        return Operation.LIST_V2
    if len(words) == 1:
        found = _BUCKET_SUB.get((method, next(iter(words))))
        if found is not None:
            return found
    if method == "POST" and not words:
        raise not_implemented("POST to a bucket")
    _plain(words)
    if method not in _BUCKET:
        raise _not_allowed()
    return _BUCKET[method]


def _object(request: Request, words: Words) -> Operation:
    if words:
        words = _unversioned(request, words)
    found = _OBJECT_SUB.get((request.method, words)) if words else _OBJECT.get(request.method)
    if found is None:
        raise not_implemented(min(words)[:80]) if words else _not_allowed()
    if found in _COPIES and request.header("x-amz-copy-source") is not None:
        found = _COPIES[found]
    if request.query and found not in _READS:
        overrides = [name for name, _, _ in request.query if name in OVERRIDES]
        if overrides:
            raise not_implemented(overrides[0])
    return found


def _unversioned(request: Request, words: Words) -> Words:
    """There is one version of each object, `null`, on the operations that may name one."""
    if "versionId" not in words or (request.method in ("PUT", "POST") and "tagging" not in words):
        return words
    version = request.parameter("versionId")
    if version not in ("null", ""):
        raise S3Error("InvalidArgument", 400, "Invalid version id specified: each object has the one version 'null'.")
    return words - {"versionId"}


_ALWAYS: Final = frozenset({"x-amz-content-sha256", "x-amz-date"})


def check_headers(request: Request, operation: Operation) -> None:
    """Refuse what would change the meaning of the request and is not done here. Raises S3Error."""
    obeyed = _OBEYED.get(operation, _NO_WORDS)
    for name, value in request.headers:
        if not name.startswith("x-amz-") or name in _ALWAYS:
            continue
        if name == "x-amz-expected-bucket-owner" or name == "x-amz-source-expected-bucket-owner":
            if value != OWNER_ID:
                raise S3Error("AccessDenied", 403, "The bucket does not belong to the expected owner.")
        elif name in _ONLY:
            if value not in _ONLY[name]:
                raise not_implemented(f"{name}: {value[:60]}")
        elif name in obeyed:
            continue
        elif name in ("x-amz-checksum-algorithm", "x-amz-checksum-type"):
            raise not_implemented(name)
        elif name.startswith("x-amz-") and not (
            name in _HARMLESS or name.startswith(("x-amz-meta-", "x-amz-checksum-"))
        ):
            raise not_implemented(name[:80])
