"""What all nodes of a deployment must agree on, as its first node wrote it down in Redis.

An agent's partition follows from its name and the number of partitions: nodes that disagree
would not find each other's inboxes, and each would think that nobody writes. So would nodes of
another layout of keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable
from actorbus.redis_client import Kind, Script, encoded

if TYPE_CHECKING:
    from actorbus.redis_client import RedisServer

LAYOUT: Final = 3
"""The version of the keys, and of what lies in them."""
PARTITIONS: Final = {Kind.SINGLE: 1, Kind.SENTINEL: 1, Kind.CLUSTER: 64}
"""How many a new deployment has: one is cheapest, more let the servers of a cluster share."""


def check_in(server: RedisServer, namespace: str, partitions: int | None = None) -> int:
    """Join the deployment `namespace`, or begin it. Returns its number of partitions.

    Args:
        partitions: what the caller was told; None takes what is there, and for a new deployment
            what suits the server.

    Raises:
        TransportUnavailable: the deployment there has another number of partitions or another
            layout; or the server cannot be reached.
    """
    wanted = PARTITIONS[server.kind] if partitions is None else partitions
    script = Script.beside(__file__, "check_in")
    with server.errors():
        told: Any = script(server.client, [key_of(namespace)], [LAYOUT, wanted])
    layout, found = (one.decode(errors="replace") for one in told)
    count = _checked(server, namespace, layout, found)
    if partitions not in (None, count):
        raise TransportUnavailable(
            f"{server.shown} holds a bus {namespace!r} of {found} partitions, not {partitions}:"
            " every node of a deployment has the same number"
        )
    return count


def partitions_of(server: RedisServer, namespace: str) -> int | None:
    """How many a deployment has; None where nobody has begun it. Writes nothing.

    Raises:
        TransportUnavailable: it has another layout, or the server cannot be reached.
    """
    with server.errors():
        told: Any = server.client.hmget(key_of(namespace), ["layout", "partitions"])
    if told[0] is None and told[1] is None:
        return None
    layout, found = ((one or b"").decode(errors="replace") for one in told)
    return _checked(server, namespace, layout, found)


def _checked(server: RedisServer, namespace: str, layout: str, found: str) -> int:
    if layout != str(LAYOUT):
        raise TransportUnavailable(
            f"{server.shown} holds a bus {namespace!r} of layout {layout or 'unknown'}, and this"
            f" is layout {LAYOUT}: run nodes of one version, or use another namespace"
        )
    if not found.isdecimal() or int(found) < 1:
        raise TransportUnavailable(
            f"{server.shown} holds a bus {namespace!r} of {found[:20]!r} partitions, which is no"
            " number: somebody else wrote there; use another namespace"
        )
    return int(found)


def key_of(namespace: str) -> str:
    """Where it is written down."""
    return f"{{{encoded(namespace)}.meta}}"
