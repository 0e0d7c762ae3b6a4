from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.volume.helpers import Packer, check, crash_copy, dump, everything
from tonfs.errors import Busy, FsError
from tonfs.volume import ROOT, Volume


def test_first(tmp_path: Path) -> None:
    d = tmp_path / "v"
    d.mkdir()
    v = Volume(d)
    a = v.create(ROOT, b"a", 0o644, 0, 0)
    v.write(a.inode, 0, b"hello")
    v.write(a.inode, 10000, b"world")
    m = v.mkdir(ROOT, b"m", 0o755, 0, 0)
    v.rename(ROOT, b"a", m.inode, b"b")
    with pytest.raises(Busy):
        Volume(d)
    check(v)
    p = Packer()
    before = dump(v)
    assert p.pack_all(v) == 1
    check(v)
    assert dump(v) == before
    e = v.evict(everything(v))
    assert e.files == 1
    check(v)
    with pytest.raises(AssertionError):
        assert dump(v, Packer({k: b"" for k in p.packs})) == before
    assert dump(v, p) == before
    check(v)
    v.write(a.inode, 3, b"XYZ")
    assert p.read(v, a.inode, 0, 8) == b"helXYZ\0\0"
    check(v)
    c = crash_copy(d, tmp_path / "c")
    v.close()
    w = Volume(c)
    check(w)
    assert p.read(w, a.inode, 0, 8) == b"helXYZ\0\0"
    with pytest.raises(FsError) as exc:
        w.rmdir(ROOT, b"m")
    assert exc.value.errno == errno.ENOTEMPTY
    w.close()
