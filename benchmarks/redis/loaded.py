"""The agents that ``actorbus node --load`` runs as users do: this file, and as many as it says.

A file is what a node loads, and its agents are made of no arguments, each by the name of its class.
"""

from __future__ import annotations

import threading
from typing import Final

from benchmarks.redis.agents import Worker, marks, name_of
from benchmarks.redis.payloads import AGENTS

_started: Final = threading.Semaphore(AGENTS - 1)


class _Loaded(Worker):
    def on_start(self) -> None:
        """The last of them says that all are there."""
        if not _started.acquire(blocking=False):
            marks().ready()


for _number in range(AGENTS):
    _name = name_of(_number).title().replace("-", "_")
    globals()[_name] = type(_name, (_Loaded,), {"__module__": __name__})
