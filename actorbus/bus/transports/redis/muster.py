"""Nodes that start together, and find out that they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.redis_client import Script, decoded, encoded

if TYPE_CHECKING:
    from actorbus.redis_client import RedisServer


class Muster:
    """Where nodes that load the same agents meet, so that each runs its share of them.

    Args:
        tag: the partition where they do.
        node: this incarnation of the node.
    """

    def __init__(self, server: RedisServer, tag: str, node: str) -> None:
        self._server = server
        self._tag = tag
        self._node = node
        self._muster = Script.beside(__file__, "muster")

    def peers(self, loaded: str, apart: float) -> list[str]:
        """Who said so within `apart` seconds of this node's first call, in one order for all.

        A node that calls once hears of those before it; so it calls again, `apart` later.
        `loaded` names what it is about. Idempotent.

        Raises:
            TransportUnavailable: the server did not answer.
        """
        with self._server.errors():
            found: Any = self._muster(
                self._server.client, [self._tag], [loaded, encoded(self._node), int(apart * 1_000)]
            )
        return sorted(decoded(one) for one in found)
