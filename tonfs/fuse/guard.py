"""No handler may end the mount: what goes wrong inside becomes an errno, and what nobody expected becomes EIO and a
log line (reference fuse.md, trap 1)."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

import pyfuse3

from ..errors import TonfsError
from ..log import get_logger

log = get_logger(__name__)

R = TypeVar("R")


def answer(function: Callable[..., R]) -> Callable[..., Awaitable[R]]:
    """Make a request handler of a function that answers at once. Raises nothing but FUSEError."""
    name = function.__name__

    @wraps(function)
    async def guarded(*args: Any) -> R:
        try:
            return function(*args)
        except pyfuse3.FUSEError:
            raise
        except Exception as exc:
            raise _as_errno(exc, name, args) from None

    return guarded


def handler(function: Callable[..., Awaitable[R]]) -> Callable[..., Awaitable[R]]:
    """The same for one that may wait; `under_way` of its object counts those that have begun and not ended."""
    name = function.__name__

    @wraps(function)
    async def guarded(*args: Any) -> R:
        handlers = args[0]
        handlers.under_way += 1
        try:
            return await function(*args)
        except pyfuse3.FUSEError:
            raise
        except Exception as exc:
            raise _as_errno(exc, name, args) from None
        finally:
            handlers.under_way -= 1

    return guarded


def _as_errno(exc: Exception, request: str, args: tuple[Any, ...]) -> pyfuse3.FUSEError:
    if isinstance(exc, TonfsError):
        if exc.errno == errno.EIO:
            log.warning("request failed", request=request, target=_target(args), reason=exc.message)
        return pyfuse3.FUSEError(exc.errno)
    if isinstance(exc, OSError):
        return pyfuse3.FUSEError(exc.errno or errno.EIO)
    log.error("unexpected error in a request", request=request, target=_target(args), exc=exc)
    return pyfuse3.FUSEError(errno.EIO)


def silent(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """For forget and release, which cannot report errors: they are logged only."""
    name = function.__name__

    @wraps(function)
    async def guarded(*args: Any) -> None:
        try:
            await function(*args)
        except Exception as exc:
            log.error("unexpected error in a request", request=name, target=_target(args), exc=exc)

    return guarded


def _target(args: tuple[Any, ...]) -> str:
    """The inode or handle, and a name if there is one; never file contents."""
    words = [str(arg) for arg in args[1:3] if isinstance(arg, int)]
    words += [repr(arg) for arg in args[1:3] if isinstance(arg, bytes) and len(arg) <= 255]
    return " ".join(words)
