"""The bag format: TorrentInfo, header, piece tree and proofs. Bytes in, bytes out, no I/O."""

from __future__ import annotations

from .boc import Cell, parse_boc, parse_one, to_boc
from .header import BagFile, BagHeader, check_name, check_names
from .info import MAX_PIECE, MIN_PIECE, SAFE_DESCRIPTION, TorrentInfo
from .tree import PieceTree, check_piece, proof_path, tree_depth, verify_piece, verify_proof

__all__ = [
    "MAX_PIECE",
    "MIN_PIECE",
    "SAFE_DESCRIPTION",
    "BagFile",
    "BagHeader",
    "Cell",
    "PieceTree",
    "TorrentInfo",
    "check_name",
    "check_names",
    "check_piece",
    "parse_boc",
    "parse_one",
    "proof_path",
    "to_boc",
    "tree_depth",
    "verify_piece",
    "verify_proof",
]
