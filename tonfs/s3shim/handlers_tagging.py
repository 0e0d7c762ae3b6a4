"""Tagging of objects and buckets."""

from __future__ import annotations

from ..errors import FsError, NoSpace, S3Error
from ..volume.api import Attr
from . import acl, tags, xml
from .body import read_whole
from .door import Answer, Call, xml_answer
from .found import Found, find
from .mapping import find_bucket, no_key, parse_key
from .store import refusal


def _object(call: Call) -> Found:
    namespace = call.door.namespace
    found = find(namespace, find_bucket(namespace, call.bucket), parse_key(call.key))
    if found is None:
        raise no_key()
    return found


async def get_tagging(call: Call) -> Answer:
    record = _object(call).record
    return xml_answer(tags.document(record.tags if record is not None else {}))


async def put_tagging(call: Call) -> Answer:
    _object(call)
    wanted = tags.parse(await read_whole(call, xml.MAX_BYTES), tags.MAX_OBJECT_TAGS)
    await _set_tags(call, wanted)
    return Answer(200)


async def delete_tagging(call: Call) -> Answer:
    await _set_tags(call, {})
    return Answer(204)


async def _set_tags(call: Call, wanted: dict[str, str]) -> None:
    namespace = call.door.namespace

    def work() -> None:
        found = _object(call)
        try:
            namespace.set_tags(found.attr.inode, wanted)
            namespace.commit()
        except (FsError, NoSpace) as exc:
            raise refusal(exc) from exc

    await call.door.slow(work)


# Buckets.


async def get_bucket_tagging(call: Call) -> Answer:
    namespace = call.door.namespace
    found = acl.bucket_record(namespace, find_bucket(namespace, call.bucket)).tags
    if not found:
        raise S3Error("NoSuchTagSet", 404, "The TagSet does not exist.")
    return xml_answer(tags.document(found))


async def put_bucket_tagging(call: Call) -> Answer:
    find_bucket(call.door.namespace, call.bucket)
    wanted = tags.parse(await read_whole(call, xml.MAX_BYTES), tags.MAX_BUCKET_TAGS)
    await _set_bucket_tags(call, wanted)
    return Answer(204)


async def delete_bucket_tagging(call: Call) -> Answer:
    await _set_bucket_tags(call, {})
    return Answer(204)


async def _set_bucket_tags(call: Call, wanted: dict[str, str]) -> None:
    namespace = call.door.namespace

    def work() -> None:
        bucket: Attr = find_bucket(namespace, call.bucket)
        try:
            namespace.set_tags(bucket.inode, wanted)
            namespace.commit()
        except (FsError, NoSpace) as exc:
            raise refusal(exc) from exc

    await call.door.slow(work)
