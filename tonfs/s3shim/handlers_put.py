"""PutObject: staged outside the namespace, checked, then given its name in one transaction and made durable."""

from __future__ import annotations

from ..volume.api import Attr, S3Record
from . import acl, tags
from .body import SMALL, Digests, Intake
from .door import Answer, Call
from .found import find
from .mapping import Key, check_place, find_bucket, parse_key
from .metadata import checksum_headers, content_type, system_headers, user_metadata
from .receive import received
from .router import not_implemented
from .store import Check, place, publish_marker, write_check


def described(call: Call) -> S3Record:
    """What the request's headers say about an object, without digests. Raises S3Error."""
    headers = call.request.headers
    return S3Record(
        etag="",
        content_type=content_type(headers),
        metadata=user_metadata(headers),
        headers=system_headers(headers),
        tags=tags.of_header(call.header("x-amz-tagging")),
    )


def digested(record: S3Record, digests: Digests) -> S3Record:
    return record._replace(etag=digests.md5, checksums=digests.checksums)


def check_destination(call: Call, key: Key) -> Attr:
    """The bucket, if an object may be stored under the key. Raises S3Error."""
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    acl.check_for_object(call.header("x-amz-acl"), acl.is_public(call.door, call.bucket))
    check_place(namespace, bucket, key)
    return bucket


async def put_object(call: Call) -> Answer:
    key = parse_key(call.key)
    if call.header("x-amz-checksum-type") not in (None, "FULL_OBJECT"):
        raise not_implemented("x-amz-checksum-type")
    intake = Intake(call, needs_length=True)
    # Everything that can be known to be wrong is found out before the body is asked for.
    record = described(call)
    bucket = check_destination(call, key)
    check = write_check(call)
    if check is not None:
        check(find(call.door.namespace, bucket, key))
    put = _put_marker if key.marker and intake.length == 0 else _put_file
    digests = await put(call, key, bucket, intake, record, check)
    return Answer(200, [("ETag", f'"{digests.md5}"'), *checksum_headers(digests.checksums)])


async def _put_marker(
    call: Call, key: Key, bucket: Attr, intake: Intake, record: S3Record, check: Check | None
) -> Digests:
    async for block in intake.blocks():
        intake.absorb(block)
    digests = intake.verify()
    await call.door.slow(lambda: publish_marker(call, bucket, key, digested(record, digests), check))
    return digests


async def _put_file(
    call: Call, key: Key, bucket: Attr, intake: Intake, record: S3Record, check: Check | None
) -> Digests:
    async with received(call, intake) as (staged, digests):

        def finish() -> None:
            place(call, bucket, key, staged.inode, digested(record, digests), check)
            staged.kept = True

        if check is None and intake.length is not None and intake.length <= SMALL:
            finish()  # in memory only
        else:
            await call.door.slow(finish)
        await call.door.commit()
    return digests
