"""Content by reference: `concat`."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.volume.helpers import Packer, check, crash_copy
from tests.unit.volume.test_files import read
from tests.unit.volume.test_names import new, refused
from tonfs.ids import Inode
from tonfs.volume import ROOT, S3Record, Volume
from tonfs.volume import contents as places

A, B, SMALL = b"A" * 100_000, b"B" * 70_000, b"small"


def stage(volume: Volume, data: bytes) -> Inode:
    inode = volume.stage(0, 0)
    if data:
        volume.write(inode, 0, data)
    return inode


def joined(volume: Volume, *sources: Inode) -> Inode:
    staged = volume.stage(0, 0)
    volume.concat(staged, [(inode, 0, volume.getattr(inode).size) for inode in sources])
    return staged


def stored(volume: Volume) -> int:
    return sum(path.stat().st_blocks for path in (volume.directory / "content").rglob("*") if path.is_file()) * 512


def publish(volume: Volume, staged: Inode, name: bytes = b"k") -> None:
    bucket = volume.create_bucket(b"bucket", 0, 0).inode
    volume.publish(staged, bucket, [name], S3Record(etag="e"))
    volume.commit()


def test_parts_become_one_file_without_being_copied(volume: Volume) -> None:
    parts = [stage(volume, data) for data in (A, B, SMALL, A)]
    before = stored(volume)
    whole = joined(volume, *parts)
    for part in parts:
        volume.discard(part)
    publish(volume, whole)
    assert read(volume, whole) == A + B + SMALL + A
    assert volume.getattr(whole).size == len(A + B + SMALL + A)
    assert stored(volume) <= before + 8192, "only the few inline bytes were copied"


def test_small_parts_stay_inline(volume: Volume) -> None:
    whole = joined(volume, stage(volume, b"one"), stage(volume, b"two"))
    publish(volume, whole)
    assert read(volume, whole) == b"onetwo"
    assert stored(volume) == 0


def test_ranges_of_a_file_that_others_go_on_writing(volume: Volume) -> None:
    source = new(volume, b"f").inode
    volume.write(source, 0, A + B)
    staged = volume.stage(0, 0)
    volume.write(staged, 0, b"head")
    volume.concat(staged, [(source, 99_990, 20), (source, 0, 10)])
    volume.write(source, 0, b"z" * 110_000)
    volume.truncate(source, 50)
    volume.write(source, 40, b"y" * 100)
    assert read(volume, staged) == b"head" + b"A" * 10 + b"B" * 10 + b"A" * 10
    assert read(volume, source) == b"z" * 40 + b"y" * 100
    volume.unlink(ROOT, b"f")
    volume.commit()
    assert read(volume, staged) == b"head" + b"A" * 10 + b"B" * 10 + b"A" * 10
    volume.discard(staged)


def test_writing_into_what_is_shared_changes_one_file_only(volume: Volume) -> None:
    part = stage(volume, A)
    first, second = joined(volume, part, part), joined(volume, part)
    volume.discard(part)
    bucket = volume.create_bucket(b"bucket", 0, 0).inode
    for staged, name in ((first, b"1"), (second, b"2")):
        volume.publish(staged, bucket, [name], S3Record(etag="e"))
    volume.write(first, 50_000, b"x" * 100_000)
    volume.write(first, 60_000, b"yy")
    volume.truncate(second, 10)
    volume.truncate(second, 20)
    assert read(volume, first) == A[:50_000] + b"x" * 10_000 + b"yy" + b"x" * 89_998 + A[:50_000]
    assert read(volume, second) == A[:10] + bytes(10)
    check(volume)


def test_content_files_live_until_nothing_refers_to_them(volume: Volume) -> None:
    part = stage(volume, A)
    first, second = joined(volume, part), joined(volume, part)
    volume.discard(part)
    volume.discard(first)
    volume.commit()
    assert read(volume, second) == A
    assert stored(volume) >= len(A)
    volume.discard(second)
    volume.commit()
    volume.background()
    assert stored(volume) == 0


def test_what_was_joined_survives_a_crash_after_the_commit(volume: Volume, tmp_path: Path) -> None:
    parts = [stage(volume, data) for data in (A, SMALL, B)]
    whole = joined(volume, *parts)
    publish(volume, whole)  # the parts are still staged when the crash comes
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    assert read(copy, copy.resolve([b"bucket", b"k"]).inode) == A + SMALL + B
    check(copy)
    files = [path for path in (copy.directory / "content").rglob("*") if path.is_file()]
    assert len(files) == 3, "of the orphaned parts only stays what is shared, and the inline bytes got a file"
    copy.close()


def test_what_was_joined_is_packed_evicted_and_fetched(volume: Volume) -> None:
    whole = joined(volume, stage(volume, A), stage(volume, SMALL), stage(volume, B))
    publish(volume, whole)
    packer = Packer()
    assert packer.pack_all(volume) == 1
    assert volume.getattr(whole).blocks * 512 >= len(A + B)
    volume.evict([whole])
    check(volume)
    assert packer.read(volume, whole, 99_000, 3000) == (A + SMALL + B)[99_000:102_000]
    assert packer.read(volume, whole, 0, 1 << 20) == A + SMALL + B
    assert volume.record(whole).current  # type: ignore[union-attr]
    check(volume)


def test_bytes_that_only_packs_have_are_shared_too(volume: Volume) -> None:
    source = new(volume, b"f").inode
    volume.write(source, 0, A)
    packer = Packer()
    packer.pack_all(volume)
    volume.evict([source])
    staged = volume.stage(0, 0)
    volume.concat(staged, [(source, 100, 1000)])
    assert volume.read(staged, 0, 10).missing
    assert packer.read(volume, staged, 0, 5000) == A[:1000]
    volume.discard(staged)


def test_what_cannot_be_joined_is_refused_and_changes_nothing(volume: Volume) -> None:
    source, named, staged = stage(volume, A), new(volume, b"f").inode, volume.stage(0, 0)
    refused(errno.EINVAL, lambda: volume.concat(named, [(source, 0, 1)]))
    refused(errno.EINVAL, lambda: volume.concat(staged, [(source, 0, 10), (source, 1, len(A))]))
    refused(errno.EINVAL, lambda: volume.concat(staged, [(staged, 0, 0)]))
    refused(errno.EISDIR, lambda: volume.concat(staged, [(ROOT, 0, 0)]))
    refused(errno.ENOENT, lambda: volume.concat(staged, [(Inode(12345), 0, 0)]))
    assert volume.getattr(staged).size == 0
    volume.discard(staged)


def test_files_beyond_a_window_continue_in_other_content_files(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "WINDOW_SIZE", 50_000)
    inode = new(volume, b"f").inode
    volume.write(inode, 0, A)
    volume.write(inode, 20_000, b"x" * 60_000)
    volume.write(inode, 1 << 61, b"far")
    assert read(volume, inode) == A[:20_000] + b"x" * 60_000 + A[:20_000] + bytes((1 << 20) - len(A))
    assert read(volume, inode, 1 << 61, 9) == b"far"
    assert max(path.stat().st_size for path in (volume.directory / "content").rglob("*")) <= 50_000
    directory = volume.directory
    volume.close()
    again = Volume(directory)
    assert read(again, inode, 19_990, 20) == b"A" * 10 + b"x" * 10
    assert read(again, inode, (1 << 61) + 1, 9) == b"ar"
    assert again.getattr(inode).blocks < 1000
    again.truncate(inode, 70_000)
    again.truncate(inode, 1 << 40)
    again.commit()
    assert read(again, inode, 60_000, 20_000) == b"x" * 10_000 + bytes(10_000)
    check(again)
    again.close()
