"""The shared vocabulary: amounts, errors, settings, logs."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs import config, errors, ids, log
from tonfs.errors import NotFound, TonfsError, UsageError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.05", 50_000_000),
        ("0.05 TON", 50_000_000),
        ("50000000n", 50_000_000),
        ("3", 3 * 10**9),
        ("1.000000001", 10**9 + 1),
    ],
)
def test_amounts_are_read_exactly(text: str, amount: int) -> None:
    assert ids.parse_ton(text) == amount


@pytest.mark.parametrize("text", ["", "-1", "1e9", "0.0000000001", "1,5", "TON", "NaN", "1 n"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        ids.parse_ton(text)


@given(st.integers(0, 10**18))
def test_an_amount_survives_printing(amount: int) -> None:
    assert ids.parse_ton(ids.format_ton(amount)) == amount


def test_a_secret_does_not_show_itself() -> None:
    secret = ids.Secret(b"hunter2")
    assert "hunter2" not in f"{secret} {secret!r}"
    assert secret.reveal() == b"hunter2"


def test_every_error_has_a_code_of_its_own_and_an_explanation() -> None:
    classes = errors._tree(TonfsError)
    assert len({c.code for c in classes}) == len(classes)
    assert all(c.__doc__ for c in classes)
    assert all(c.exit_code in (1, 2, 3, 4, 5, 6, 7) for c in classes)


def test_an_error_that_crossed_a_socket_is_the_same_error() -> None:
    for cls in errors._tree(TonfsError):
        again = errors.from_code(cls.code, "what happened", "what to do")
        assert type(again) is cls
        assert (again.message, again.hint) == ("what happened", "what to do")
    assert type(errors.from_code("TF9999", "x")) is TonfsError


def test_secrets_are_hidden_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log.get_logger("tonfs.test").info("made", words="abandon ability", key_id="k", token=ids.Secret(b"s"))
    (record,) = caplog.records
    assert record.fields == {"words": "***", "key_id": "k", "token": "***"}  # type: ignore[attr-defined]


def write(volume: Path, text: str) -> Path:
    volume.mkdir(exist_ok=True)
    (volume / "config.toml").write_text(text, encoding="utf-8")
    return volume


def test_later_sources_win_and_say_where_they_came_from(tmp_path: Path) -> None:
    volume = write(tmp_path / "v", 'network = "devnet"\n[policy.replica]\nreplicas = 3\n[peer]\npacket_loss = 0.5\n')
    settings, origins = config.load(volume, env={"TONFS_PEER__PACKET_LOSS": "0.02", "TONFS_VOLUME": "x"})
    assert settings.policy.replica.replicas == 3
    assert settings.peer.packet_loss == 0.02
    assert origins["peer.packet_loss"] == "environment"
    assert origins["policy.replica.replicas"].endswith("config.toml")
    settings, _ = config.load(volume, env={}, options={"peer": {"packet_loss": 0.0}})
    assert settings.peer.packet_loss == 0.0


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    volume = write(tmp_path / "v", "[policy.replica]\nreplica = 3\n")
    with pytest.raises(UsageError) as caught:
        config.load(volume, env={})
    assert "policy.replica.replica" in caught.value.message
    assert "'replicas'" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        'network = "moonnet"\n',
        "network = 5\n",
        'network = "mainnet"\n[peer]\npacket_loss = 0.1\n',
        "[peer]\nupload_limit = -1\n",
        "[peer]\nupload_limit_per_peer = -1\n",
        "[policy.replica]\nreplicas = 0\n",
        "[policy.replica]\nreplicas = true\n",
        'policy = "x"\n',
        "[policy.pack]\ntarget_size = 1\n",
        "not toml at all [",
    ],
)
def test_bad_settings_are_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        config.load(write(tmp_path / "v", text), env={})


def test_a_missing_volume_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        config.load(tmp_path / "none", env={})
    assert "tonfs init" in caught.value.hint


def test_a_rendered_file_reads_back(tmp_path: Path) -> None:
    text = config.render({"network": "none", "plain": True, "peer": {"listen": '127.0.0.1:"0"'}})
    settings, _ = config.load(write(tmp_path / "v", text), env={})
    assert (settings.network, settings.plain, settings.peer.listen) == ("none", True, '127.0.0.1:"0"')


def test_names_and_paths_of_volumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("TONFS_VOLUME", raising=False)
    assert config.volume_path(None) == tmp_path / "tonfs" / "default"
    assert config.volume_path("photos") == tmp_path / "tonfs" / "photos"
    assert config.volume_path("/srv/v") == Path("/srv/v")
    with pytest.raises(UsageError):
        config.volume_path("..")


def test_a_read_only_disk_is_no_matter_of_users() -> None:
    from tonfs.system import from_os

    told = from_os(OSError(errno.EROFS, "Read-only file system", "/v/log"), "The volume /v cannot be written")
    assert told.message == "The volume /v cannot be written: Read-only file system (/v/log)."
    assert "writable" in told.hint
    assert "user" in from_os(PermissionError(errno.EACCES, "Permission denied", "/v/log")).hint
