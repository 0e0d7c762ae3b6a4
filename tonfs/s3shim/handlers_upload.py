"""CreateMultipartUpload, UploadPart, CompleteMultipartUpload."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import FsError, NoSpace, S3Error
from ..volume.api import Attr, Namespace, S3Record, Upload, UploadPart
from . import checksums, multipart, xml
from .body import Digests, Intake, read_whole
from .door import Answer, Call, Headers, xml_answer
from .handlers_get import part_number
from .handlers_put import check_destination, described
from .mapping import Key, find_bucket, parse_key
from .receive import Staged, received
from .store import conditionally, refusal, write_check


@dataclass(frozen=True)
class Facts:
    """What was said when an upload was begun; kept as JSON with it."""

    record: S3Record
    algorithm: str | None
    kind: str

    def to_json(self) -> dict[str, Any]:
        record = self.record
        return {
            "content_type": record.content_type,
            "metadata": dict(record.metadata),
            "headers": dict(record.headers),
            "tags": dict(record.tags),
            "algorithm": self.algorithm,
            "kind": self.kind,
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Facts:
        record = S3Record(
            etag="",
            content_type=data["content_type"],
            metadata=data["metadata"],
            headers=data["headers"],
            tags=data["tags"],
        )
        return cls(record, data["algorithm"], data["kind"])


def no_upload() -> S3Error:
    return S3Error(
        "NoSuchUpload",
        404,
        "The specified multipart upload does not exist. The upload ID might be invalid, or the multipart upload might "
        "have been aborted or completed.",
    )


def find_upload(call: Call) -> tuple[Attr, Upload]:
    """The bucket and the upload that the request names, also a complete one. Raises S3Error(NoSuchUpload)."""
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    parse_key(call.key)
    try:
        upload = namespace.upload(call.parameter("uploadId") or "")
    except FsError as exc:
        raise no_upload() from exc
    if upload.bucket != bucket.inode or upload.key != call.key:
        raise no_upload()
    return bucket, upload


def open_upload(call: Call) -> tuple[Attr, Upload]:
    """The same, but not a complete one."""
    bucket, upload = find_upload(call)
    if upload.done is not None:
        raise no_upload()
    return bucket, upload


async def create_upload(call: Call) -> Answer:
    key = parse_key(call.key)
    record = described(call)
    wish = call.header("x-amz-checksum-algorithm")
    algorithm = checksums.known(wish) if wish is not None else None
    kind = multipart.kind_of(algorithm, call.header("x-amz-checksum-type"))
    bucket = check_destination(call, key)
    await read_whole(call, xml.MAX_BYTES)
    namespace = call.door.namespace

    def work() -> Upload:
        call.door.limits.check_open(namespace)
        try:
            upload = namespace.begin_upload(bucket.inode, call.key, Facts(record, algorithm, kind).to_json())
        except (FsError, NoSpace) as exc:
            raise refusal(exc) from exc
        namespace.commit()
        return upload

    upload = await call.door.slow(work)
    answer = xml_answer(
        xml.document(
            "InitiateMultipartUploadResult",
            xml.text("Bucket", call.bucket.decode()),
            xml.text("Key", call.key.decode()),
            xml.text("UploadId", upload.id),
        )
    )
    if algorithm is not None:
        answer.headers += [("x-amz-checksum-algorithm", algorithm.upper()), ("x-amz-checksum-type", kind)]
    return answer


async def upload_part(call: Call) -> Answer:
    number = part_number(call.parameter("partNumber"))
    _, upload = open_upload(call)
    algorithm = Facts.of(upload.facts).algorithm
    intake = Intake(call, needs_length=True, also=algorithm)
    with call.door.limits.room(call.door.namespace, intake.length or 0):
        async with received(call, intake) as (staged, digests):
            await call.door.slow(
                partial(add_part, call, upload.id, number, staged, digests.md5, checksum_for(algorithm, digests))
            )
            await call.door.commit()
    headers: Headers = [("ETag", f'"{digests.md5}"')]
    headers += [(f"x-amz-checksum-{name}", value) for name, value in digests.checksums.items()]
    return Answer(200, headers)


def add_part(call: Call, upload_id: str, number: int, staged: Staged, md5: str, checksum: str) -> UploadPart:
    """The staged file becomes a part; durable with the next commit. Raises S3Error(NoSuchUpload). Slow."""
    namespace = call.door.namespace
    namespace.sync(staged.inode)
    try:
        part = namespace.add_part(upload_id, number, staged.inode, md5, checksum)
    except FsError as exc:
        raise (no_upload() if exc.errno == errno.ENOENT else refusal(exc)) from exc
    staged.kept = True
    return part


def checksum_for(algorithm: str | None, digests: Digests) -> str:
    """The part's checksum in the upload's algorithm, "" without one."""
    return "" if algorithm is None else (digests.checksums | digests.extra)[algorithm]


# Complete.


async def complete_upload(call: Call) -> Answer:
    bucket, upload = find_upload(call)
    key = parse_key(call.key)
    write_check(call)
    wishes = multipart.parse_complete(await read_whole(call, xml.MAX_BYTES, foreign=True))
    etag = multipart.etag_of([wish.etag for wish in wishes])
    if upload.done is not None:
        return _again(call, upload, etag)
    facts = Facts.of(upload.facts)
    namespace = call.door.namespace
    try:
        known = namespace.upload_parts(upload.id)
    except FsError:
        # Aborted, or completed on another connection, since we looked.
        return _again(call, find_upload(call)[1], etag)
    chosen = multipart.choose(wishes, known, facts.algorithm)
    record = _record(call, facts, chosen, etag)
    done = {"etag": etag, "checksums": dict(record.checksums), "kind": record.checksum_type}

    def work() -> None:
        try:
            _publish(call, bucket, key, upload, chosen, record, done)
        except S3Error:
            if not _is_done(namespace, upload.id, etag):
                raise
            # The same request was answered meanwhile on another connection.

    await call.door.slow(work)
    return _completed(call, done)


def _is_done(namespace: Namespace, upload_id: str, etag: str) -> bool:
    try:
        done = namespace.upload(upload_id).done
    except FsError:
        return False
    return done is not None and done["etag"] == etag


def _publish(
    call: Call,
    bucket: Attr,
    key: Key,
    upload: Upload,
    chosen: list[UploadPart],
    record: S3Record,
    done: dict[str, Any],
) -> None:
    namespace = call.door.namespace

    conditionally(
        call,
        bucket,
        key,
        write_check(call),
        lambda expect: namespace.complete_upload(
            upload.id, chosen, key.parts, record, done, expect=expect, marker=key.marker
        ),
    )
    namespace.commit()


def _record(call: Call, facts: Facts, chosen: list[UploadPart], etag: str) -> S3Record:
    """Raises S3Error(BadDigest, InvalidRequest)."""
    size = call.header("x-amz-mp-object-size")
    if size is not None and size != str(sum(part.size for part in chosen)):
        raise S3Error("InvalidRequest", 400, "The parts have not the size that x-amz-mp-object-size says.")
    kind = call.header("x-amz-checksum-type")
    if kind is not None and kind != facts.kind:
        raise S3Error("InvalidRequest", 400, "The upload was begun with another checksum type.")
    sums: dict[str, str] = {}
    if facts.algorithm is not None:
        sums = {facts.algorithm: multipart.checksum_of(chosen, facts.algorithm, facts.kind)}
    for name, value in call.request.headers:
        word = name.removeprefix(checksums.PREFIX)
        if word != name and word != "type" and sums.get(checksums.known(word)) != value:
            raise checksums.wrong_checksum(word)
    return facts.record._replace(etag=etag, checksums=sums, checksum_type=facts.kind)


def _again(call: Call, upload: Upload, etag: str) -> Answer:
    """A client that lost the answer asks again."""
    if upload.done is None or upload.done["etag"] != etag:
        raise no_upload()
    return _completed(call, upload.done)


def _completed(call: Call, done: Mapping[str, Any]) -> Answer:
    host = call.header("host") or "localhost"
    path = f"/{call.bucket.decode()}/{call.key.decode()}"
    sums: Mapping[str, str] = done["checksums"]
    out = [
        xml.text("Location", f"http://{host}{path}"),
        xml.text("Bucket", call.bucket.decode()),
        xml.text("Key", call.key.decode()),
        f"<ETag>&quot;{done['etag']}&quot;</ETag>",
    ]
    out += [xml.text(f"Checksum{name.upper()}", value) for name, value in sums.items()]
    if sums:
        out.append(xml.text("ChecksumType", done["kind"]))
    return xml_answer(xml.document("CompleteMultipartUploadResult", *out))
