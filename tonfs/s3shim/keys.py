"""Access keys of the S3 door, and which buckets are public: a small sealed file, read anew when it changes.

`keys/s3.json` (mode 0600 in a directory of mode 0700) is replaced as a whole. S3 signatures need the secret itself, so
it is encrypted, not hashed: AES-256-GCM under a key derived from a key file beside it, or wherever the setting
`s3.key_file` says. docs/formats.md has the format; version 1, which was plain, is read and sealed at the first chance.
"""

from __future__ import annotations

import base64
import fcntl
import json
import math
import os
import secrets
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..clock import Clock, SystemClock
from ..config import S3Settings
from ..errors import Damaged, NotFound, UsageError
from ..ids import Secret

FILE_NAME: Final = "s3.json"
KEY_FILE_NAME: Final = "s3.key"
VERSION: Final = 2
_PURPOSE: Final = b"s3 access keys 2"
MAX_PUBLIC: Final = 1000
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


def anonymous_reader(bucket: str) -> AccessKey:
    """What a request without any signature may do in a public bucket."""
    return AccessKey("", Secret(b""), bucket, Rights.READ, 0.0)


@dataclass(frozen=True)
class _State:
    keys: Mapping[str, AccessKey]
    public: frozenset[str]


_EMPTY: Final = _State({}, frozenset())


class KeyStore:
    """The access keys in a directory. Safe for several processes."""

    def __init__(
        self, directory: Path, clock: Clock | None = None, *, key_file: Path | None = None, patience: float = 0.0
    ) -> None:
        """`patience`: seconds between two looks whether another process has changed the file; 0 looks each time."""
        self._path = directory / FILE_NAME
        self._key_path = key_file or directory / KEY_FILE_NAME
        self._clock = clock or SystemClock()
        self._patience = patience
        self._looked = -math.inf
        self._stamp: tuple[int, int, int] | None = None
        self._state = _EMPTY

    def find(self, access_key: str) -> AccessKey | None:
        """Raises Damaged."""
        return self._load().keys.get(access_key)

    def is_public(self, bucket: str) -> bool:
        """May anybody read this bucket? Raises Damaged."""
        return bucket in self._load().public

    def list(self) -> list[AccessKey]:
        """Oldest first. Raises Damaged."""
        return sorted(self._load(now=True).keys.values(), key=lambda key: (key.created, key.access_key))

    def public(self) -> Sequence[str]:
        """The public buckets by name. Raises Damaged."""
        return sorted(self._load(now=True).public)

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
            state = self._load(now=True)
            if len(state.keys) >= MAX_KEYS:
                raise UsageError(f"There are {MAX_KEYS} access keys already.", hint="Revoke some first.")
            self._save(_State({**state.keys, made.access_key: made}, state.public))
        return made

    def revoke(self, access_key: str) -> None:
        """Raises NotFound, Damaged."""
        with self._locked():
            state = self._load(now=True)
            keys = dict(state.keys)
            if keys.pop(access_key, None) is None:
                raise NotFound(f"There is no access key {access_key}.", hint="'tonfs s3 key list' shows them.")
            self._save(_State(keys, state.public))

    def set_public(self, bucket: str, public: bool) -> None:
        """Let anybody read a bucket, or not any more. Raises Damaged, UsageError, NotFound when it was not public."""
        with self._locked():
            state = self._load(now=True)
            if not public and bucket not in state.public:
                raise NotFound(
                    f"The bucket {bucket} is not public.", hint="'tonfs s3 public list' shows those that are."
                )
            if public and len(state.public) >= MAX_PUBLIC:
                raise UsageError(f"There are {MAX_PUBLIC} public buckets already.")
            self._save(_State(state.keys, state.public | {bucket} if public else state.public - {bucket}))

    def migrate(self) -> None:
        """Seal a file that an older tonfs wrote in plain. Raises Damaged."""
        with self._locked():
            self._load(now=True)
            if self._path.exists() and json.loads(self._path.read_bytes())["version"] != VERSION:
                self._save(self._state)

    # The file.

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _load(self, now: bool = False) -> _State:
        moment = time.monotonic()
        if not now and moment < self._looked + self._patience:
            return self._state
        self._looked = moment
        try:
            info = os.stat(self._path)
        except FileNotFoundError:
            self._stamp, self._state = None, _EMPTY
            return self._state
        stamp = (info.st_mtime_ns, info.st_ino, info.st_size)
        if stamp != self._stamp:
            self._state = self._parse(self._path.read_bytes())
            self._stamp = stamp
        return self._state

    def _parse(self, data: bytes) -> _State:
        try:
            value = json.loads(data)
            if value["version"] == VERSION:
                value = json.loads(self._open(value))
            elif value["version"] != 1:
                raise ValueError("unknown version")
            keys = [_read(item) for item in value["keys"]]
            public = frozenset(str(name) for name in value.get("public", ()))
        except (ValueError, KeyError, TypeError, AttributeError, UsageError, InvalidTag) as exc:
            raise Damaged(
                f"{self._path} is not a file of access keys that {self._key_path} opens.",
                hint="Bring back the key file, or remove both and make new access keys.",
            ) from exc
        return _State({key.access_key: key for key in keys}, public)

    def _save(self, state: _State) -> None:
        plain = {"keys": [_write(key) for key in state.keys.values()], "public": sorted(state.public)}
        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self._sealing_key(make=True)).encrypt(nonce, json.dumps(plain).encode(), _PURPOSE)
        value = {"version": VERSION, "nonce": nonce.hex(), "sealed": base64.b64encode(sealed).decode("ascii")}
        _write_private(self._path, json.dumps(value) + "\n")
        self._looked = -math.inf

    def _open(self, value: Mapping[str, Any]) -> bytes:
        nonce, sealed = bytes.fromhex(value["nonce"]), base64.b64decode(value["sealed"], validate=True)
        return AESGCM(self._sealing_key(make=False)).decrypt(nonce, sealed, _PURPOSE)

    def _sealing_key(self, *, make: bool) -> bytes:
        """Raises Damaged when there is none (and `make` is not said), or when others may read it."""
        try:
            if self._key_path.stat().st_mode & 0o077:
                raise Damaged(f"Others may read {self._key_path}.", hint=f"Run 'chmod 600 {self._key_path}'.")
            secret = bytes.fromhex(self._key_path.read_text(encoding="ascii"))
        except FileNotFoundError:
            if not make:
                raise Damaged(
                    f"The key file {self._key_path} is missing, so the access keys cannot be read.",
                    hint="Bring it back, or remove s3.json and make new access keys.",
                ) from None
            secret = secrets.token_bytes(32)
            _write_private(self._key_path, secret.hex() + "\n")
        except (OSError, ValueError) as exc:
            raise Damaged(f"The key file {self._key_path} cannot be read.", hint="Bring it back.") from exc
        if len(secret) != 32:
            raise Damaged(f"The key file {self._key_path} does not hold 64 hex digits.", hint="Bring it back.")
        return HKDF(hashes.SHA256(), 32, None, _PURPOSE).derive(secret)


def open_store(volume: Path, settings: S3Settings, *, patience: float = 0.0) -> KeyStore:
    """The keys of a volume, by its settings."""
    key_file = Path(settings.key_file).expanduser() if settings.key_file else None
    return KeyStore(volume / "keys", key_file=key_file, patience=patience)


def _write_private(path: Path, text: str) -> None:
    """Whole or not there, also after a crash; only for its owner."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
