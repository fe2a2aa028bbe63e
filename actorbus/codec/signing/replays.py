"""What came before: the ids last seen in each queue, and up to where none can be new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

_MOST: Final = 100_000
"""Ids in all, some 200 bytes each."""
_DEPTH: Final = 1_024
"""Ids of one queue: how many others may overtake a message before it is taken for a replay."""
_QUIET: Final = 100_000
"""Queues of which nothing but their floor is kept."""


@dataclass(slots=True)
class _Queue:
    floor: int
    """Nothing up to this is new."""
    keys: dict[int, None] = field(default_factory=dict)


class Replays:
    """Whether a key was in its queue before. Thread-safe, bounded.

    Keys are ints that rise in the order in which a queue is filled, with at most `depth` of
    them out of order. Past `most` keys, the queue that was quiet for longest keeps only its
    highest; past `quiet` such queues, the one that was so for longest is forgotten.
    """

    def __init__(self, *, most: int = _MOST, depth: int = _DEPTH, quiet: int = _QUIET) -> None:
        self._most = most
        self._depth = depth
        self._quiet = quiet
        self._queues: OrderedDict[Hashable, _Queue] = OrderedDict()
        self._floors: OrderedDict[Hashable, int] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def is_new(self, queue: Hashable, key: int) -> bool:
        """Whether `key` is in `queue` for the first time; from now on it is not."""
        with self._lock:
            found = self._queues.get(queue)
            floor = self._floors.get(queue, -1) if found is None else found.floor
            if key <= floor or (found is not None and key in found.keys):
                return False
            if found is None:
                self._floors.pop(queue, None)
                found = self._queues[queue] = _Queue(floor)
            self._queues.move_to_end(queue)
            self._add(found, key)
            return True

    def _add(self, queue: _Queue, key: int) -> None:
        queue.keys[key] = None
        self._count += 1
        if len(queue.keys) > self._depth:
            oldest = next(iter(queue.keys))
            del queue.keys[oldest]
            queue.floor = max(queue.floor, oldest)
            self._count -= 1
        if self._count > self._most:
            self._close_quietest()

    def _close_quietest(self) -> None:
        name, queue = self._queues.popitem(last=False)
        self._count -= len(queue.keys)
        self._floors[name] = max(queue.floor, *queue.keys)
        if len(self._floors) > self._quiet:
            self._floors.popitem(last=False)
