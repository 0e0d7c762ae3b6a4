"""The front process: volume + mount + S3 door + control socket."""

from __future__ import annotations

from .fetcher import Fetcher
from .main import Front, FrontConfig, run_front

__all__ = ["Fetcher", "Front", "FrontConfig", "run_front"]
