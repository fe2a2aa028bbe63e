from __future__ import annotations

from dataclasses import replace

import pytest

from actorbus.persistence.pressure import Health, Situation, Step

FINE = Situation(
    failing=False,
    rested=True,
    disk=True,
    spilled=False,
    waiting=0,
    limit=100,
    closing=False,
    abandoned=False,
)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({}, Step.WRITE),
        ({"waiting": 100}, Step.WRITE),
        ({"waiting": 100, "closing": True}, Step.WRITE),
        ({"failing": True, "rested": False, "waiting": 69}, Step.REST),
        ({"failing": True, "rested": True, "waiting": 69}, Step.WRITE),
        ({"failing": True, "rested": False, "waiting": 70}, Step.SPILL),
        ({"failing": True, "rested": False, "waiting": 1, "closing": True}, Step.SPILL),
        ({"failing": True, "rested": False, "waiting": 1, "spilled": True}, Step.SPILL),
        ({"failing": True, "rested": True, "waiting": 1, "spilled": True}, Step.DRAIN),
        ({"failing": True, "rested": False, "waiting": 100, "disk": False}, Step.REST),
        ({"failing": True, "spilled": True, "closing": True}, Step.LEAVE),
        ({"failing": True, "waiting": 1, "disk": False, "closing": True}, Step.WRITE),
        ({"failing": True, "waiting": 1, "disk": False, "abandoned": True}, Step.LEAVE),
        ({"spilled": True}, Step.DRAIN),
        ({"spilled": True, "waiting": 69}, Step.DRAIN),
        ({"spilled": True, "waiting": 70}, Step.SPILL),
        ({"spilled": True, "waiting": 100, "disk": False}, Step.DRAIN),
        ({"spilled": True, "closing": True}, Step.DRAIN),
        ({"waiting": 1, "abandoned": True}, Step.SPILL),
        ({"spilled": True, "abandoned": True}, Step.LEAVE),
    ],
)
def test_the_next_step_follows_from_how_things_stand(change: dict[str, bool], step: Step) -> None:
    assert replace(FINE, **change).next() is step


@pytest.mark.parametrize(
    ("change", "health"),
    [
        ({}, Health.OK),
        ({"waiting": 100}, Health.OK),
        ({"failing": True, "waiting": 99}, Health.STALLED),
        ({"failing": True, "spilled": True}, Health.SPILLING),
        ({"spilled": True}, Health.SPILLING),
        ({"failing": True, "waiting": 100}, Health.STALLED),
        ({"failing": True, "waiting": 100, "disk": False}, Health.BLOCKED),
    ],
)
def test_health_is_one_word(change: dict[str, bool], health: Health) -> None:
    assert replace(FINE, **change).health() is health
