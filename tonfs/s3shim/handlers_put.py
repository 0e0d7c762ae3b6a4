"""PutObject: staged outside the namespace, checked, then given its name in one transaction and made durable."""

from __future__ import annotations

import errno

from ..errors import FsError, NoSpace, S3Error, Stale
from ..ids import Inode
from ..volume.api import Attr, Expect, Namespace, S3Record
from .body import Digests, Intake
from .conditions import etag_matches, failed
from .door import Answer, Call, Headers
from .mapping import Key, check_place, conflict, etag_of, find_bucket, find_object, no_key, parse_key
from .metadata import content_type, system_headers, user_metadata
from .router import not_implemented


def expectation(call: Call, namespace: Namespace, bucket: Attr, key: Key) -> Expect | None:
    """If-Match and If-None-Match of a request that changes something, checked now and turned into a condition for
    the transaction. Raises S3Error(PreconditionFailed, NoSuchKey)."""
    match, none_match = call.header("if-match"), call.header("if-none-match")
    for name in ("if-modified-since", "if-unmodified-since"):
        if call.header(name) is not None:
            raise not_implemented(name)
    if match is None and none_match is None:
        return None
    if match is not None and none_match is not None:
        raise not_implemented("If-Match together with If-None-Match")
    found = find_object(namespace, bucket, key)
    if none_match is not None:
        if none_match.strip() != "*":
            raise not_implemented("If-None-Match with anything but *")
        if found is not None:
            raise failed()
        # A directory that exists without being an object does not count as one.
        return None if key.marker else Expect(absent=True)
    if found is None:
        raise no_key()
    if not etag_matches(match or "", etag_of(found, namespace.record(found.inode))):
        raise failed()
    return Expect(inode=found.inode, version=found.version)


def _record(call: Call, digests: Digests) -> S3Record:
    headers = call.request.headers
    return S3Record(
        etag=digests.md5,
        content_type=content_type(headers),
        metadata=user_metadata(headers),
        checksums=digests.checksums,
        headers=system_headers(headers),
    )


async def put_object(call: Call) -> Answer:
    key = parse_key(call.key)
    intake = Intake(call, needs_length=True)
    # Everything that can be known to be wrong is found out before the body is asked for.
    _record(call, Digests("", {}))
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    expect = expectation(call, namespace, bucket, key)
    check_place(namespace, bucket, key)
    if key.marker and intake.length:
        raise S3Error("InvalidRequest", 400, "A key that ends in a slash is a directory and cannot hold data.")
    digests = await (_put_marker if key.marker else _put_file)(call, key, bucket, intake, expect)
    headers: Headers = [("ETag", f'"{digests.md5}"')]
    headers += [(f"x-amz-checksum-{name}", value) for name, value in digests.checksums.items()]
    if digests.checksums:
        headers.append(("x-amz-checksum-type", "FULL_OBJECT"))
    return Answer(200, headers)


def refusal(exc: FsError | NoSpace | Stale) -> S3Error:
    """What a change that did not happen looks like to the client."""
    if isinstance(exc, Stale):
        return failed()
    if isinstance(exc, NoSpace):
        return conflict(FsError(exc.message, errno.ENOSPC))
    if exc.errno == errno.EEXIST:
        return failed()
    return conflict(exc)


async def _put_marker(call: Call, key: Key, bucket: Attr, intake: Intake, expect: Expect | None) -> Digests:
    async for block in intake.blocks():
        intake.absorb(block)
    digests = intake.verify()
    record = _record(call, digests)
    door = call.door

    def work() -> None:
        try:
            door.namespace.put_marker(bucket.inode, key.parts, record, door.uid, door.gid, expect=expect)
        except (FsError, NoSpace, Stale) as exc:
            raise refusal(exc) from exc
        door.namespace.commit()

    await door.slow(work)
    return digests


async def _put_file(call: Call, key: Key, bucket: Attr, intake: Intake, expect: Expect | None) -> Digests:
    door, namespace = call.door, call.door.namespace
    try:
        staged = namespace.stage(door.uid, door.gid)
    except (FsError, NoSpace) as exc:
        raise refusal(exc) from exc
    published = False
    try:
        await _receive(call, staged, intake)
        digests = intake.verify()
        record = _record(call, digests)

        def finish() -> None:
            nonlocal published
            namespace.sync(staged)
            namespace.publish(staged, bucket.inode, key.parts, record, expect=expect)
            published = True
            namespace.commit()

        await door.slow(finish)
        return digests
    except (FsError, NoSpace, Stale) as exc:
        raise refusal(exc) from exc
    finally:
        if not published:
            namespace.discard(staged)


async def _receive(call: Call, staged: Inode, intake: Intake) -> None:
    namespace = call.door.namespace
    position = 0
    async for block in intake.blocks():

        def work(block: bytes = block, position: int = position) -> None:
            intake.absorb(block)
            namespace.write(staged, position, block)

        if len(block) <= 16 << 10:
            work()
        else:
            await call.door.slow(work)
        position += len(block)
