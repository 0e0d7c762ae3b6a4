"""`tonfs policy`, `pin` and `unpin` on a real mount."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from .front import tonfs

pytestmark = pytest.mark.root


def shown(path: Path) -> dict[str, Any]:
    policies: dict[str, Any] = json.loads(tonfs("policy", "show", str(path), "--json").stdout)["policies"]
    return policies


def test_policies_are_handed_down_and_taken_back(mnt: Path, tmp_path: Path) -> None:
    (mnt / "a" / "b").mkdir(parents=True)
    file = mnt / "a" / "b" / "file"
    file.touch()
    tonfs("pin", str(mnt / "a"))
    assert shown(file) == {"pin": {"value": "true", "from": str(mnt / "a")}}
    assert os.getxattr(mnt / "a", "user.tonfs.policy.pin") == b"true"
    tonfs("unpin", str(file))
    assert shown(file) == {"pin": {"value": "false", "from": str(file)}}
    tonfs("policy", "unset", str(file), "pin")
    tonfs("unpin", str(mnt / "a"))
    assert shown(file) == {}
    tonfs("policy", "set", str(mnt / "a"), "replicas=3")
    assert shown(file) == {"replicas": {"value": "3", "from": str(mnt / "a")}}
    tonfs("policy", "unset", str(mnt / "a"), "replicas")
    assert shown(file) == {}
    assert tonfs("policy", "set", str(file), "replicas=0", check=False).returncode == 2
    wrong = tonfs("policy", "set", str(file), "deadline=10m", check=False)
    assert (wrong.returncode, "TF0010" in wrong.stderr) == (2, True)
    assert tonfs("pin", str(tmp_path), check=False).returncode == 3
    with pytest.raises(OSError, match="Invalid argument") as caught:
        os.setxattr(file, "user.tonfs.policy.pin", b"perhaps")
    assert caught.value.errno == errno.EINVAL
