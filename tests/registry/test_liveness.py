from __future__ import annotations

import pytest

from actorbus.registry.directory import ChangeKind
from actorbus.registry.entry import AgentStatus
from actorbus.registry.liveness import changed, judge, next_look
from actorbus.settings import Settings

SETTINGS = Settings(beat=2, suspect_after=5, dead_after=10)


@pytest.mark.parametrize(
    ("silence", "verdict"),
    [
        (0.0, None),
        (4.999, None),
        (5.0, AgentStatus.SUSPECT),
        (9.999, AgentStatus.SUSPECT),
        (10.0, AgentStatus.DEAD),
        (1e9, AgentStatus.DEAD),
    ],
)
def test_silence_makes_a_node_suspect_and_then_dead(
    silence: float, verdict: AgentStatus | None
) -> None:
    assert judge({"b": silence}, SETTINGS).get("b") == verdict


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, AgentStatus.SUSPECT, ChangeKind.SUSPECT),
        (None, AgentStatus.DEAD, ChangeKind.DEAD),
        (AgentStatus.SUSPECT, AgentStatus.DEAD, ChangeKind.DEAD),
        (AgentStatus.DEAD, AgentStatus.SUSPECT, ChangeKind.SUSPECT),
        (AgentStatus.SUSPECT, None, ChangeKind.BACK),
        (AgentStatus.DEAD, None, ChangeKind.BACK),
    ],
)
def test_another_verdict_is_a_change(
    before: AgentStatus | None, after: AgentStatus | None, kind: ChangeKind
) -> None:
    old = {"b": before} if before else {}
    new = {"b": after} if after else {}

    assert list(changed(old, new, ["a", "b"])) == [(kind, "b")]


def test_the_same_verdict_is_no_change_and_neither_is_a_dead_node_that_left() -> None:
    verdicts = {"b": AgentStatus.DEAD, "c": AgentStatus.SUSPECT}

    assert list(changed(verdicts, verdicts, ["a", "b", "c"])) == []
    assert list(changed(verdicts, {}, ["a"])) == []


@pytest.mark.parametrize(
    ("silences", "seconds"),
    [
        ({"a": 0.0}, 2.0),
        ({"a": 0.0, "b": 2.0}, 2.0),
        ({"a": 0.0, "b": 4.5}, 0.5),
        ({"a": 0.0, "b": 5.0}, 2.0),
        ({"a": 0.0, "b": 9.0, "c": 4.75}, 0.25),
        ({"a": 0.0, "b": 500.0}, 2.0),
    ],
)
def test_the_next_look_is_at_the_next_beat_or_at_a_limit_that_comes_before(
    silences: dict[str, float], seconds: float
) -> None:
    assert next_look(silences, SETTINGS) == seconds
