"""Access keys of the S3 door: a small file beside the volume's other keys, read anew when it changes.

`keys/s3.json` (mode 0600 in a directory of mode 0700) is replaced as a whole, so `tonfs s3 key new` and `revoke` take
effect at once in a running door, and work without one. S3 signatures need the secret itself, so it is kept readable.

    {"version": 1, "keys": [{"access_key", "secret_key", "bucket", "rights", "created"}]}
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from ..clock import Clock, SystemClock
from ..errors import Damaged, NotFound, UsageError
from ..ids import Secret

FILE_NAME: Final = "s3.json"
MAX_KEYS: Final = 1000
_ALPHABET: Final = string.ascii_uppercase + "234567"


class Rights(IntEnum):
    """Each includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3
    """Buckets are made and removed, too."""

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, word: str) -> Rights:
        """Raises UsageError."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise UsageError(f"{word!r} is not a right.", hint="Use read, write or admin.") from None


@dataclass(frozen=True)
class AccessKey:
    """`bucket`: the only one it opens; "" opens all."""

    access_key: str
    secret_key: Secret
    bucket: str
    rights: Rights
    created: float

    def allows(self, bucket: str, wanted: Rights) -> bool:
        return self.rights >= wanted and self.bucket in ("", bucket)


class KeyStore:
    """The access keys in a directory. Safe for several processes; `find` costs one stat when nothing changed."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self._path = directory / FILE_NAME
        self._clock = clock or SystemClock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, AccessKey] = {}

    def find(self, access_key: str) -> AccessKey | None:
        """Raises Damaged."""
        return self._load().get(access_key)

    def list(self) -> list[AccessKey]:
        """Oldest first. Raises Damaged."""
        return sorted(self._load().values(), key=lambda key: (key.created, key.access_key))

    def new(self, bucket: str = "", rights: Rights = Rights.ADMIN) -> AccessKey:
        """Make a key; it works as soon as this returns. Raises Damaged, UsageError when there are too many."""
        made = AccessKey(
            access_key="TF" + "".join(secrets.choice(_ALPHABET) for _ in range(18)),
            secret_key=Secret(secrets.token_urlsafe(30).encode()),
            bucket=bucket,
            rights=rights,
            created=self._clock.now(),
        )
        with self._locked():
            keys = dict(self._load())
            if len(keys) >= MAX_KEYS:
                raise UsageError(f"There are {MAX_KEYS} access keys already.", hint="Revoke some first.")
            keys[made.access_key] = made
            self._save(keys)
        return made

    def revoke(self, access_key: str) -> None:
        """Raises NotFound, Damaged."""
        with self._locked():
            keys = dict(self._load())
            if keys.pop(access_key, None) is None:
                raise NotFound(f"There is no access key {access_key}.", hint="'tonfs s3 key list' shows them.")
            self._save(keys)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _load(self) -> dict[str, AccessKey]:
        try:
            info = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._keys = None, {}
            return self._keys
        stamp = (info.st_mtime_ns, info.st_ino, info.st_size)
        if stamp != self._stamp:
            self._keys = self._parse(self._path.read_bytes())
            self._stamp = stamp
        return self._keys

    def _parse(self, data: bytes) -> dict[str, AccessKey]:
        try:
            value = json.loads(data)
            if value["version"] != 1:
                raise ValueError("unknown version")
            keys = [_read(item) for item in value["keys"]]
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as exc:
            raise Damaged(
                f"{self._path} is not a file of access keys.", hint="Remove it and make new access keys."
            ) from exc
        return {key.access_key: key for key in keys}

    def _save(self, keys: dict[str, AccessKey]) -> None:
        value = {"version": 1, "keys": [_write(key) for key in keys.values()]}
        temporary = self._path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(item: dict[str, Any]) -> AccessKey:
    return AccessKey(
        access_key=str(item["access_key"]),
        secret_key=Secret(item["secret_key"].encode()),
        bucket=str(item["bucket"]),
        rights=Rights.parse(item["rights"]),
        created=float(item["created"]),
    )


def _write(key: AccessKey) -> dict[str, Any]:
    return {
        "access_key": key.access_key,
        "secret_key": key.secret_key.reveal().decode(),
        "bucket": key.bucket,
        "rights": key.rights.word,
        "created": key.created,
    }
