"""Task queues over Redis as their documentation recommends them, one file each.

Each says how its worker is run, and has ``send(start, stop)``; some have ``asks`` too. They are
the extra ``bench-peers``, and what is not installed is left out.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

from benchmarks.redis.lab import URL

NAMES: Final = {
    "dramatiq": "dramatiq",
    "celery": "celery",
    "taskiq": "taskiq_redis",
    "faststream": "faststream",
}
"""The module that must be there, by peer."""


def peer(name: str, url: str) -> Any:
    """The peer's application, bound to the server at `url`, which workers find by themselves."""
    os.environ[URL] = url
    return import_module(f"benchmarks.redis.peers.with_{name}")
