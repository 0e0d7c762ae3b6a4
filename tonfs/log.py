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
from typing import Final

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
        waiting, self._waiting = self._waiting, []
        for handler in logging.getLogger().handlers:
            line = getattr(handler.formatter, "line", None)
            if type(handler) is logging.StreamHandler and line is not None:
                name, event = self._logger.name, self._event
                text = "".join(line(created, "info", name, event, fields) + "\n" for created, fields in waiting)
                with contextlib.suppress(OSError, ValueError), handler.lock or contextlib.nullcontext():
                    handler.stream.write(text)
                    handler.stream.flush()
            else:
                for item in waiting:
                    handler.handle(self._record(*item))


@lru_cache(4)
def _clock(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


class _TextFormatter(logging.Formatter):
    def line(self, created: float, level: str, name: str, event: str, fields: Mapping[str, object]) -> str:
        tail = "".join([f" {k}={v}" for k, v in fields.items()])
        return f"{_clock(int(created))} {level:7} {name} {event}{tail}"

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, "fields", {})
        line = self.line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    def line(self, created: float, level: str, name: str, event: str, fields: Mapping[str, object]) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
        return json.dumps({"time": stamp, "level": level, "logger": name, "event": event, **fields}, ensure_ascii=False)

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self.line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)


def configure(level: int = logging.INFO, fmt: str = "text") -> None:
    """Send all logs of this process to stderr. Called once, by a process's main function."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if fmt == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("asyncio", "aiohttp.access", "LiteClient", "pytoniq"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
