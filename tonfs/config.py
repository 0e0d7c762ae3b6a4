"""Settings of a volume: `config.toml`, then `TONFS_*` variables, then options; later wins.

A volume is named and lives in `$XDG_DATA_HOME/tonfs/NAME`, or is a path when it contains `/` (reference cli.md
section 1). Unknown keys are an error that names the nearest match.
"""

from __future__ import annotations

import difflib
import os
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from .errors import NotFound, UsageError, denied
from .policy import MAX_REPLICAS, Policy, devnet_defaults

NETWORKS: Final = ("devnet", "testnet", "mainnet", "none")
SEEDERS: Final = ("", "tonutils-storage", "storage-daemon")
CONFIG_NAME: Final = "config.toml"


@dataclass(frozen=True)
class S3Settings:
    listen: str = "127.0.0.1:8080"
    region: str = "us-east-1"
    tls_certificate: str = ""
    """PEM file with the certificate and its chain; empty: plain HTTP."""
    tls_key: str = ""
    """PEM file with the certificate's key; empty: it is in the certificate's file."""
    remote_without_tls: bool = False
    """With the option of the same name: listen beyond this machine without TLS."""
    unsigned_over_http: bool = False
    """Take bodies that no signature covers over plain HTTP from other machines, too."""
    key_file: str = ""
    """File that opens the stored access keys; empty: `keys/s3.key` in the volume."""
    presigned_v2: bool = True
    """Serve GET and HEAD by URLs signed with Signature Version 2, which older clients still make."""
    replica_headers: bool = False
    """HEAD says in `x-amz-meta-tonfs-*` where the object's bytes are."""
    upload_days: float = 7.0
    """Days after which a multipart upload that was not completed is forgotten."""
    open_uploads: int = 10_000
    """Multipart uploads that may be open at once."""
    parts_share: float = 0.5
    """What parts of open uploads may take of the disk: of the space that is free or that they have already."""


@dataclass(frozen=True)
class MountSettings:
    deadline: float = 60.0
    """Longest wait of a kernel request on the network; then EIO."""


@dataclass(frozen=True)
class PeerSettings:
    listen: str = "127.0.0.1:0"
    """UDP address of the storage peer; port 0 picks a free one."""
    external_ip: str = ""
    """Public IPv4 address to announce; empty announces the listen address if that is not 0.0.0.0."""
    upload_limit: int = 0
    """Bytes per second of datagrams that serve bags, to all peers together; 0: no limit."""
    upload_limit_per_peer: int = 0
    """The same to one peer."""
    packet_loss: float = 0.0
    """Share of datagrams dropped on purpose, for rehearsals. Refused outside the devnet."""
    seeder: str = ""
    """`tonutils-storage` or `storage-daemon`: a daemon that runs here anyway seeds the packs; empty: our own peer."""
    seeder_url: str = "http://127.0.0.1:8192"
    """Where tonutils-storage's HTTP API (its option -api) listens."""
    seeder_login: str = ""
    """Login of that API (-api-login); empty: none."""
    seeder_password_file: str = ""
    """File that holds its password (-api-password)."""
    seeder_control: str = "127.0.0.1:5555"
    """Control port (-p) of storage-daemon."""
    seeder_keys: str = ""
    """Its folder cli-keys, with server.pub and client."""


@dataclass(frozen=True)
class Settings:
    network: str = "devnet"
    plain: bool = False
    """Packs are readable by anyone who has the BagID. Must be said for testnet and mainnet until packs are sealed."""
    global_config: str = ""
    """Path of a TON global.config.json; empty: the devnet's own (devnet), required elsewhere."""
    devnet_state: str = ""
    """State directory of the devnet; empty: `devnet` inside the volume."""
    policy: Policy = field(default_factory=Policy)
    s3: S3Settings = S3Settings()
    mount: MountSettings = MountSettings()
    peer: PeerSettings = PeerSettings()

    def check(self) -> None:
        """Raise UsageError when values contradict each other."""
        if self.network not in NETWORKS:
            raise UsageError(f"Unknown network {self.network!r}.", hint=f"Use one of {', '.join(NETWORKS)}.")
        if self.peer.packet_loss and self.network != "devnet":
            raise UsageError("peer.packet_loss is only for the devnet.", hint="Remove it from config.toml.")
        if not 0.0 < self.s3.upload_days <= 3650.0:
            raise UsageError("s3.upload_days must lie between 0 and 3650.")
        if not 1 <= self.s3.open_uploads <= 1_000_000:
            raise UsageError("s3.open_uploads must lie between 1 and 1,000,000.")
        if not 0.0 < self.s3.parts_share <= 1.0:
            raise UsageError("s3.parts_share must lie between 0 and 1.")
        if not 0.0 <= self.peer.packet_loss < 1.0:
            raise UsageError("peer.packet_loss must lie between 0 and 1.")
        if min(self.peer.upload_limit, self.peer.upload_limit_per_peer) < 0:
            raise UsageError(
                "peer.upload_limit and peer.upload_limit_per_peer cannot be negative.", hint="0: no limit."
            )
        if self.peer.seeder not in SEEDERS:
            raise UsageError(
                f"peer.seeder cannot be {self.peer.seeder!r}.",
                hint=f"Use one of {', '.join(SEEDERS[1:])}.",
            )
        if not 1 <= self.policy.replica.replicas <= MAX_REPLICAS:
            raise UsageError(f"policy.replica.replicas must lie between 1 and {MAX_REPLICAS}.")
        if not 1 << 16 <= self.policy.pack.target_size <= 512 << 20:
            raise UsageError("policy.pack.target_size must lie between 64 KiB and 512 MiB.")


def state_home() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "tonfs"


def volume_path(name: str | None) -> Path:
    """State directory of a volume given by name or path; `None` means `$TONFS_VOLUME` or `default`."""
    word = name or os.environ.get("TONFS_VOLUME") or "default"
    if "/" in word:
        return Path(word).expanduser().absolute()
    if word in {".", ".."} or word.startswith("-"):
        raise UsageError(f"{word!r} is not a volume name.", hint="Use letters and digits, or a path with a slash.")
    return state_home() / word


def defaults_for(network: str) -> Settings:
    return Settings(network=network, policy=devnet_defaults() if network == "devnet" else Policy())


def _nearest(key: str, known: list[str]) -> str:
    match = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {match[0]!r}?" if match else f"Known keys: {', '.join(sorted(known))}."


def _coerce(kind: Any, value: object, where: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if isinstance(value, str) and kind is not str:
        word = value.strip()
        try:
            if kind is bool:
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[word.lower()]
            return kind(word)
        except (KeyError, ValueError):
            raise UsageError(f"{where} needs a value of type {kind.__name__}, not {value!r}.") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where} needs a value of type {kind.__name__}, not {value!r}.")
    return value


def _merge(target: Any, table: Mapping[str, object], origin: str, origins: dict[str, str], prefix: str = "") -> Any:
    hints = get_type_hints(type(target))
    known = [f.name for f in fields(target)]
    changes: dict[str, Any] = {}
    for key, value in table.items():
        where = prefix + key
        if key not in known:
            raise UsageError(f"Unknown setting {where!r} ({origin}).", hint=_nearest(key, known))
        current = getattr(target, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{where} is a table of settings, not a value ({origin}).")
            changes[key] = _merge(current, value, origin, origins, where + ".")
        else:
            changes[key] = _coerce(hints[key], value, where)
            origins[where] = origin
    return replace(target, **changes)


def _from_environment(env: Mapping[str, str], settings: Settings) -> dict[str, Any]:
    """`TONFS_PEER__PACKET_LOSS=0.02` sets `peer.packet_loss`; double underscores separate tables."""
    out: dict[str, Any] = {}
    names = {f.name for f in fields(settings)}
    for variable, value in env.items():
        if not variable.startswith("TONFS_"):
            continue
        parts = variable[len("TONFS_") :].lower().split("__")
        if parts[0] not in names:
            continue  # TONFS_VOLUME, TONFS_DEBUG and friends are not settings
        node = out
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = value
    return out


def load(
    volume: Path, env: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None
) -> tuple[Settings, dict[str, str]]:
    """Settings of a volume and, for each key that is not a default, where its value came from.

    Raises NotFound when the volume does not exist, UsageError on a bad file or value.
    """
    path = volume / CONFIG_NAME
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no volume at {volume}.", hint="Make one with 'tonfs init'.") from None
    except PermissionError as exc:
        raise denied(exc) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} is not valid TOML: {exc}.", hint="Correct the file.") from None
    origins: dict[str, str] = {}
    network = table.get("network", "devnet")
    settings = defaults_for(network if isinstance(network, str) else "devnet")
    settings = _merge(settings, table, str(path), origins)
    environment = _from_environment(os.environ if env is None else env, settings)
    settings = _merge(settings, environment, "environment", origins)
    settings = _merge(settings, options or {}, "option", origins)
    settings.check()
    return settings, origins


def render(values: Mapping[str, Any]) -> str:
    """A config.toml with these values; tables may nest."""
    plain = [f"{k} = {toml(v)}" for k, v in values.items() if not isinstance(v, Mapping)]
    tables: list[str] = []

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        tables.append(f"\n[{prefix}]")
        tables.extend(f"{k} = {toml(v)}" for k, v in table.items() if not isinstance(v, Mapping))
        for k, v in table.items():
            if isinstance(v, Mapping):
                walk(f"{prefix}.{k}", v)

    for key, value in values.items():
        if isinstance(value, Mapping):
            walk(key, value)
    return "\n".join(plain + tables) + "\n"


def toml(value: object) -> str:
    """A value as config.toml has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
