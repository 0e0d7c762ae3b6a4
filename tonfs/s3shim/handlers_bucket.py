"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ..errors import FsError, S3Error
from ..volume.api import ROOT, Entry, Namespace
from . import acl, xml
from .body import read_whole
from .door import OWNER_ID, Answer, Call, xml_answer
from .found import find
from .keys import Rights
from .mapping import bucket_visible, check_new_bucket, conflict, find_bucket, no_bucket, no_key, parse_key
from .router import UNSET
from .tokens import make_token, read_token

DEFAULT_REGION: Final = "us-east-1"
MAX_BUCKETS: Final = 10_000
_DIGITS: Final = re.compile(r"[0-9]{1,6}")


def iso_date(nanoseconds: int) -> str:
    """`2026-11-23T08:47:29.123Z`, the form of S3's lists. With milliseconds: `aws s3 sync` compares it with the time of
    the local file, which may be of the same second."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{_iso_seconds(seconds)}.{rest // 10**6:03d}Z"


@lru_cache(1024)
def _iso_seconds(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def owner() -> str:
    return xml.element("Owner", xml.text("ID", OWNER_ID), xml.text("DisplayName", OWNER_ID))


def _buckets(namespace: Namespace, after: bytes) -> Iterator[Entry]:
    while entries := namespace.list_sorted(ROOT, after, 1000):
        yield from (entry for entry in entries if entry.attr.is_dir and bucket_visible(entry.name))
        after = entries[-1].sort_key


async def list_buckets(call: Call) -> Answer:
    """Those that the access key opens, in order of name."""
    limit = _max_buckets(call.parameter("max-buckets"))
    prefix = (call.parameter("prefix") or "").encode("utf-8", "surrogateescape")
    token = call.parameter("continuation-token")
    after = read_token(token) if token else b""
    region = call.parameter("bucket-region")

    def work() -> list[Entry]:
        found: list[Entry] = []
        for entry in _buckets(call.door.namespace, after):
            if len(found) > limit or (region is not None and region != call.door.region):
                break
            if entry.name.startswith(prefix) and call.access.allows(entry.name.decode("ascii"), Rights.READ):
                found.append(entry)
        return found

    found = await call.door.slow(work)
    truncated, found = len(found) > limit, found[:limit]
    inner = [
        xml.element(
            "Bucket",
            xml.text("Name", entry.name.decode("ascii")),
            xml.text("CreationDate", iso_date(entry.attr.birth_ns)),
        )
        for entry in found
    ]
    out = [owner(), xml.element("Buckets", *inner)]
    if truncated:
        out.append(xml.text("ContinuationToken", make_token(found[-1].sort_key)))
    if prefix:
        out.append(xml.text("Prefix", prefix.decode("utf-8", "replace")))
    return xml_answer(xml.document("ListAllMyBucketsResult", *out))


def _max_buckets(text: str | None) -> int:
    if text is None:
        return MAX_BUCKETS
    if not _DIGITS.fullmatch(text) or not text.isascii() or not 1 <= int(text) <= MAX_BUCKETS:
        raise S3Error("InvalidArgument", 400, f"max-buckets must be a number from 1 to {MAX_BUCKETS}.")
    return int(text)


async def create_bucket(call: Call) -> Answer:
    check_new_bucket(call.bucket)
    public = acl.canned_for_bucket(call.header("x-amz-acl"))
    data = await read_whole(call, xml.MAX_BYTES)
    if data:
        root = xml.parse(data, "CreateBucketConfiguration")
        place = xml.only_text(root, "LocationConstraint")
        others = [child.tag for child in root if child.tag != "LocationConstraint" and (len(child) or child.text)]
        if others:
            raise S3Error("NotImplemented", 501, f"CreateBucketConfiguration with {others[0]} is not implemented.")
        if place and place != call.door.region:
            raise S3Error("InvalidLocationConstraint", 400, "The specified location-constraint is not valid.")
    namespace, door = call.door.namespace, call.door

    def work() -> None:
        try:
            namespace.create_bucket(call.bucket, door.uid, door.gid)
            if public is not None:
                acl.set_public(door, call.bucket, public)
        except FsError as exc:
            if exc.errno != errno.EEXIST:
                raise conflict(exc) from exc
            if namespace.lookup(ROOT, call.bucket).is_dir:
                if door.region == DEFAULT_REGION:
                    return  # as S3 does there: the bucket stays as it is
                raise S3Error(
                    "BucketAlreadyOwnedByYou", 409, "Your previous request to create the named bucket succeeded."
                ) from exc
            raise S3Error("BucketAlreadyExists", 409, "The requested bucket name is not available.") from exc
        namespace.commit()

    await door.slow(work)
    return Answer(200, [("Location", f"/{call.bucket.decode()}")])


async def head_bucket(call: Call) -> Answer:
    find_bucket(call.door.namespace, call.bucket)
    return Answer(200, [("x-amz-bucket-region", call.door.region)])


async def delete_bucket(call: Call) -> Answer:
    namespace = call.door.namespace
    find_bucket(namespace, call.bucket)

    def work() -> None:
        try:
            namespace.delete_bucket(call.bucket)
        except FsError as exc:
            if exc.errno == errno.ENOTEMPTY:
                raise S3Error("BucketNotEmpty", 409, "The bucket you tried to delete is not empty.") from exc
            if exc.errno in (errno.ENOENT, errno.ENOTDIR):
                raise no_bucket() from exc
            raise conflict(exc) from exc
        namespace.commit()
        # Another bucket of the name is nobody's but its maker's.
        acl.set_public(call.door, call.bucket, False)

    await call.door.slow(work)
    return Answer(204)


async def get_versioning(call: Call) -> Answer:
    """Never enabled: an empty document."""
    find_bucket(call.door.namespace, call.bucket)
    return xml_answer(xml.document("VersioningConfiguration"))


async def get_unset(call: Call) -> Answer:
    """A configuration that no bucket has here."""
    find_bucket(call.door.namespace, call.bucket)
    word = next(name for name, _, _ in call.request.query if name in UNSET)
    code, message = UNSET[word]
    raise S3Error(code, 404, message)


# Access control lists.


async def get_bucket_acl(call: Call) -> Answer:
    namespace = call.door.namespace
    find_bucket(namespace, call.bucket)
    return xml_answer(acl.document(acl.is_public(call.door, call.bucket)))


async def put_bucket_acl(call: Call) -> Answer:
    namespace = call.door.namespace
    find_bucket(namespace, call.bucket)
    wanted = acl.canned_for_bucket(call.header("x-amz-acl"))
    data = await read_whole(call, xml.MAX_BYTES)
    if wanted is None:
        wanted = next((public for public in (False, True) if acl.same_as_document(data, public)), None)
        if wanted is None:
            raise acl.unsupported()

    await call.door.slow(lambda: acl.set_public(call.door, call.bucket, bool(wanted)))
    return Answer(200)


def _existing(call: Call) -> bool:
    """Is the object's bucket public? Raises S3Error(NoSuchBucket, NoSuchKey)."""
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    if find(namespace, bucket, parse_key(call.key)) is None:
        raise no_key()
    return acl.is_public(call.door, call.bucket)


async def get_object_acl(call: Call) -> Answer:
    return xml_answer(acl.document(_existing(call)))


async def put_object_acl(call: Call) -> Answer:
    public = _existing(call)
    canned = call.header("x-amz-acl")
    acl.check_for_object(canned, public)
    data = await read_whole(call, xml.MAX_BYTES)
    if canned is None and not acl.same_as_document(data, public):
        raise acl.unsupported()
    return Answer(200)


async def get_location(call: Call) -> Answer:
    """Empty in the first region, by tradition."""
    find_bucket(call.door.namespace, call.bucket)
    region = "" if call.door.region == DEFAULT_REGION else call.door.region
    return xml_answer(xml.document("LocationConstraint", xml.escape(region)))
