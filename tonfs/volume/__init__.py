"""The one namespace both doors open on: index, content, extents, packs.

`Volume` is the embedded implementation of `Namespace`: SQLite index, sparse content files, one writer.
"""

from __future__ import annotations

from .api import (
    ROOT,
    Attr,
    Change,
    Entry,
    Expect,
    Fetch,
    Live,
    Namespace,
    ObjectPart,
    ReadResult,
    RemoteRange,
    S3Record,
    SetAttr,
    Statfs,
    StoredObject,
    Upload,
    UploadPart,
)
from .listed import Listed
from .packs import Committed, Evicted, PackedFile
from .survey import Counts, DirtyFile, DirtyReport, PackInfo, Range
from .volume import Volume

__all__ = [
    "ROOT",
    "Attr",
    "Change",
    "Committed",
    "Counts",
    "DirtyFile",
    "DirtyReport",
    "Entry",
    "Evicted",
    "Expect",
    "Fetch",
    "Listed",
    "Live",
    "Namespace",
    "ObjectPart",
    "PackInfo",
    "PackedFile",
    "Range",
    "ReadResult",
    "RemoteRange",
    "S3Record",
    "SetAttr",
    "Statfs",
    "StoredObject",
    "Upload",
    "UploadPart",
    "Volume",
]
