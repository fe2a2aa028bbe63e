"""Slow subscribers, and such as are away: real nodes, and a publisher in this process."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from actorbus import Node
from tests.faults.deployment import AT_LENGTH, p99

if TYPE_CHECKING:
    from tests.faults.deployment import Deployment

pytestmark = pytest.mark.faults

EVENTS = 10_000 if AT_LENGTH else 1_000
FEW = 500
"""Events of a second."""
AWAY = 30.0 if AT_LENGTH else 1.0
QUICK = [f"follower-{number}" for number in range(5)]
SLOW = "slow-follower-1"


def publish(deployment: Deployment, name: str, count: int, *, rate: float = 0) -> dict[int, float]:
    """Publish so many numbers as `name`; when each was."""
    sent = {}
    with Node(deployment.url, name=name) as node:
        topic = node.topic("news")
        began = time.monotonic()
        for number in range(count):
            if rate and (early := began + number / rate - time.monotonic()) > 0:
                time.sleep(early)
            sent[number] = time.monotonic()
            topic.publish(f"{name} {number} ")
        node.flush(60.0)
    return sent


def heard(deployment: Deployment, agent: str, publisher: str) -> list[int]:
    """The numbers that an agent has had, in its order."""
    found = (one.message.rsplit(" ", 2) for one in deployment.ran())
    return [int(number) for name, sender, number in found if (name, sender) == (agent, publisher)]


def latencies(deployment: Deployment, publisher: str, sent: dict[int, float]) -> list[float]:
    """From when events were published to when the quick had them; sorted, in seconds."""
    found = [(one.message.rsplit(" ", 2), one.at) for one in deployment.ran()]
    return sorted(
        at - sent[int(number)]
        for (name, sender, number), at in found
        if sender == publisher and name in QUICK
    )


def test_15_a_slow_subscriber_holds_up_nobody_and_loses_nothing(deployment: Deployment) -> None:
    deployment.node("n1", QUICK)

    def quick_have(publisher: str) -> bool:
        return all(len(heard(deployment, name, publisher)) == EVENTS for name in QUICK)

    calm = publish(deployment, "calm", EVENTS, rate=FEW)
    deployment.wait(lambda: quick_have("calm"), "all events")
    deployment.node("n2", [SLOW])
    slowed = publish(deployment, "slowed", EVENTS, rate=FEW)
    deployment.wait(lambda: quick_have("slowed"), "all events")
    behind = EVENTS - len(heard(deployment, SLOW, "slowed"))
    deployment.wait(lambda: len(heard(deployment, SLOW, "slowed")) == EVENTS, "the slow one")

    assert behind > 0
    for name in (*QUICK, SLOW):
        assert heard(deployment, name, "slowed") == list(range(EVENTS))
    if AT_LENGTH:
        before, then = latencies(deployment, "calm", calm), latencies(deployment, "slowed", slowed)
        assert p99(then) <= 1.2 * p99(before)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_16_a_subscriber_that_was_away_gets_everything_in_order_and_once(
    deployment: Deployment, how: signal.Signals
) -> None:
    node = deployment.node("n1", QUICK)
    publish(deployment, "before", 10)
    deployment.wait(
        lambda: all(len(heard(deployment, name, "before")) == 10 for name in QUICK), "the first"
    )
    time.sleep(0.5)  # until the server knows that they have had those

    node.send_signal(how)
    node.wait(20.0)
    publish(deployment, "meanwhile", EVENTS)
    time.sleep(AWAY)
    deployment.node("n2", [])

    deployment.wait(
        lambda: all(len(heard(deployment, name, "meanwhile")) >= EVENTS for name in QUICK),
        "what was missed",
    )
    for name in QUICK:
        assert heard(deployment, name, "before") == list(range(10))
        assert heard(deployment, name, "meanwhile") == list(range(EVENTS))
