"""Settings of a provider: one TOML file."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from ..errors import NotFound, UsageError
from ..network.api import UdpAddress

_LIMITS: Final = ("upload_limit", "upload_limit_per_peer")
_INTEGERS: Final = ("rate_per_mb_day", "min_span", "max_span", "space", "max_bag_size", "stall")


@dataclass(frozen=True)
class ProviderConfig:
    """Relative paths are taken from the file's own folder. Times are seconds, sizes bytes, the rate nanoTON."""

    seed_file: Path
    """32 bytes: the provider key, which is the key of its v3r2 wallet too. Made when it does not exist."""
    directory: Path
    """State: provider.db, adnl.key, storage.key, bags/, provider.sock."""
    global_config: Path
    listen: UdpAddress
    announce_ip: str = ""
    """IPv4 address that others reach; empty announces the one listened on."""
    rate_per_mb_day: int = 100_000
    min_span: int = 600
    max_span: int = 172_800
    space: int = 32 << 30
    max_bag_size: int = 4 << 30
    stall: int = 1800
    """A download without progress for this long is given up."""
    upload_limit: int = 0
    """Bytes per second of datagrams that serve bags, to all peers together; 0: no limit."""
    upload_limit_per_peer: int = 0
    """The same to one peer."""

    @property
    def socket(self) -> Path:
        return self.directory / "provider.sock"

    @property
    def bags(self) -> Path:
        return self.directory / "bags"

    def check(self) -> None:
        """Raise UsageError when values make no sense."""
        for name in _INTEGERS:
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be greater than 0.")
        for name in _LIMITS:
            if getattr(self, name) < 0:
                raise UsageError(f"{name} cannot be negative; 0: no limit.")
        if self.min_span > self.max_span:
            raise UsageError("min_span is longer than max_span.")

    @classmethod
    def load(cls, path: Path) -> ProviderConfig:
        """Raises NotFound, UsageError (which names the nearest known key for an unknown one)."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFound(f"There is no file {path}.", hint="Give the provider's settings with --config.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise UsageError(f"{path} is not valid TOML: {exc}.") from None
        known = [field.name for field in fields(cls)]
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
                raise UsageError(f"Unknown setting {key!r} in {path}.", hint=hint)
        for key in ("seed_file", "directory", "global_config", "listen"):
            if key not in table:
                raise UsageError(f"{path} does not say {key}.")
        config = cls(**{key: _value(key, value, path.parent) for key, value in table.items()})
        config.check()
        return config


def _value(key: str, value: object, base: Path) -> Any:
    if key in _INTEGERS or key in _LIMITS:
        if type(value) is not int:
            raise UsageError(f"{key} must be a whole number, not {value!r}.")
        return value
    if not isinstance(value, str):
        raise UsageError(f"{key} must be a text, not {value!r}.")
    if key == "listen":
        return parse_listen(value)
    return value if key == "announce_ip" else base / value


def parse_listen(text: str) -> UdpAddress:
    """`127.0.0.1:18555`. Raises UsageError."""
    host, _, port = text.rpartition(":")
    parts = host.split(".")
    good = len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts)
    if not good or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is not an IPv4 address and port.", hint="Write listen = '127.0.0.1:18555'.")
    return host, int(port)
