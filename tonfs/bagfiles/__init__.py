"""Bags on disk: walk and hash a tree, read and write pieces in place, resume after a crash."""

from __future__ import annotations

from .create import CreatedBag, HashWriter, create_bag, default_piece_size
from .pack import PackEntry, PackExtent, PackManifest, WrittenPack, write_pack
from .scan import ScannedTree, scan
from .stored import StoredBag

__all__ = [
    "CreatedBag",
    "HashWriter",
    "PackEntry",
    "PackExtent",
    "PackManifest",
    "ScannedTree",
    "StoredBag",
    "WrittenPack",
    "create_bag",
    "default_piece_size",
    "scan",
    "write_pack",
]
