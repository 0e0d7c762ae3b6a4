"""trio <-> asyncio: the only place where both event loops appear.

Public: `AsyncioThread`, an asyncio loop in a thread of its own, reachable from trio and able to call back into it.
"""

from .asyncio_thread import AsyncioThread

__all__ = ["AsyncioThread"]
