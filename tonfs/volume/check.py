"""Does the index agree with itself? Level 1 of `tonfs fsck`, and what the other levels share.

A check reads, and yields findings; a finding may carry the one step that puts it right (`repair.py` takes it). Every
check sees one snapshot of an index that nobody else has open.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import Damaged, NotFound, Refused, UsageError
from ..system import from_sqlite
from . import journal, schema
from .api import ROOT
from .remains import PER_INODE, Leftovers
from .schema import ATTACHED, COVERED, DIRTY, INLINE, RECORD, REMOTE, SEGMENTED, XATTRS

Progress = Callable[[str, int, int], None]
"""(what is looked at, how many or how much is done, of how much)."""

DIR: Final = "((mode & 61440) = 16384)"
FILE: Final = "((mode & 61440) = 32768)"
LINK: Final = "((mode & 61440) = 40960)"


@dataclass(frozen=True, slots=True)
class Fix:
    """One step of repair: the name of a method of `repair.Repair`, its arguments, and the same for a person."""

    action: str
    values: tuple[Any, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str
    """A stable word for scripts."""
    text: str
    fix: Fix | None = None
    """None: only a person can decide."""
    harmless: bool = False
    """A trace of a crash that the next mount removes by itself."""


class _Trial(sqlite3.Connection):
    """Has changes that are undone when it is closed. Another connection is closed after it: the last one of an index
    that may write moves its log into it."""

    beside: sqlite3.Connection

    def close(self) -> None:
        super().close()
        self.beside.close()


def open_index(volume: Path, *, replay: bool = False) -> sqlite3.Connection:
    """The index to read, in a transaction, with what a crash left in the journal: for good with `replay`, else nothing
    on the disk changes. Raises NotFound, UsageError (older index), Damaged."""
    path = volume / schema.INDEX_NAME
    if not path.exists():
        schema.refuse_to_forget(volume)
        raise NotFound(f"There is no index at {path}.", hint="Mount the volume once; that makes it.")
    if not os.access(path, os.R_OK):
        raise Refused(f"{path} may not be read.", hint="Run it as the user whom the volume belongs to, or as root.")
    try:
        db = schema.connect(path, read_only=True)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        left = journal.left(db, volume) if version == len(schema.MIGRATIONS) else None
        if left is not None and replay:
            with contextlib.closing(schema.connect(path)) as writer:
                journal.replay(writer, volume)
        elif left is not None:
            trial = schema.connect(path, factory=_Trial)
            assert isinstance(trial, _Trial)
            trial.beside, db = db, trial
            db.execute("BEGIN IMMEDIATE")
            left.write(db)
            db.execute("PRAGMA query_only = ON")
            return db
    except sqlite3.Error as exc:
        raise from_sqlite(exc, path, f"The index {path}") from None
    if version < len(schema.MIGRATIONS):
        db.close()
        if version == 0:
            schema.refuse_to_forget(volume)
        raise UsageError("The index was made by an older tonfs.", hint="Mount the volume once, then check it.")
    if version > len(schema.MIGRATIONS):
        db.close()
        raise Damaged(f"The index has version {version}, which only a newer tonfs knows.", hint="Use that one.")
    db.execute("BEGIN")
    return db


def check_index(db: sqlite3.Connection, volume: Path, progress: Progress) -> Iterator[Finding]:
    """Everything about names, links, flags and extents. Raises OSError, Damaged when SQLite cannot read on."""
    left = Leftovers(db, volume / "content")
    names, strangers = (functools.partial(check, leftovers=left) for check in (_names, _strangers))
    checks: tuple[Callable[[sqlite3.Connection], Iterator[Finding]], ...] = (
        *(_sqlite, _numbers, names, _reach, _links, _orphans),
        *(_symlinks, strangers, _attached, _flags, _extents),
    )
    for done, check in enumerate(checks):
        progress("index", done, len(checks))
        try:
            found = list(check(db))
        except sqlite3.DatabaseError as exc:
            raise Damaged(f"The index cannot be read: {exc}.", hint="Restore it from a copy.") from None
        yield from found
        if check is _sqlite and found:
            return
    progress("index", len(checks), len(checks))


def show(name: object) -> str:
    """A name for a person; a damaged index may hold anything in its place."""
    return repr(os.fsdecode(name) if isinstance(name, bytes) else name)


def who(db: sqlite3.Connection, inode: int) -> str:
    """An inode for a person: its number and one of its paths, as far as a damaged index leads."""
    parts: list[bytes] = []
    at, seen = inode, set[int]()
    while at != ROOT and at not in seen:
        seen.add(at)
        row = db.execute("SELECT parent, key FROM name WHERE inode = ? LIMIT 1", (at,)).fetchone()
        if row is None or not isinstance(row[1], bytes):
            return f"inode {inode}"
        at = row[0]
        parts.append(row[1].rstrip(b"/"))
    return f"inode {inode} ({show(b'/'.join(reversed(parts)))})"


def _sqlite(db: sqlite3.Connection) -> Iterator[Finding]:
    try:
        said = [text for (text,) in db.execute("PRAGMA integrity_check(20)") if text != "ok"]
    except sqlite3.DatabaseError as exc:
        said = [str(exc)]
    for text in said:
        yield Finding("index-file", f"SQLite says of the index: {text}")


def _numbers(db: sqlite3.Connection) -> Iterator[Finding]:
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    (top,) = db.execute("SELECT max(inode) FROM inode").fetchone()
    if top is not None and top >= int(meta.get("inode_ceiling", 0)):
        fix = Fix("raise_numbers", (top + 1,), f"count on from {top + 1}")
        yield Finding("inode-counter", f"Inode {top} lies beyond the counter, its number could be used again.", fix)
    row = db.execute(f"SELECT {DIR} FROM inode WHERE inode = ?", (ROOT,)).fetchone()
    if top is not None and row != (1,):
        yield Finding("root", "The root directory is missing.", Fix("make_root", (), "make an empty root"))


def _names(db: sqlite3.Connection, leftovers: Leftovers) -> Iterator[Finding]:
    for cookie, key, inode in db.execute(
        "SELECT n.cookie, n.key, n.inode FROM name n LEFT JOIN inode i ON i.inode = n.inode WHERE i.inode IS NULL"
    ).fetchall():
        text = f"The name {show(key)} leads to inode {inode}, which does not exist"
        left = leftovers.remains(inode)
        if left is not None and not left.bare and not (isinstance(key, bytes) and key.endswith(b"/")):
            fix = Fix("settle_name", (cookie, inode), "make the file again from what is left of it")
            yield Finding("name-without-inode", f"{text}.", fix)
        elif leftovers.nothing_of(inode):
            fix = Fix("settle_name", (cookie, inode), "drop the name: there is nothing behind it")
            yield Finding("name-without-inode", f"{text}.", fix)
        else:
            yield Finding("name-without-inode", f"{text}; what is left of it does not make a file, and is kept.")
    for cookie, key, inode, parent in db.execute(
        "SELECT n.cookie, n.key, n.inode, n.parent FROM name n LEFT JOIN inode p ON p.inode = n.parent "
        f"WHERE (p.inode IS NULL AND n.parent != {ROOT}) OR NOT {DIR.replace('mode', 'p.mode')}"
    ):
        fix = Fix("rescue_name", (cookie, inode), f"move it to lost+found/#{inode}")
        yield Finding("name-without-directory", f"The name {show(key)} lies in {parent}, which is no directory.", fix)
    for cookie, key, is_dir in db.execute(
        f"SELECT n.cookie, n.key, {DIR} FROM name n JOIN inode i ON i.inode = n.inode "
        f"WHERE (substr(n.key, -1) = x'2f') != {DIR}"
    ):
        right = bytes(key).rstrip(b"/") + (b"/" if is_dir else b"")
        fix = Fix("rekey_name", (cookie, right), f"call it {show(right)}")
        yield Finding("name-key", f"The name {show(key)} has the wrong form for what it leads to.", fix)
    yield from _several_names(db)


def _several_names(db: sqlite3.Connection) -> Iterator[Finding]:
    """Directories with more than one name. The one that stays is on a shortest path from the root, so that nothing is
    cut off; of a directory that no path leads to (see `_reach`) it is the oldest."""
    several = db.execute(
        f"SELECT n.inode, count(*), min(n.cookie) FROM name n JOIN inode i ON i.inode = n.inode WHERE {DIR} "
        "GROUP BY n.inode HAVING count(*) > 1"
    ).fetchall()
    if not several:
        return
    below: dict[int, list[tuple[int, int]]] = {}
    for cookie, parent, inode in db.execute(
        f"SELECT n.cookie, n.parent, i.inode FROM name n JOIN inode i ON i.inode = n.inode WHERE {DIR} ORDER BY cookie"
    ):
        below.setdefault(parent, []).append((cookie, inode))
    met: dict[int, int] = {ROOT: 0}
    todo = collections.deque([int(ROOT)])
    while todo:
        for cookie, inode in below.get(todo.popleft(), []):
            if inode not in met:
                met[inode] = cookie
                todo.append(inode)
    for inode, count, oldest in several:
        keep = met.get(inode, oldest)
        (key,) = db.execute("SELECT key FROM name WHERE cookie = ?", (keep or oldest,)).fetchone()
        text = f"keep {show(key)}, which leads to all that is in it" if keep else "take them away: it is the root"
        fix = Fix("keep_one_name", (inode, keep), text)
        yield Finding("directory-names", f"The directory {inode} has {count} names.", fix)


def _reach(db: sqlite3.Connection) -> Iterator[Finding]:
    """Directories that no path leads to: the top of each lost tree, and one of each ring."""
    lost: dict[int, int | None] = dict(
        db.execute(
            "WITH RECURSIVE tree(inode) AS (SELECT 1 UNION SELECT n.inode FROM tree t "
            f"JOIN name n ON n.parent = t.inode JOIN inode i ON i.inode = n.inode WHERE {DIR}) "
            "SELECT i.inode, (SELECT parent FROM name WHERE inode = i.inode) FROM inode i "
            f"WHERE {DIR} AND i.nlink > 0 AND i.inode NOT IN (SELECT inode FROM tree)"
        ).fetchall()
    )
    known = {row[0] for row in db.execute(f"SELECT inode FROM inode WHERE {DIR}")} if lost else set()
    below: dict[int | None, list[int]] = {}
    for inode, parent in lost.items():
        below.setdefault(parent, []).append(inode)
    tops = [inode for inode, parent in lost.items() if parent is None]
    covered = {inode for inode, parent in lost.items() if parent is not None and parent not in known}  # see _names
    todo = [*tops, *covered]
    left = set(lost)
    while left:
        while todo:
            inode = todo.pop()
            if inode in left:
                left.discard(inode)
                todo += below.get(inode, [])
        if left:
            ring = min(left)
            tops.append(ring)
            todo = [ring]
    for inode in sorted(tops):
        fix = Fix("rescue_inode", (inode,), f"put it into lost+found/#{inode}")
        yield Finding("unreachable", f"No path leads to the directory {inode}.", fix)


def _links(db: sqlite3.Connection) -> Iterator[Finding]:
    for inode, nlink, links in db.execute(
        "SELECT * FROM (SELECT i.inode, i.nlink, (SELECT count(*) FROM name WHERE inode = i.inode) + "
        "(SELECT count(*) FROM attached WHERE inode = i.inode) AS links FROM inode i "
        f"WHERE NOT {DIR}) WHERE nlink != links"
    ):
        if links:
            fix = Fix("set_links", (inode, links), f"write {links}")
            yield Finding("link-count", f"Inode {inode} has {links} names and says {nlink}.", fix)
        else:
            fix = Fix("rescue_inode", (inode,), f"put it into lost+found/#{inode}")
            yield Finding("unreachable", f"No name leads to inode {inode}.", fix)
    for inode, nlink, links in db.execute(
        "SELECT * FROM (SELECT i.inode, i.nlink, 2 + (SELECT count(*) FROM name n WHERE n.parent = i.inode AND "
        f"substr(n.key, -1) = x'2f') AS links FROM inode i WHERE {DIR} AND i.nlink > 0) WHERE nlink != links"
    ):
        fix = Fix("set_links", (inode, links), f"write {links}")
        yield Finding("link-count", f"The directory {inode} should count {links} links and says {nlink}.", fix)


def _orphans(db: sqlite3.Connection) -> Iterator[Finding]:
    (count,) = db.execute(
        "SELECT count(*) FROM inode WHERE nlink = 0 AND inode NOT IN (SELECT inode FROM upload_part) "
        "AND inode NOT IN (SELECT inode FROM name)"
    ).fetchone()
    if count:
        yield Finding("removed-while-open", f"{count} files were removed while they were open.", harmless=True)


def _symlinks(db: sqlite3.Connection) -> Iterator[Finding]:
    for (inode,) in db.execute(f"SELECT inode FROM inode WHERE {LINK} AND inode NOT IN (SELECT inode FROM symlink)"):
        yield Finding("symlink-target", f"The target of the symlink {inode} is gone.")


def _strangers(db: sqlite3.Connection, leftovers: Leftovers) -> Iterator[Finding]:
    """Rows about inodes that do not exist; those that a name still speaks of are settled with the name."""
    for table in PER_INODE:
        for inode, count in db.execute(
            f"SELECT inode, count(*) FROM {table} WHERE inode NOT IN (SELECT inode FROM inode) "
            "AND inode NOT IN (SELECT inode FROM name) GROUP BY inode"
        ).fetchall():
            text = f"{count} rows of {table} speak of inode {inode}, which is gone"
            if leftovers.remains(inode) is not None:
                fix = Fix("adopt", (inode,), f"make a file of what is left: lost+found/#{inode}")
                yield Finding("rows-without-inode", f"{text}.", fix)
            elif leftovers.tables_of(inode) == {"object_part"}:
                # Numbers and checksums of bytes that are gone.
                yield Finding("rows-without-inode", f"{text}.", Fix("drop_parts", (inode,), "remove them"))
            else:
                yield Finding("rows-without-inode", f"{text}; what is left of it does not make a file, and is kept.")


def _attached(db: sqlite3.Connection) -> Iterator[Finding]:
    for folder, slot, inode in db.execute(
        "SELECT a.dir, a.slot, a.inode FROM attached a WHERE a.inode NOT IN (SELECT inode FROM inode) "
        "OR a.dir NOT IN (SELECT inode FROM inode)"
    ):
        fix = Fix("drop_attached", (folder, slot, inode), "take the object off; its file goes to lost+found")
        yield Finding("attached", f"The object {inode} hangs on the directory {folder}, and one of them is gone.", fix)


def _flags(db: sqlite3.Connection) -> Iterator[Finding]:
    for table, bit, column in (
        ("xattr", XATTRS, "inode"),
        ("record", RECORD, "inode"),
        ("attached", ATTACHED, "dir"),
        ("inline", INLINE, "inode"),
        ("segment", SEGMENTED, "inode"),
    ):
        for (inode,) in db.execute(
            f"SELECT DISTINCT t.{column} FROM {table} t JOIN inode i ON i.inode = t.{column} WHERE NOT i.flags & {bit}"
        ):
            fix = Fix("set_flag", (inode, bit), "say so")
            yield Finding("flags", f"Inode {inode} does not say that it has rows of {table}.", fix)


def _extents(db: sqlite3.Connection) -> Iterator[Finding]:
    rows = db.execute(
        "SELECT e.inode, e.offset, e.length, e.pack, e.pack_offset, e.local, i.size, i.flags, p.size "
        f"FROM extent e JOIN inode i ON i.inode = e.inode AND {FILE} LEFT JOIN pack p ON p.pack = e.pack "
        "ORDER BY e.inode, e.offset"
    )
    for inode, group in itertools.groupby(rows, key=lambda row: row[0]):
        extents = list(group)
        bad = list(_bad_extents(inode, extents))
        yield from bad
        if not bad:
            size, flags = extents[0][6:8]
            covered = sum(row[2] for row in extents)
            remote = any(not row[5] for row in extents)
            want = (DIRTY if covered < size else 0) | COVERED | (REMOTE if remote else 0)
            if flags & (DIRTY | COVERED | REMOTE) != want:
                fix = Fix("reshape", (inode,), "work them out again")
                yield Finding("flags", f"The flags of inode {inode} do not fit its extents.", fix)
    for (inode,) in db.execute(
        f"SELECT inode FROM inode WHERE {FILE} AND inode NOT IN (SELECT inode FROM extent) "
        f"AND (flags & {COVERED | REMOTE} OR ((flags & {DIRTY}) != 0) != (size > 0))"
    ):
        fix = Fix("reshape", (inode,), "work them out again")
        yield Finding("flags", f"The flags of inode {inode} do not fit: it has no extents.", fix)


def _bad_extents(inode: int, extents: list[tuple[Any, ...]]) -> Iterator[Finding]:
    end = 0
    for _, offset, length, pack, place, local, size, _, pack_size in extents:
        why = ""
        if length <= 0 or offset < end or offset + length > size:
            why = "does not fit into the file"
        elif pack is None and not local:
            why = "is of zeros that are elsewhere"
        elif pack is not None and pack_size is None:
            why = f"leads to the pack {pack}, which does not exist"
        elif pack is not None and (place < 0 or place + length > pack_size):
            why = "lies outside its pack"
        end = max(end, offset + length)
        if why:
            # The content file has the bytes: they count as not packed, and are packed again. Else nothing is left.
            fix = Fix("uncover", (inode, offset), "pack these bytes again from their local copy") if local else None
            yield Finding("extent", f"Inode {inode}: the extent at {offset} {why}.", fix)
