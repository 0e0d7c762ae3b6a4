from __future__ import annotations

import stat

import pytest

from tonfs.clock import ManualClock
from tonfs.errors import Damaged, NotFound, UsageError
from tonfs.s3shim.keys import KeyStore, Rights


def test_a_new_key_is_found_at_once_by_another_store(tmp_path):
    running, cli = KeyStore(tmp_path), KeyStore(tmp_path, ManualClock(1000))
    assert running.find("x") is None
    made = cli.new()
    found = running.find(made.access_key)
    assert found is not None
    assert found.secret_key.reveal() == made.secret_key.reveal()
    assert (found.rights, found.bucket, found.created) == (Rights.ADMIN, "", 1000)
    cli.revoke(made.access_key)
    assert running.find(made.access_key) is None


def test_keys_are_private_and_secrets_are_not_shown(tmp_path):
    made = KeyStore(tmp_path / "keys").new()
    path = tmp_path / "keys" / "s3.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert made.secret_key.reveal().decode() not in repr(made)
    assert len(made.secret_key.reveal()) == 40
    assert len(made.access_key) == 20


def test_rights_include_each_other_and_stop_at_the_bucket(tmp_path):
    store = KeyStore(tmp_path)
    reader, writer = store.new("pics", Rights.READ), store.new("", Rights.WRITE)
    assert reader.allows("pics", Rights.READ)
    assert not reader.allows("pics", Rights.WRITE)
    assert not reader.allows("other", Rights.READ)
    assert writer.allows("other", Rights.READ)
    assert not writer.allows("other", Rights.ADMIN)
    assert [key.access_key for key in store.list()] == sorted(
        (reader.access_key, writer.access_key), key=lambda k: (store.find(k).created, k)
    )
    with pytest.raises(UsageError):
        Rights.parse("owner")


def test_an_unknown_key_cannot_be_revoked(tmp_path):
    with pytest.raises(NotFound):
        KeyStore(tmp_path).revoke("nobody")


def test_a_broken_file_is_damage_and_stays_as_it_is(tmp_path):
    for text in ("", "{", "[]", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{}]}', '{"version":1,"keys":5}'):
        (tmp_path / "s3.json").write_text(text, encoding="utf-8")
        with pytest.raises(Damaged):
            KeyStore(tmp_path).find("x")
        with pytest.raises(Damaged):
            KeyStore(tmp_path).new()
        assert (tmp_path / "s3.json").read_text(encoding="utf-8") == text
