"""When a silent node is suspect, and when it is dead: pure decisions on durations in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorbus.registry.directory import ChangeKind
from actorbus.registry.entry import AgentStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from actorbus.settings import Settings

Verdicts = dict[str, AgentStatus]
"""The nodes that are suspect or dead; all others live."""


def judge(silences: Mapping[str, float], settings: Settings) -> Verdicts:
    """The verdict on each node that has been silent for too long."""
    verdicts = {}
    for node, silence in silences.items():
        if silence >= settings.dead_after:
            verdicts[node] = AgentStatus.DEAD
        elif silence >= settings.suspect_after:
            verdicts[node] = AgentStatus.SUSPECT
    return verdicts


def changed(
    before: Verdicts, after: Verdicts, nodes: Iterable[str]
) -> Iterator[tuple[ChangeKind, str]]:
    """What became of those of `nodes` whose verdict is another one now."""
    for node in nodes:
        verdict = after.get(node)
        if verdict != before.get(node):
            yield ChangeKind.BACK if verdict is None else ChangeKind(verdict), node


def next_look(silences: Mapping[str, float], settings: Settings) -> float:
    """Seconds until the next beat is due, or until silence could change a verdict before it."""
    return min(
        [settings.beat]
        + [
            limit - silence
            for silence in silences.values()
            for limit in (settings.suspect_after, settings.dead_after)
            if silence < limit
        ]
    )
