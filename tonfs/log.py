"""Structured logs: one event, its fields, never a secret.

    log = get_logger(__name__)
    log.info("pack sealed", bag_id=bag.hex(), size=size)

Text goes to stderr as `time level logger event key=value`; with `--log-format json` one object a line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from .ids import Secret

_HIDDEN: Final = frozenset({"words", "mnemonic", "seed", "private_key", "secret_key", "password", "authorization"})


def _clean(key: str, value: object) -> object:
    if key in _HIDDEN or isinstance(value, Secret):
        return "***"
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 64 else f"<{len(value)} bytes>"
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


class Log:
    """A thin front on `logging` that takes fields as keyword arguments."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def _emit(self, level: int, event: str, fields: Mapping[str, object], exc: BaseException | None) -> None:
        if self._logger.isEnabledFor(level):
            clean = {k: _clean(k, v) for k, v in fields.items()}
            self._logger.log(level, event, extra={"fields": clean}, exc_info=exc)

    def debug(self, event: str, **fields: object) -> None:
        self._emit(logging.DEBUG, event, fields, None)

    def info(self, event: str, **fields: object) -> None:
        self._emit(logging.INFO, event, fields, None)

    def warning(self, event: str, **fields: object) -> None:
        self._emit(logging.WARNING, event, fields, None)

    def error(self, event: str, *, exc: BaseException | None = None, **fields: object) -> None:
        self._emit(logging.ERROR, event, fields, exc)


def get_logger(name: str) -> Log:
    return Log(logging.getLogger(name))


class Batch:
    """One kind of event at level INFO that happens thousands of times a second: kept, then formatted and written
    together by `flush`. For one thread."""

    def __init__(self, name: str, event: str) -> None:
        self._logger = logging.getLogger(name)
        self._event = event
        self._waiting: list[tuple[float, Mapping[str, object]]] = []

    def add(self, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._waiting.append((time.time(), fields))

    def _record(self, created: float, fields: Mapping[str, object]) -> logging.LogRecord:
        record = logging.LogRecord(self._logger.name, logging.INFO, "", 0, self._event, None, None)
        record.created, record.fields = created, fields
        return record

    def flush(self) -> None:
        """Write what waits, with one call per handler."""
        if not self._waiting:
            return
        waiting = [self._record(*item) for item in self._waiting]
        self._waiting = []
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler:
                text = "".join(handler.format(record) + handler.terminator for record in waiting)
                with contextlib.suppress(OSError, ValueError), handler.lock or contextlib.nullcontext():
                    handler.stream.write(text)
                    handler.stream.flush()
            else:
                for record in waiting:
                    handler.handle(record)


@lru_cache(4)
def _clock(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = _clock(int(record.created))
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        tail = "".join(f" {k}={v}" for k, v in fields.items())
        line = f"{stamp} {record.levelname.lower():7} {record.name} {record.getMessage()}{tail}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        out: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            out["traceback"] = self.formatException(record.exc_info)
        return json.dumps(out, ensure_ascii=False)


def configure(level: int = logging.INFO, fmt: str = "text") -> None:
    """Send all logs of this process to stderr. Called once, by a process's main function."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if fmt == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("asyncio", "aiohttp.access", "LiteClient", "pytoniq"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
