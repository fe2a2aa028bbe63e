"""Shared state: namespaces of versioned keys, behind one contract."""

from actorbus.context.aio import AsyncContext
from actorbus.context.context import Context, Versioned
from actorbus.context.store import Change, Rights, Store
from actorbus.context.watch import Lagged, Watch

__all__ = [
    "AsyncContext",
    "Change",
    "Context",
    "Lagged",
    "Rights",
    "Store",
    "Versioned",
    "Watch",
]
