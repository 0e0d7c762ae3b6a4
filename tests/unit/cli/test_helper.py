"""Links for mount(8) and unit files for systemd."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.test_pages import complaint
from tonfs.cli import helper
from tonfs.errors import Refused

KINDS = ("user", "system")


def test_links_lead_to_the_programs_of_this_tonfs(tmp_path: Path) -> None:
    helper.install(tmp_path)
    helper.install(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(helper.LINKS)
    for name, target in helper.installed(tmp_path).items():
        assert target is not None
        assert os.access(target, os.X_OK), name
    assert len(helper.remove(tmp_path)) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "mount.tonfs").write_text("somebody else's", encoding="ascii")
    with pytest.raises(Refused, match="not a link of tonfs"):
        helper.install(tmp_path)
    assert helper.remove(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["mount.tonfs"]


@pytest.mark.parametrize("kind", KINDS)
def test_units_call_verbs_that_exist_by_the_path_of_this_tonfs(kind: str) -> None:
    lines = [line for _, text in helper.units(kind) for line in text.splitlines() if line.startswith("ExecStart=")]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.partition("=")[2])
        assert Path(words[0]) == helper.programs() / "tonfs"
        assert complaint(["tonfs", *words[1:]], whole=True) is None


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_accepts_the_units(kind: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    names = []
    for path in helper.write_units(kind, tmp_path):
        name = path.name.replace("@.", "@x.")
        path.rename(tmp_path / name)
        names.append(str(tmp_path / name))
    words = ["systemd-analyze", f"--{kind}", "verify", "--man=no", *names]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env={**os.environ,
                          "XDG_RUNTIME_DIR": str(tmp_path)})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
