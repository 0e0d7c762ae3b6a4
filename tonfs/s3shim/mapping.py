"""Bucket names and keys as places in the namespace (reference s3.md, Mapping).

Buckets are top-level directories, a key is a path below one. Keys that cannot be file names are refused with a stable
error on every verb, never normalised. `dir/` names the marker object of a directory.
"""

from __future__ import annotations

import errno
import hashlib
import mimetypes
import re
from typing import Final, NamedTuple

from ..errors import FsError, S3Error
from ..volume.api import NAME_MAX, ROOT, Attr, Namespace, S3Record

MAX_KEY: Final = 1024
EMPTY_MD5: Final = hashlib.md5(b"", usedforsecurity=False).hexdigest()
DEFAULT_TYPE: Final = "binary/octet-stream"
"""What S3 stores when a PUT names no content type."""

_NEW_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ANY_BUCKET: Final = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9._-]{2,62}")
_IPV4: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")
_TYPES: Final = mimetypes.MimeTypes(filenames=())


class Key(NamedTuple):
    """`text`: the whole key; `parts`: names of the path; `marker`: it ended in a slash."""

    text: bytes
    parts: tuple[bytes, ...]
    marker: bool


def parse_key(raw: bytes) -> Key:
    """Raises S3Error: KeyTooLongError, InvalidArgument."""
    if len(raw) > MAX_KEY:
        raise S3Error("KeyTooLongError", 400, "Your key is too long.")
    marker = raw.endswith(b"/")
    parts = tuple((raw[:-1] if marker else raw).split(b"/"))
    for part in parts:
        if len(part) > NAME_MAX:
            raise S3Error("KeyTooLongError", 400, "A part of your key is too long: 255 bytes between slashes.")
        if part in (b"", b".", b".."):
            raise S3Error("InvalidArgument", 400, "Keys with an empty part, '.' or '..' cannot be files.")
    if not visible(raw):
        raise S3Error("InvalidArgument", 400, "A key must be UTF-8 without NUL.")
    return Key(raw, parts, marker)


def visible(name: bytes) -> bool:
    """Can this name be (part of) a key?"""
    if name.isascii():
        return b"\0" not in name
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in name


def bucket_visible(name: bytes) -> bool:
    """Is a top-level directory of this name shown as a bucket?"""
    return _ANY_BUCKET.fullmatch(name) is not None


def check_new_bucket(name: bytes) -> None:
    """S3's rules for names. Raises S3Error(InvalidBucketName)."""
    text = name.decode("latin-1")
    good = (
        _NEW_BUCKET.fullmatch(text)
        and not any(pair in text for pair in ("..", ".-", "-."))
        and not _IPV4.fullmatch(text)
        and not text.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
        and not text.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
    )
    if not good:
        raise S3Error("InvalidBucketName", 400, "The specified bucket is not valid.")


def no_bucket() -> S3Error:
    return S3Error("NoSuchBucket", 404, "The specified bucket does not exist.")


def no_key() -> S3Error:
    return S3Error("NoSuchKey", 404, "The specified key does not exist.")


def find_bucket(namespace: Namespace, name: bytes) -> Attr:
    """Raises S3Error(NoSuchBucket)."""
    if not bucket_visible(name):
        raise no_bucket()
    try:
        attr = namespace.lookup(ROOT, name)
    except FsError as exc:
        if exc.errno == errno.ENOENT:
            raise no_bucket() from exc
        raise
    if not attr.is_dir:
        raise no_bucket()
    return attr


def check_place(namespace: Namespace, bucket: Attr, key: Key) -> None:
    """Could an object be stored under this key? Raises S3Error 409 when a file of the mount, a link or a special file
    is in the way: found out before the body is read."""
    inode = bucket.inode
    for index, part in enumerate(key.parts):
        last = index == len(key.parts) - 1
        try:
            attr = namespace.lookup(inode, part)
        except FsError as exc:
            if exc.errno == errno.ENOENT:
                return
            raise conflict(exc, key) from exc
        if not attr.is_dir:
            plain = last and not key.marker
            if not attr.is_file or (not plain and namespace.record(attr.inode) is None):
                raise parent_is_file(b"/".join(key.parts[: index + 1]))
            return
        inode = attr.inode


def parent_is_file(path: bytes = b"") -> S3Error:
    where = f"{path.decode('utf-8', 'replace')!r} is" if path else "A part of the key's path is"
    return S3Error("ObjectParentIsFile", 409, f"{where} a file of the mount, a link or a special file.")


def conflict(exc: FsError, key: Key | None = None) -> S3Error:
    """What the namespace refused while an object was being stored or removed, as S3 says it."""
    if exc.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EPERM):
        return parent_is_file(key.text if key is not None else b"")
    if exc.errno == errno.ENAMETOOLONG:
        return S3Error("KeyTooLongError", 400, "Your key is too long.")
    if exc.errno == errno.ENOENT:
        return no_bucket()
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return S3Error("InsufficientStorage", 507, "The disk below the volume is full.")
    if exc.errno == errno.EROFS:
        return S3Error("AccessDenied", 403, "The volume is read-only.")
    if exc.errno == errno.EFBIG:
        return too_large()
    return S3Error("InternalError", 500, "We encountered an internal error. Please try again.")


def too_large() -> S3Error:
    return S3Error("EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed object size.")


def etag_of(attr: Attr, record: S3Record | None) -> str:
    """Without quotes. The MD5 while it holds; else opaque, with a `-` so that nobody takes it for an MD5.

    It changes with every change of the bytes, and survives restarts and renames.
    """
    if attr.is_dir:
        return record.etag if record is not None and record.etag else EMPTY_MD5
    if record is not None and record.current and record.etag:
        return record.etag
    return opaque_etag(attr.inode, attr.version, attr.size)


def opaque_etag(inode: int, version: int, size: int) -> str:
    """Of bytes whose MD5 nobody knows."""
    return f"{hashlib.sha256(b'tonfs etag %d %d %d' % (inode, version, size)).hexdigest()[:32]}-0"


def content_type_of(name: bytes, attr: Attr, record: S3Record | None) -> str:
    """As stored, else by extension."""
    if record is not None and record.content_type:
        return record.content_type
    if attr.is_dir:
        return "application/x-directory"
    kind, encoding = _TYPES.guess_type(name.decode("utf-8", "replace"), strict=False)
    if encoding is not None:
        return {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}.get(
            encoding, "application/octet-stream"
        )
    return kind or "application/octet-stream"
