"""front.sock: what the agent and the command line may ask of the front. Shapes: see each method.

Byte strings travel as hex, names as str with surrogateescape, times as seconds since 1970, sizes as bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

import trio

from ..control import Handler
from ..errors import NotFound, UsageError
from ..ids import BagId, Inode, bag_id
from ..policy import PATH_POLICY_PREFIX, check_path_policy
from ..volume import ROOT, PackedFile, Volume

R = TypeVar("R")

MAX_PATHS: Final = 100_000
SHOWN_PATHS: Final = 3


class Methods:
    """Handlers of the control socket. All of the volume's slow calls run in threads."""

    def __init__(
        self,
        volume: Volume,
        mounted: Callable[[], dict[str, Any]],
        s3: Callable[[], dict[str, Any]],
        stop: trio.Event,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._volume = volume
        self._mounted = mounted
        self._s3 = s3
        self._stop = stop
        self._options = options

    def handlers(self) -> dict[str, Handler]:
        return {
            "ping": self.ping,
            "status": self.status,
            "dirty": self.dirty,
            "policy": self.policy,
            "policy_set": self.policy_set,
            "commit_pack": self.commit_pack,
            "packs": self.packs,
            "pack_states": self.pack_states,
            "drop_pack": self.drop_pack,
            "resolve": self.resolve,
            "evict": self.evict,
            "why": self.why,
            "commit": self.commit,
            "shutdown": self.shutdown,
        }

    async def ping(self, params: dict[str, Any]) -> dict[str, Any]:
        """pid, mount{path,alive}, s3{url,alive}, options: the mount options in force."""
        return {"pid": os.getpid(), "mount": self._mounted(), "s3": self._s3(), "options": dict(self._options)}

    async def status(self, params: dict[str, Any]) -> dict[str, Any]:
        """files{total,empty,dirty,packed,proven}, bytes{logical,local,dirty,proven}, dirty_oldest, mount, s3,
        damaged{total,paths}: files found to have lost bytes, and some of them."""
        counts = await _run(self._volume.counts)
        damaged, paths = await _run(partial(self._volume.damaged, SHOWN_PATHS))
        return {
            "files": {
                "total": counts.files,
                "empty": counts.empty,
                "dirty": counts.dirty,
                "packed": counts.packed,
                "proven": counts.proven,
            },
            "bytes": {
                "logical": counts.logical,
                "local": counts.local,
                "dirty": counts.dirty_bytes,
                "proven": counts.proven_bytes,
            },
            "dirty_oldest": counts.oldest,
            "damaged": {"total": damaged, "paths": [os.fsdecode(path) for path in paths]},
            "mount": self._mounted(),
            "s3": self._s3(),
        }

    async def dirty(self, params: dict[str, Any]) -> dict[str, Any]:
        """{settle, limit_bytes, force} -> {files[{inode,version,path,mode,mtime_ns,size,ranges,sources}], replicas,
        more, oldest, next_settle}; replicas: what is said for all of them, null for the volume's number."""
        settle, limit = float(_get(params, "settle", int, float)), int(_get(params, "limit_bytes", int))
        report = await _run(partial(self._volume.dirty, settle, limit, force=bool(params.get("force", False))))
        files = [
            {
                "inode": f.inode,
                "version": f.version,
                "path": os.fsdecode(f.path),
                "mode": f.mode,
                "mtime_ns": f.mtime_ns,
                "size": f.size,
                "ranges": [list(r) for r in f.ranges],
                "sources": [list(s) for s in f.sources],
            }
            for f in report.files
        ]
        return {
            "files": files,
            "replicas": report.replicas,
            "more": report.more,
            "oldest": report.oldest,
            "next_settle": report.next_settle,
        }

    async def commit_pack(self, params: dict[str, Any]) -> dict[str, Any]:
        """{bag_id, size, extents[{inode, version, ranges[[file_offset, length, pack_offset]]}]} -> {pack, committed,
        stale}; durable and atomic."""
        bag = _bag(params)
        size = int(_get(params, "size", int))
        files = [_packed(item) for item in _get(params, "extents", list)]
        done = await _run(partial(self._volume.commit_pack, bag, size, files))
        return {"pack": done.pack, "committed": list(done.committed), "stale": list(done.stale)}

    async def packs(self, params: dict[str, Any]) -> dict[str, Any]:
        """{} -> {packs[{id, bag_id, size, live, files, created, proven, wanted, told, asked, unsaid}]}; told: `proven`
        was said lately; asked: the largest number of replicas that is said for one of its files; unsaid: for one of
        them nothing is said."""
        packs = await _run(self._volume.packs)
        return {
            "packs": [
                {
                    "id": p.pack,
                    "bag_id": p.bag_id.hex(),
                    "size": p.size,
                    "live": p.live,
                    "files": p.files,
                    "created": p.created_ns / 1e9,
                    "proven": p.proven,
                    "wanted": p.wanted,
                    "told": self._volume.told_lately(p.bag_id),
                    "asked": p.asked.most,
                    "unsaid": p.asked.unsaid,
                }
                for p in packs
            ]
        }

    async def pack_states(self, params: dict[str, Any]) -> dict[str, Any]:
        """{packs[{bag_id, proven, wanted, proved_at?}]} -> {}"""
        packs = _get(params, "packs", list)
        states = [(_bag(item), int(_get(item, "proven", int)), int(_get(item, "wanted", int))) for item in packs]
        proved = {
            _bag(item): int(_get(item, "proved_at", int, float) * 1e9)
            for item in packs
            if item.get("proved_at") is not None
        }
        await _run(partial(self._volume.pack_states, states, proved))
        return {}

    async def drop_pack(self, params: dict[str, Any]) -> dict[str, Any]:
        """{bag_id} -> {}; Refused while a file refers to it. A pack that is not known (any more) is no error."""
        try:
            await _run(partial(self._volume.drop_pack, _bag(params)))
        except NotFound:
            return {"known": False}
        return {"known": True}

    async def resolve(self, params: dict[str, Any]) -> dict[str, Any]:
        """{paths} -> {bag_ids, dirty_files, dirty_bytes, missing}"""

        def work() -> dict[str, Any]:
            found, missing = self._find(_paths(params))
            bags: set[BagId] = set()
            files = size = 0
            for _, inode in found:
                some, count, length = self._volume.bags_below(inode)
                bags |= some
                files += count
                size += length
            ids = sorted(bag.hex() for bag in bags)
            return {"bag_ids": ids, "dirty_files": files, "dirty_bytes": size, "missing": missing}

        return await _run(work)

    async def evict(self, params: dict[str, Any]) -> dict[str, Any]:
        """{paths} -> {files, bytes, kept[{path, why}], bag_ids}. Raises NotFound."""

        def work() -> dict[str, Any]:
            found, missing = self._find(_paths(params))
            if missing:
                raise NotFound(f"{missing[0]} does not exist.")
            inodes = {f[0]: None for _, inode in found for f in self._volume.files_below(inode)}
            done = self._volume.evict(list(inodes))
            kept = [{"path": self._path(inode), "why": why} for inode, why in done.kept[:MAX_PATHS]]
            return {"files": done.files, "bytes": done.bytes, "kept": kept, "bag_ids": [b.hex() for b in done.bags]}

        return await _run(work)

    async def why(self, params: dict[str, Any]) -> dict[str, Any]:
        """{path} -> {path, inode, size, version, state, local_bytes, ranges[{offset, length, kind, local, bag_id?,
        pack_offset?, proven?, wanted?}]}; kind: dirty, zeros, packed or proven. Raises NotFound."""

        def work() -> dict[str, Any]:
            path = _get(params, "path", str)
            found, missing = self._find([path])
            if missing:
                raise NotFound(f"{path} does not exist.")
            return self._explain(path, found[0][1])

        return await _run(work)

    async def explain(self, inode: Inode) -> dict[str, Any]:
        """As `why`, for an inode."""
        return await _run(lambda: self._explain(self._path(inode), inode))

    def _explain(self, path: str, inode: Inode) -> dict[str, Any]:
        attr = self._volume.getattr(inode)
        out: dict[str, Any] = {"path": path, "inode": inode, "size": attr.size, "version": attr.version}
        if not attr.is_file:
            return {**out, "state": "metadata", "local_bytes": 0, "ranges": []}
        ranges = self._volume.ranges(inode)
        out["state"] = os.fsdecode(self._volume.get_xattr(inode, b"user.tonfs.state"))
        out["local_bytes"] = sum(r.length for r in ranges if r.local)
        out["ranges"] = [
            {"offset": r.offset, "length": r.length, "kind": r.state, "local": r.local}
            | (
                {"bag_id": r.bag_id.hex(), "pack_offset": r.pack_offset, "proven": r.proven, "wanted": r.wanted}
                if r.bag_id is not None
                else {}
            )
            for r in ranges
        ]
        return out

    async def policy(self, params: dict[str, Any]) -> dict[str, Any]:
        """{path} -> {policies{name: value}}: what the path itself says. Raises NotFound."""

        def work() -> dict[str, Any]:
            inode, prefix = self._one(params), os.fsencode(PATH_POLICY_PREFIX)
            names = [name for name in self._volume.list_xattrs(inode) if name.startswith(prefix)]
            said = {name: self._volume.get_xattr(inode, name) for name in names}
            return {"policies": {os.fsdecode(n[len(prefix) :]): os.fsdecode(v) for n, v in said.items()}}

        return await _run(work)

    async def policy_set(self, params: dict[str, Any]) -> dict[str, Any]:
        """{path, name, value} -> {}; durable. value null: the path says nothing any more. Raises NotFound, UsageError,
        Unsupported."""

        def work() -> dict[str, Any]:
            inode, name, value = self._one(params), _get(params, "name", str), params.get("value")
            check_path_policy(name)
            attribute = os.fsencode(PATH_POLICY_PREFIX + name)
            if value is not None:
                self._volume.set_xattr(inode, attribute, os.fsencode(_get(params, "value", str)))
            elif attribute in self._volume.list_xattrs(inode):
                self._volume.remove_xattr(inode, attribute)
            self._volume.commit()
            return {}

        return await _run(work)

    def _one(self, params: dict[str, Any]) -> Inode:
        path = _get(params, "path", str)
        found, _ = self._find([path])
        if not found:
            raise NotFound(f"{path} does not exist.")
        return found[0][1]

    async def commit(self, params: dict[str, Any]) -> dict[str, Any]:
        await _run(self._volume.commit)
        return {}

    async def shutdown(self, params: dict[str, Any]) -> dict[str, Any]:
        """Answers at once; the front is gone when its socket is."""
        self._stop.set()
        return {}

    # Paths ------------------------------------------------------------------------------------------------------

    def _find(self, paths: Sequence[str]) -> tuple[list[tuple[str, Inode]], list[str]]:
        """(path, inode) of those that exist, and the others. A path is relative to the root, or below the mount."""
        found: list[tuple[str, Inode]] = []
        missing: list[str] = []
        mount = str(self._mounted()["path"] or "")
        for path in paths:
            inside = path
            if mount and (path == mount or path.startswith(mount.rstrip("/") + "/")):
                inside = path[len(mount) :]
            parts = [part for part in os.fsencode(inside).split(b"/") if part]
            inode = self._volume.find(parts) if parts else ROOT
            if inode is None:
                missing.append(path)
            else:
                found.append((path, inode))
        return found, missing

    def _path(self, inode: Inode) -> str:
        try:
            return os.fsdecode(self._volume.path_of(inode))
        except Exception:  # removed meanwhile
            return f"inode {inode}"


async def _run(function: Callable[[], R]) -> R:
    return await trio.to_thread.run_sync(function)


def _get(params: dict[str, Any], name: str, *kinds: type) -> Any:
    value = params.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise UsageError(f"The parameter {name!r} is missing or of a wrong type.")
    return value


def _bag(params: Any) -> BagId:
    try:
        return bag_id(str(params["bag_id"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise UsageError(f"The parameter 'bag_id' is missing or wrong: {exc}.") from None


def _packed(item: Any) -> PackedFile:
    try:
        ranges = tuple((int(offset), int(length), int(at)) for offset, length, at in item["ranges"])
        return PackedFile(Inode(int(item["inode"])), int(item["version"]), ranges)
    except (KeyError, TypeError, ValueError):
        raise UsageError("An entry of 'extents' is malformed.") from None


def _paths(params: dict[str, Any]) -> list[str]:
    paths = _get(params, "paths", list)
    if len(paths) > MAX_PATHS or not all(isinstance(path, str) for path in paths):
        raise UsageError("The parameter 'paths' is a list of strings.")
    return paths or [""]
