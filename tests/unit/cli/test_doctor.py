from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tonfs.cli import doctor, helper


@pytest.fixture(autouse=True)
def _a_machine_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbin").mkdir()
    (tmp_path / "units").mkdir()
    monkeypatch.setattr(helper, "SBIN", tmp_path / "sbin")
    monkeypatch.setattr(helper, "unit_directory", lambda kind: tmp_path / "units" / kind)


def told() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor._at_home()}


def test_without_helper_and_units_nothing_is_wrong_and_the_way_is_named() -> None:
    assert all(check.ok for check in told().values())
    assert "tonfs helper install" in told()["mount.tonfs"].found


def test_a_helper_whose_program_is_gone_is_a_fault(tmp_path: Path) -> None:
    helper.install(tmp_path / "sbin")
    assert told()["mount.tonfs"].found == str(helper.programs().resolve() / "mount.tonfs")
    (tmp_path / "sbin" / "mount.tonfs").unlink()
    (tmp_path / "sbin" / "mount.tonfs").symlink_to(tmp_path / "old" / "mount.tonfs")
    assert not told()["mount.tonfs"].ok


def test_a_unit_whose_program_is_gone_is_a_fault(tmp_path: Path) -> None:
    units = tmp_path / "units" / "user"
    units.mkdir()
    (units / "tonfs@.service").write_text(f"[Service]\nExecStart={sys.executable} -m tonfs\n", encoding="ascii")
    assert told()["tonfs@.service"].ok
    (units / "tonfs@.service").write_text("[Service]\nExecStart=/no/such/tonfs mount\n", encoding="ascii")
    assert not told()["tonfs@.service"].ok
    assert "tonfs helper units" in told()["tonfs@.service"].advice
