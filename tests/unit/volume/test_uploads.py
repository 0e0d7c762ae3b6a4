"""Multipart uploads in the volume: parts outlive restarts, become one object, and go."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.volume.helpers import check, crash_copy, everything
from tests.unit.volume.test_names import refused
from tests.unit.volume.test_objects import RECORD, put
from tonfs.errors import Stale
from tonfs.ids import Inode
from tonfs.volume import ROOT, Expect, ObjectPart, UploadPart, Volume, core
from tonfs.volume.core import Core
from tonfs.volume.inodes import Inodes


@pytest.fixture
def bucket(volume: Volume) -> Inode:
    return volume.create_bucket(b"bucket", 3, 4).inode


def add(volume: Volume, upload_id: str, number: int, data: bytes) -> UploadPart:
    staged = volume.stage(1, 2)
    volume.write(staged, 0, data)
    return volume.add_part(upload_id, number, staged, f"etag{number}", f"sum{number}")


def test_parts_become_one_object(volume: Volume, bucket: Inode) -> None:
    upload = volume.begin_upload(bucket, b"a/b", {"type": "x"})
    parts = [add(volume, upload.id, number, bytes([number]) * 10) for number in (1, 2, 7)]
    assert volume.upload_parts(upload.id) == parts
    assert volume.list_dir(bucket, 0, 9) == [], "parts are in no directory"
    assert everything(volume) == [], "and nobody packs them"
    attr = volume.complete_upload(upload.id, parts, [b"a", b"b"], RECORD, {"etag": "e"})
    assert volume.read(attr.inode, 0, 99).data == b"\1" * 10 + b"\2" * 10 + b"\7" * 10
    assert volume.resolve([b"a", b"b"], bucket).inode == attr.inode
    assert volume.object_parts(attr.inode, 1) == [ObjectPart(2, 10, 10, "sum2"), ObjectPart(7, 20, 10, "sum7")]
    assert volume.upload(upload.id).done == {"etag": "e"}
    refused(errno.ENOENT, lambda: volume.upload_parts(upload.id))
    assert volume.list_uploads(bucket) == []
    volume.write(attr.inode, 3, b"x")
    assert volume.object_parts(attr.inode) == [], "a write through the mount makes one file of it"
    check(volume)


def test_parts_and_uploads_survive_a_crash(volume: Volume, bucket: Inode) -> None:
    upload = volume.begin_upload(bucket, b"k", {})
    part = add(volume, upload.id, 1, b"data")
    volume.sync(part.inode)
    volume.commit()
    volume.abandon()
    again = Volume(volume.directory)
    try:
        assert again.upload_parts(upload.id) == [part]
        attr = again.complete_upload(upload.id, [part], [b"k"], RECORD, {})
        assert again.read(attr.inode, 0, 9).data == b"data"
        check(again)
    finally:
        again.close()


def test_a_part_sent_again_replaces_the_first(volume: Volume, bucket: Inode) -> None:
    upload = volume.begin_upload(bucket, b"k", {})
    first = add(volume, upload.id, 1, b"first")
    second = add(volume, upload.id, 1, b"second")
    refused(errno.ENOENT, lambda: volume.getattr(first.inode))
    with pytest.raises(Stale):
        volume.complete_upload(upload.id, [first], [b"k"], RECORD, {})
    attr = volume.complete_upload(upload.id, [second], [b"k"], RECORD, {})
    assert volume.read(attr.inode, 0, 9).data == b"second"


def test_an_aborted_upload_leaves_nothing(volume: Volume, bucket: Inode) -> None:
    upload = volume.begin_upload(bucket, b"k", {})
    part = add(volume, upload.id, 1, b"data")
    volume.abort_upload(upload.id)
    refused(errno.ENOENT, lambda: volume.getattr(part.inode))
    for action in (volume.upload, volume.abort_upload, volume.upload_parts):
        refused(errno.ENOENT, lambda action=action: action(upload.id))  # type: ignore[misc]
    staged = volume.stage(0, 0)
    refused(errno.ENOENT, lambda: volume.add_part(upload.id, 1, staged, "", ""))
    volume.discard(staged)


def test_a_failed_complete_keeps_the_parts(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"k", b"old")
    upload = volume.begin_upload(bucket, b"k", {})
    part = add(volume, upload.id, 1, b"data")
    refused(
        errno.EEXIST,
        lambda: volume.complete_upload(upload.id, [part], [b"k"], RECORD, {}, expect=Expect(absent=True)),
    )
    assert volume.upload_parts(upload.id) == [part]
    volume.complete_upload(upload.id, [part], [b"k"], RECORD, {})


def test_a_kill_while_an_upload_completes_leaves_all_of_it_or_nothing(
    volume: Volume, bucket: Inode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is committed wherever it may be, and every commit may be the last thing that happens."""
    put(volume, bucket, b"k", b"old")
    upload = volume.begin_upload(bucket, b"k", {})
    parts = [add(volume, upload.id, number, bytes([number]) * 9000) for number in (1, 2)]
    for part in parts:
        volume.sync(part.inode)
    volume.commit()
    copies: list[Path] = []
    commit, reserve = Core._commit_locked, Inodes._reserve_inodes

    def watched_commit(self: Core) -> None:
        commit(self)
        copies.append(crash_copy(volume.directory, tmp_path / f"copy{len(copies)}"))

    def watched_reserve(self: Inodes, count: int) -> None:
        self._commit_locked()
        reserve(self, count)

    monkeypatch.setattr(core, "MAX_PENDING", -1)
    monkeypatch.setattr(Core, "_commit_locked", watched_commit)
    monkeypatch.setattr(Inodes, "_reserve_inodes", watched_reserve)
    volume.complete_upload(upload.id, parts, [b"k"], RECORD, {"etag": "e"})
    monkeypatch.undo()
    seen = []
    for directory in copies:
        after = Volume(directory)
        try:
            check(after)
            body = after.read(after.resolve([b"bucket", b"k"]).inode, 0, 99_999).data
            done = after.upload(upload.id).done
            if done is None:
                assert body == b"old"
                assert after.upload_parts(upload.id) == parts
                after.complete_upload(upload.id, parts, [b"k"], RECORD, {"etag": "e"})
            else:
                assert body == b"\1" * 9000 + b"\2" * 9000
            seen.append(done)
        finally:
            after.abandon()
    assert seen[0] is None
    assert seen[-1] == {"etag": "e"}


def test_uploads_are_listed_by_key_and_id(volume: Volume, bucket: Inode) -> None:
    made = [volume.begin_upload(bucket, key, {}) for key in (b"b", b"a", b"a", b"ab", b"c")]
    wanted = sorted((u.key, u.id) for u in made)
    assert [(u.key, u.id) for u in volume.list_uploads(bucket)] == wanted
    assert [(u.key, u.id) for u in volume.list_uploads(bucket, wanted[1], 2)] == wanted[2:4]
    assert [(u.key, u.id) for u in volume.list_uploads(bucket, prefix=b"a")] == wanted[:3]


def test_old_uploads_expire_and_those_of_a_removed_bucket_go(volume: Volume, bucket: Inode) -> None:
    old = volume.begin_upload(bucket, b"old", {})
    part = add(volume, old.id, 1, b"data")
    done = volume.begin_upload(bucket, b"done", {})
    volume.complete_upload(done.id, [add(volume, done.id, 1, b"d")], [b"done"], RECORD, {})
    later = volume.upload(done.id).created_ns + 1
    assert volume.expire_uploads(later, 0) == 1
    refused(errno.ENOENT, lambda: volume.getattr(part.inode))
    assert volume.expire_uploads(0, later) == 1
    volume.begin_upload(bucket, b"other", {})
    volume.remove_object(bucket, [b"done"])
    volume.delete_bucket(b"bucket")
    second = volume.mkdir(ROOT, b"second", 0o755, 0, 0).inode
    volume.begin_upload(second, b"k", {})
    volume.rmdir(ROOT, b"second")
    assert volume.expire_uploads(0, 0) == 1
    check(volume)
