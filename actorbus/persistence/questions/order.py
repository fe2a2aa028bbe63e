"""The order in which a conversation is told: by time, and a cause before what it caused.

Ids are as good as the clocks of the nodes that made them. Where two nodes disagree, what caused
what does not.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.message import MessageId
    from actorbus.persistence.answers import MessageView


def causes_first(views: Sequence[MessageView]) -> list[MessageView]:
    """The messages by id, but none before the one that caused it.

    Those of a ring, which only a forged history has, come last, by id.
    """
    left = {view.id: view for view in views}
    caused: dict[MessageId, list[MessageId]] = defaultdict(list)
    ready: list[MessageId] = []
    for view in views:
        if view.causation_id is None or view.causation_id not in left:
            ready.append(view.id)
        else:
            caused[view.causation_id].append(view.id)
    heapify(ready)
    told: list[MessageView] = []
    while ready:
        first = heappop(ready)
        told.append(left.pop(first))
        for effect in caused.get(first, ()):
            heappush(ready, effect)
    return told + [left[one] for one in sorted(left)]
