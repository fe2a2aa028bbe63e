"""How we speak to Redis: clients, the names of keys, and scripts.

Every back end on Redis shares these. redis-py's defaults lose and repeat: ten retries round send
and receive together, and one time-out for commands and subscribers alike. Here a command may be
sent three times, so **everything that is sent must be idempotent**, and a subscriber waits with
time-outs of its own. What redis-py raises becomes ``TransportUnavailable``, in words without
the password.

Scripts are called by their digest and loaded where the server does not know them (after a
restart, or ``SCRIPT FLUSH``).
"""

from __future__ import annotations

from actorbus.redis_client.access import Access
from actorbus.redis_client.keys import decoded, encoded
from actorbus.redis_client.line import Dial, Express, Line
from actorbus.redis_client.scripts import Script, run_all
from actorbus.redis_client.server import OLDEST, RedisServer
from actorbus.redis_client.urls import (
    BUS_SCHEMES,
    SCHEMES,
    BusKind,
    Kind,
    checked_url,
    parsed,
    shown,
)
from actorbus.redis_client.wire import NOTHING, NoSocket, Wire

__all__ = [
    "BUS_SCHEMES",
    "NOTHING",
    "OLDEST",
    "SCHEMES",
    "Access",
    "BusKind",
    "Dial",
    "Express",
    "Kind",
    "Line",
    "NoSocket",
    "RedisServer",
    "Script",
    "Wire",
    "checked_url",
    "decoded",
    "encoded",
    "parsed",
    "run_all",
    "shown",
]
