"""CopyObject and UploadPartCopy: the source is read as a GET would read it, and pinned while that lasts."""

from __future__ import annotations

import errno
import hashlib
import re
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..errors import FsError, S3Error, Stale
from ..ids import Inode
from ..volume.api import S3Record
from . import checksums, xml
from .body import read_whole
from .conditions import check_copy_source
from .door import Answer, Call, xml_answer
from .found import MAX_TRIES, Found, find, hold, read
from .handlers_bucket import iso_date
from .handlers_get import part_number
from .handlers_put import check_destination, described
from .handlers_upload import Facts, add_part, open_upload
from .keys import Rights
from .mapping import Key, parse_key, too_large
from .receive import staging
from .router import not_implemented
from .store import place, publish_marker, write_check
from .uri import decode, parse_query

MAX_COPY: Final = 5 << 30
BLOCK: Final = 1 << 20
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_RANGE: Final = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True)
class Copied:
    md5: str
    checksums: dict[str, str]


def parse_source(text: str) -> tuple[bytes, Key]:
    """(bucket, key) of `x-amz-copy-source`. Raises S3Error(InvalidArgument, NotImplemented)."""

    def bad() -> S3Error:
        return S3Error(
            "InvalidArgument", 400, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )

    raw, question, query = text.partition("?")
    if question and [(name, value) for name, _, value in parse_query(query)] != [("versionId", b"null")]:
        raise S3Error("InvalidArgument", 400, "A copy source may name the version 'null', and nothing else.")
    try:
        path = decode(raw)
    except S3Error:
        raise bad() from None
    bucket, _, key = path.removeprefix(b"/").partition(b"/")
    if not bucket or not key:
        raise bad()
    return bucket, parse_key(key)


async def hold_source(call: Call) -> tuple[bytes, Key, Found]:
    """The source, held, and its conditions checked. Raises S3Error."""
    bucket, key = parse_source(call.header("x-amz-copy-source") or "")
    if not call.access.allows(bucket.decode("latin-1"), Rights.READ):
        raise S3Error("AccessDenied", 403, "This access key may not read the source of the copy.")
    found = await hold(call.door, bucket, key)
    try:
        check_copy_source(call.header, found.etag, found.modified)
    except BaseException:
        call.door.namespace.drop(found.attr.inode)
        raise
    return bucket, key, found


async def copy_bytes(call: Call, found: Found, first: int, end: int, staged: Inode, algorithm: str | None) -> Copied:
    """A range of the source into a staged file, by reference; it is read only when its digests are not known.

    Raises Stale when the source is being written.
    """
    namespace, inode = call.door.namespace, found.attr.inode
    copied = _known(found, first, end, algorithm) or await _digest(call, found, first, end, algorithm)

    def share() -> None:
        try:
            namespace.concat(staged, [(inode, first, end - first)])
        except FsError as exc:
            if exc.errno == errno.EINVAL:  # it is shorter now
                raise Stale("The source was changed.") from exc
            raise
        if namespace.getattr(inode).version != found.attr.version:
            raise Stale("The source was changed.")

    if first < end:
        await call.door.slow(share)
    return copied


def _known(found: Found, first: int, end: int, algorithm: str | None) -> Copied | None:
    """The digests of the whole source, if its record has them."""
    record = found.record
    if (first, end) != (0, found.size) or record is None or not record.current or not _MD5.fullmatch(record.etag):
        return None
    if algorithm is None:
        return Copied(record.etag, {})
    if algorithm not in record.checksums or record.checksum_type != "FULL_OBJECT":
        return None
    return Copied(record.etag, {algorithm: record.checksums[algorithm]})


async def _digest(call: Call, found: Found, first: int, end: int, algorithm: str | None) -> Copied:
    md5 = hashlib.md5(usedforsecurity=False)
    digest = checksums.new(algorithm) if algorithm is not None else None

    def use(data: bytes) -> None:
        md5.update(data)
        if digest is not None:
            digest.update(data)

    for position in range(first, end, BLOCK):
        await read(call.door, found.attr, position, min(BLOCK, end - position), use)
    sums = {algorithm: checksums.b64(digest.digest())} if algorithm is not None and digest is not None else {}
    return Copied(md5.hexdigest(), sums)


# CopyObject.


def _directive(call: Call, name: str) -> bool:
    """True for REPLACE. Raises S3Error(InvalidArgument)."""
    value = call.header(name) or "COPY"
    if value not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", 400, f"Unknown {name.removeprefix('x-amz-')}.")
    return value == "REPLACE"


async def copy_object(call: Call) -> Answer:
    key = parse_key(call.key)
    replaces, new_tags = _directive(call, "x-amz-metadata-directive"), _directive(call, "x-amz-tagging-directive")
    given = described(call)
    if given.tags and not new_tags:
        raise not_implemented("x-amz-tagging without x-amz-tagging-directive: REPLACE")
    wish = call.header("x-amz-checksum-algorithm")
    algorithm = checksums.known(wish) if wish is not None else None
    bucket = check_destination(call, key)
    check = write_check(call)
    if check is not None:
        check(find(call.door.namespace, bucket, key))
    await read_whole(call, xml.MAX_BYTES)
    for _ in range(MAX_TRIES):
        source_bucket, source_key, found = await hold_source(call)
        try:
            if (source_bucket, source_key.text) == (call.bucket, call.key) and not (replaces or new_tags or wish):
                raise S3Error(
                    "InvalidRequest",
                    400,
                    "This copy request is illegal because it is trying to copy an object to itself without changing "
                    "the object's metadata, storage class, website redirect location or encryption attributes.",
                )
            if found.size > MAX_COPY:
                raise S3Error(
                    "InvalidRequest",
                    400,
                    "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
                )
            record = _copied_record(found, given, replaces, new_tags)
            return await _copy(call, key, found, record, algorithm or _algorithm_of(found))
        except Stale:
            continue  # written through the mount meanwhile: look again
        finally:
            call.door.namespace.drop(found.attr.inode)
    raise S3Error("SlowDown", 503, "The source is being written too quickly.")


def _algorithm_of(found: Found) -> str | None:
    record = found.record
    return next(iter(record.checksums), None) if record is not None and record.current else None


def _copied_record(found: Found, given: S3Record, replaces: bool, new_tags: bool) -> S3Record:
    old = found.record or S3Record(etag="", content_type="")
    base = given if replaces else old
    return S3Record(
        etag="",
        content_type=base.content_type,
        metadata=base.metadata,
        headers={name: value for name, value in base.headers.items() if name != "acl"},
        tags=given.tags if new_tags else old.tags,
    )


async def _copy(call: Call, key: Key, found: Found, record: S3Record, algorithm: str | None) -> Answer:
    """Raises Stale."""
    bucket, check = check_destination(call, key), write_check(call)
    with staging(call) as staged:
        copied = await copy_bytes(call, found, 0, found.size, staged.inode, algorithm)
        whole = record._replace(etag=copied.md5, checksums=copied.checksums)

        def finish() -> int:
            if key.marker and not found.size:
                return publish_marker(call, bucket, key, whole, check).mtime_ns
            attr = place(call, bucket, key, staged.inode, whole, check)
            staged.kept = True
            return attr.mtime_ns

        modified = await call.door.slow(finish)
        await call.door.commit()
    return xml_answer(_result("CopyObjectResult", copied, modified, with_type=True))


def _result(name: str, copied: Copied, modified_ns: int, *, with_type: bool) -> bytes:
    out = [xml.text("LastModified", iso_date(modified_ns)), f"<ETag>&quot;{copied.md5}&quot;</ETag>"]
    out += [xml.text(f"Checksum{word.upper()}", value) for word, value in copied.checksums.items()]
    if with_type and copied.checksums:
        out.append(xml.text("ChecksumType", "FULL_OBJECT"))
    return xml.document(name, *out)


# UploadPartCopy.


def source_range(text: str | None, size: int) -> tuple[int, int]:
    """(first byte, end). Raises S3Error(InvalidArgument, InvalidRange)."""
    if text is None:
        return 0, size
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise S3Error(
            "InvalidArgument",
            400,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
        )
    if int(match[2]) >= size:
        raise S3Error("InvalidRange", 416, f"Range specified is not valid for source object of size: {size}")
    return int(match[1]), int(match[2]) + 1


async def upload_part_copy(call: Call) -> Answer:
    number = part_number(call.parameter("partNumber"))
    _, upload = open_upload(call)
    algorithm = Facts.of(upload.facts).algorithm
    await read_whole(call, xml.MAX_BYTES)
    for _ in range(MAX_TRIES):
        _, _, found = await hold_source(call)
        try:
            first, end = source_range(call.header("x-amz-copy-source-range"), found.size)
            if end - first > MAX_COPY:
                raise too_large()
            return await _copy_part(call, upload.id, number, found, (first, end), algorithm)
        except Stale:
            continue
        finally:
            call.door.namespace.drop(found.attr.inode)
    raise S3Error("SlowDown", 503, "The source is being written too quickly.")


async def _copy_part(
    call: Call, upload_id: str, number: int, found: Found, span: tuple[int, int], algorithm: str | None
) -> Answer:
    with call.door.limits.room(call.door.namespace, span[1] - span[0]), staging(call) as staged:
        copied = await copy_bytes(call, found, *span, staged.inode, algorithm)
        checksum = copied.checksums[algorithm] if algorithm is not None else ""
        part = await call.door.slow(partial(add_part, call, upload_id, number, staged, copied.md5, checksum))
        await call.door.commit()
    return xml_answer(_result("CopyPartResult", copied, part.modified_ns, with_type=False))
