"""Listings against a model: sort all keys, apply the words of S3's documents."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tonfs.cli.init import make_volume
from tonfs.ids import Inode
from tonfs.s3shim.listing import Item, Lister
from tonfs.volume import ROOT, S3Record, Volume

RECORD = S3Record("e")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    make_volume(tmp_path / "v", network="none")
    volume = Volume(tmp_path / "v")
    yield volume
    volume.close()


def put(volume: Volume, bucket: Inode, key: str) -> None:
    parts = key.encode().rstrip(b"/").split(b"/")
    if key.endswith("/"):
        volume.put_marker(bucket, parts, RECORD, 0, 0)
    else:
        volume.publish(volume.stage(0, 0), bucket, parts, RECORD)


def model(keys: list[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """Keys and common prefixes (marked with a leading *)."""
    out: list[str] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        shown = key if end < 0 else "*" + key[: end + len(delimiter)]
        if shown.lstrip("*").encode() > after.encode() and key.encode() > after.encode() and shown not in out:
            out.append(shown)
    return out


def shown(items: list[Item]) -> list[str]:
    return [("*" if item.is_prefix else "") + item.key.decode() for item in items]


def pages(volume: Volume, bucket: Inode, prefix: str, delimiter: str, after: str, count: int) -> list[str]:
    out: list[str] = []
    position, more = after.encode(), True
    while more:
        lister = Lister(volume, bucket, prefix.encode(), delimiter.encode(), first=count + 1)
        items, more = lister.page(position, count)
        assert len(items) == count or not more
        out += shown(items)
        position = items[-1].key if items else position
    return out


KEYS = ["a", "a-b", "a.b", "a0", "b/", "b/c", "b/c0", "b/d/e", "b/d-e", "b0", "foo/bar/baz", "foo/baz", "é/ü", "z z"]


@pytest.mark.parametrize("delimiter", ["", "/", "-", "ba", "é"])
@pytest.mark.parametrize("prefix", ["", "a", "b", "b/", "b/d", "b/d/", "foo", "foo/b", "x", "b//", "../", "./", "é"])
def test_every_prefix_delimiter_start_and_page_size(volume, prefix, delimiter):
    bucket = volume.create_bucket(b"bkt", 0, 0).inode
    for key in reversed(KEYS):
        put(volume, bucket, key)
    for after in ("", "a", "a-", "a/", "b", "b/", "b/c", "b/d", "b/d/", "b/d/e", "b/x", "c", "foo/bar/a", "zz", "../a"):
        expected = model(KEYS, prefix, delimiter, after)
        for count in (1, 2, 3, 100):
            assert pages(volume, bucket, prefix, delimiter, after, count) == expected, (after, count)


SEGMENT = st.text(alphabet="ab-0é", min_size=1, max_size=2)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(SEGMENT, min_size=1, max_size=4).map("/".join), max_size=12),
    st.text(alphabet="ab-0é/", max_size=3),
    st.sampled_from(["", "/", "a", "-", "/a"]),
    st.text(alphabet="ab-0é/", max_size=4),
    st.integers(1, 5),
)
def test_any_keys(names, prefix, delimiter, after, count):
    directory = Path(tempfile.mkdtemp())
    try:
        make_volume(directory / "v", network="none")
        volume = Volume(directory / "v")
        bucket = volume.create_bucket(b"bkt", 0, 0).inode
        keys: list[str] = []
        for name in dict.fromkeys(names):
            parts = name.split("/")
            above = {"/".join(parts[:i]) for i in range(1, len(parts))}
            if above & set(keys) or any(key.startswith(name + "/") for key in keys):
                continue
            put(volume, bucket, name)
            keys.append(name)
        assert pages(volume, bucket, prefix, delimiter, after, count) == model(keys, prefix, delimiter, after)
        volume.close()
    finally:
        shutil.rmtree(directory)


def test_only_files_and_directories_that_lead_somewhere_are_shown(volume):
    bucket = volume.create_bucket(b"bkt", 0, 0).inode
    volume.symlink(bucket, b"link", b"target", 0, 0)
    volume.create(bucket, b"fifo", 0o010644, 0, 0)
    volume.create(bucket, b"\xff\xfe", 0o100644, 0, 0)
    only_links = volume.mkdir(bucket, b"links", 0o755, 0, 0).inode
    volume.symlink(only_links, b"l", b"t", 0, 0)
    volume.mkdir(bucket, b"empty", 0o755, 0, 0)
    deep = volume.mkdir(bucket, b"deep", 0o755, 0, 0).inode
    volume.mkdir(deep, b"below", 0o755, 0, 0)
    put(volume, bucket, "file")
    assert pages(volume, bucket, "", "", "", 10) == ["deep/below/", "empty/", "file"]
    assert pages(volume, bucket, "", "/", "", 10) == ["*deep/", "*empty/", "file"]
    assert pages(volume, bucket, "empty/", "/", "", 10) == ["empty/"]


def test_a_deep_path_needs_no_deep_stack(volume):
    bucket = volume.create_bucket(b"bkt", 0, 0).inode
    key = "d/" * 510 + "e"
    put(volume, bucket, key)
    assert pages(volume, bucket, "", "", "", 10) == [key]
    inode = bucket
    for part in ["d"] * 510:
        inode = volume.lookup(inode, part.encode()).inode
    beyond = volume.mkdir(inode, b"d" * 20, 0o755, 0, 0).inode
    volume.create(beyond, b"too far for a key", 0o100644, 0, 0)
    assert pages(volume, bucket, "", "", "", 10) == [key]


def test_a_prefix_cannot_leave_the_bucket(volume):
    volume.create_bucket(b"other", 0, 0)
    bucket = volume.create_bucket(b"bkt", 0, 0).inode
    put(volume, volume.lookup(ROOT, b"other").inode, "secret")
    for prefix in ("../", "../other/", "./", "..", "/"):
        assert pages(volume, bucket, prefix, "", "", 10) == []
        assert pages(volume, bucket, "", "", prefix + "other/", 10) == []


@pytest.fixture
def read(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries each call of the volume gave."""
    counts: list[int] = []
    real = volume.list_objects

    def counted(*args: object, **kwargs: object) -> object:
        entries = real(*args, **kwargs)  # type: ignore[arg-type]
        counts.append(len(entries))
        return entries

    monkeypatch.setattr(volume, "list_objects", counted)
    return counts


def test_a_page_of_a_large_directory_reads_only_that_page(volume, read):
    bucket = volume.create_bucket(b"bkt", 0, 0).inode
    for number in range(300):
        put(volume, bucket, f"k{number:04}")
    items, more = Lister(volume, bucket, first=11).page(b"k0150", 10)
    assert next(item.key for item in items) == b"k0151"
    assert more
    assert read == [11]


def test_a_page_among_many_directories_reads_few_of_them(volume, read):
    bucket = volume.create_bucket(b"bkt", 0, 0).inode
    for number in range(200):
        put(volume, bucket, f"d{number:03}/k")
    items, more = Lister(volume, bucket, first=101).page(b"d050/k", 4)
    assert [item.key for item in items] == [b"d051/k", b"d052/k", b"d053/k", b"d054/k"]
    assert more
    assert sum(read) <= 16
