"""A running tonutils-storage as the one who seeds, by its HTTP API (reference protocol 8.1).

The daemon makes the bag anew from the files where they lie, and keeps nothing but its record of them. That gives the
same BagID only when it would choose the same pieces, names and description; what it would make otherwise, or what would
crash it, is refused (`Refused`), and then our own peer seeds (`BackedNet`).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from ..bag import SAFE_DESCRIPTION
from ..bagfiles import StoredBag, default_piece_size
from ..errors import BadPacket, NotFound, NotRunning, Refused, TonfsError, UsageError
from ..ids import BagId
from ..log import get_logger
from .given_bags import GivenBags
from .tl import readable

log = get_logger(__name__)

CALL_TIMEOUT: Final = 30.0
CREATE_TIMEOUT: Final = 1800.0
"""The daemon answers `create` when everything is hashed."""
MAX_ANSWER: Final = 64 << 20


class TonutilsDaemon:
    """`Seeder` (see network/api.py). `url`: `http://127.0.0.1:8192`. Raises besides: NotRunning, Refused, BadPacket."""

    def __init__(self, url: str, login: str = "", password: str = "", given: GivenBags | None = None) -> None:
        """Raises UsageError for anything but a plain http URL."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise UsageError(f"{url!r} is not the URL of a daemon.", hint="Write it as http://127.0.0.1:8192.")
        self._where = (parts.hostname, parts.port or 80)
        token = base64.b64encode(f"{login}:{password}".encode()).decode("ascii")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Basic {token}"} if login else {})
        self._ours = GivenBags() if given is None else given
        """Others in the daemon are none of our business."""

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        """See Seeder. Raises Refused when the daemon cannot make this very bag."""
        path, names, description = await trio.to_thread.run_sync(_plan, bag_id, directory)
        known = await self._call(f"details?bag_id={bag_id.hex()}", None, CALL_TIMEOUT, missing_ok=True)
        if known is None or not (known.get("active") and known.get("seeding") and known.get("completed")):
            before = await self._bags()
            wish = {"path": str(path), "description": description, "keep_only_paths": names}
            made = bag_id_of(await self._call("create", wish, CREATE_TIMEOUT) or {})
            if made != bag_id.hex():
                if made not in before:
                    await self._remove(made)
                raise Refused(f"The daemon makes another bag of {path} than {bag_id.hex()}.")
            if bag_id.hex() not in before:
                self._ours.add(bag_id)

    async def forget(self, bag_id: BagId) -> None:
        """See Seeder."""
        if bag_id in self._ours:
            await self._remove(bag_id.hex())
            self._ours.discard(bag_id)

    async def _bags(self) -> set[str]:
        """Ids of all bags in the daemon. Raises BadPacket."""
        return bag_ids(await self._call("list", None, CALL_TIMEOUT) or {})

    async def _remove(self, bag: str) -> None:
        await self._call("remove", {"bag_id": bag, "with_files": False}, CALL_TIMEOUT, missing_ok=True)

    async def _call(
        self, name: str, body: Mapping[str, Any] | None, timeout: float, *, missing_ok: bool = False
    ) -> dict[str, Any] | None:
        """The answer's object; None for an unknown bag when `missing_ok`."""
        try:
            with trio.fail_after(timeout):  # the socket's own limit is one per read
                status, data = await trio.to_thread.run_sync(self._ask, name, body, timeout, abandon_on_cancel=True)
        except trio.TooSlowError:
            raise self._silent("no whole answer in time") from None
        if status == 404 and missing_ok:
            return None
        return parse_answer(name.partition("?")[0], status, data)

    def _ask(self, name: str, body: Mapping[str, Any] | None, timeout: float) -> tuple[int, bytes]:
        connection = self._connect(timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request("GET" if data is None else "POST", f"/api/v1/{name}", data, self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as exc:
            raise self._silent(str(exc)) from None
        finally:
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._where, timeout=timeout)

    def _silent(self, why: str) -> NotRunning:
        return NotRunning(
            f"tonutils-storage does not answer at {self._where[0]}:{self._where[1]} ({why}).",
            hint="Start it with '-api', or unset peer.seeder in config.toml.",
        )


def parse_answer(word: str, status: int, data: bytes) -> dict[str, Any]:
    """The object that answers the call `word`. Raises UsageError (the login), Refused (it says no), BadPacket."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if status == 401:
        raise UsageError("The daemon does not accept the login.", hint="Check peer.seeder_login and its password.")
    if status != 200 or not isinstance(value, dict):
        said = value.get("error") if isinstance(value, dict) else None
        text = readable(said.encode("utf-8", "replace")) if isinstance(said, str) else ""
        kind = Refused if status == 500 else BadPacket
        raise kind(f"The daemon answers {word!r} with {status}: {text}")
    return value


def bag_id_of(answer: Mapping[str, Any]) -> str:
    """The bag that a `create` made, or that stands in a list. Raises BadPacket."""
    found = answer.get("bag_id")
    if not isinstance(found, str):
        raise BadPacket("The daemon's answer names no bag.")
    return found


def bag_ids(answer: Mapping[str, Any]) -> set[str]:
    """Ids of all bags of a `list`. Raises BadPacket."""
    bags = answer.get("bags") or []
    if not isinstance(bags, list) or not all(isinstance(one, dict) for one in bags):
        raise BadPacket("The daemon's list of bags is none.")
    return {bag_id_of(one) for one in bags}


def _plan(bag_id: BagId, directory: Path) -> tuple[Path, list[str], str]:
    """(what the daemon shall make the bag of, its files in order, description). Raises NotFound, Refused."""
    stored = StoredBag.open(directory)
    try:
        info, header = stored.info, stored.header
        if stored.bag_id != bag_id:
            raise NotFound(f"{directory} holds bag {stored.bag_id.hex()}, not {bag_id.hex()}.")
        if info is None or header is None or not stored.complete:
            raise Refused(f"Bag {bag_id.hex()} is not complete; a daemon can only make whole ones.")
        name = os.fsdecode(header.top)
        names = [str(stored.data_root / os.fsdecode(header.folder + one)) for one in header.names]
        why = ""
        if info.piece_size != default_piece_size(header.data_size):
            why = "has pieces of another size than the daemon chooses"
        elif info.file_size % info.piece_size == 0:
            why = "fills its last piece exactly, which crashes the daemon"
        elif len(info.description) > SAFE_DESCRIPTION or any(part in name for part in ("\\", "./")) or name[0] == ".":
            why = "has a name or description that the daemon treats otherwise"
        if why:
            raise Refused(f"Bag {bag_id.hex()} {why}.")
        try:
            text = info.description.decode()
            "".join(names).encode()
        except UnicodeError:
            raise Refused(f"Bag {bag_id.hex()} has names that JSON cannot carry.") from None
        return stored.data_root / name, names if header.folder else [], text
    finally:
        stored.close()


def daemon_of(url: str, login: str, password_file: str, given: GivenBags | None = None) -> TonutilsDaemon:
    """From settings. Raises UsageError, TonfsError when the password cannot be read."""
    password = ""
    if password_file:
        try:
            password = Path(password_file).expanduser().read_text(encoding="utf-8").strip()
        except OSError as exc:
            raise TonfsError(f"The daemon's password cannot be read: {exc.strerror}.") from None
    return TonutilsDaemon(url, login, password, given)
