"""Values out of JSON that came over a control socket."""

from __future__ import annotations

from ..errors import BadPacket
from ..ids import BagId, bag_id


def front_bag(text: object) -> BagId:
    """A BagID. Raises BadPacket."""
    try:
        return bag_id(str(text))
    except ValueError as exc:
        raise BadPacket(str(exc)) from None
