"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator

from ..errors import FsError, S3Error
from ..volume.api import ROOT, Entry, Namespace
from . import xml
from .body import read_whole
from .door import OWNER_ID, Answer, Call, xml_answer
from .keys import Rights
from .mapping import bucket_visible, check_new_bucket, conflict, find_bucket, no_bucket

DEFAULT_REGION = "us-east-1"


def iso_date(nanoseconds: int) -> str:
    """`2026-11-23T08:47:29.123Z`, the form of S3's lists. With milliseconds: `aws s3 sync` compares it with the time of
    the local file, which may be of the same second."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 10**6:03d}Z"


def owner() -> str:
    return xml.element("Owner", xml.text("ID", OWNER_ID), xml.text("DisplayName", OWNER_ID))


def _buckets(namespace: Namespace) -> Iterator[Entry]:
    after = b""
    while entries := namespace.list_sorted(ROOT, after, 1000):
        yield from (entry for entry in entries if entry.attr.is_dir and bucket_visible(entry.name))
        after = entries[-1].sort_key


async def list_buckets(call: Call) -> Answer:
    """Those that the access key opens, in order of name."""

    def work() -> list[str]:
        return [
            xml.element(
                "Bucket",
                xml.text("Name", entry.name.decode("ascii")),
                xml.text("CreationDate", iso_date(entry.attr.birth_ns)),
            )
            for entry in _buckets(call.door.namespace)
            if call.access.allows(entry.name.decode("ascii"), Rights.READ)
        ]

    found = await call.door.slow(work)
    return xml_answer(xml.document("ListAllMyBucketsResult", owner(), xml.element("Buckets", *found)))


async def create_bucket(call: Call) -> Answer:
    check_new_bucket(call.bucket)
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
        except FsError as exc:
            if exc.errno != errno.EEXIST:
                raise conflict(exc) from exc
            if namespace.lookup(ROOT, call.bucket).is_dir:
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

    await call.door.slow(work)
    return Answer(204)


async def get_location(call: Call) -> Answer:
    """Empty in the first region, by tradition."""
    find_bucket(call.door.namespace, call.bucket)
    region = "" if call.door.region == DEFAULT_REGION else call.door.region
    return xml_answer(xml.document("LocationConstraint", xml.escape(region)))
