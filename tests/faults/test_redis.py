"""Faults of nodes and Redis, in short for each change; `make faults` runs them at length."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Node
from actorbus.bus.transports.redis.reading import ACK_BATCH
from tests.faults.deployment import (
    AGENTS,
    AT_LENGTH,
    DEADLINE,
    MESSAGES,
    RATE,
    SWEEP,
    TAKEN_OVER,
    TTL,
    check_ledger,
    check_recovery,
    p99,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.deployment import Deployment


def test_1_a_node_that_is_killed_loses_nothing_and_repeats_one_batch_an_agent(
    deployment: Deployment,
) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.node("n3", [])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    deployment.nodes["n1"].kill()
    killed = time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    assert deployment.owned("n1") == []
    check_recovery(deployment, killed, within=TAKEN_OVER)


def test_4_a_node_that_is_told_to_stop_repeats_nothing(deployment: Deployment) -> None:
    leaving = deployment.node("n1", AGENTS)
    deployment.send()
    deployment.has_run(MESSAGES // 5)
    deployment.node("n2", [])

    leaving.terminate()

    assert leaving.wait(DEADLINE) == 0
    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)


@pytest.mark.parametrize("times_ttl", [0.5, 1.5, 3.0] if AT_LENGTH else [0.5, 1.5])
def test_5_a_node_that_was_frozen_is_fenced_if_others_took_over(
    deployment: Deployment, times_ttl: float
) -> None:
    frozen = deployment.node("n1", AGENTS)
    deployment.node("n2", [])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    frozen.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    time.sleep(times_ttl * TTL)
    frozen.send_signal(signal.SIGCONT)

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0 if times_ttl < 1 else ACK_BATCH)
    check_recovery(
        deployment, began, within=times_ttl * TTL + SWEEP if times_ttl < 1 else TAKEN_OVER
    )


@pytest.mark.parametrize("away", [0.1, 1.0, 10.0] if AT_LENGTH else [0.2])
def test_6_a_server_that_is_killed_and_comes_back_costs_nothing(
    deployment: Deployment, redis: Any, away: float
) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    redis.kill()
    time.sleep(away)
    redis.start()
    back = time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    check_recovery(deployment, back, within=2.0)
    assert [deployment.owned("n1"), deployment.owned("n2")] == [AGENTS[::2], AGENTS[1::2]]


@pytest.mark.parametrize("seconds", [1.0, 6.0, 30.0] if AT_LENGTH else [1.5 * TTL])
def test_8_a_server_that_is_frozen_kills_nobody(
    deployment: Deployment, redis: Any, seconds: float
) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    redis.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    redis.process.send_signal(signal.SIGCONT)
    back = time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)
    deployment.recovered_from(back)
    assert deployment.owned("n1") == AGENTS[::2]


def test_12_answers_that_are_lost_after_the_command_ran_double_nothing(
    deployment: Deployment, make_proxy: Callable[[str], Any]
) -> None:
    proxy = make_proxy(deployment.url)
    deployment.node("n1", AGENTS, url=proxy.url)
    # Sent as fast as can be, 3,000 messages are a handful of answers.
    deployment.send(url=proxy.url, rate=RATE or MESSAGES / 2)

    # As many at length as in short: each costs a pause.
    proxy.lose = min(0.25, 2_000 / MESSAGES)
    deployment.has_run(MESSAGES // 2)
    proxy.lose /= 5

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)
    assert proxy.lost > 20


def test_18_a_message_that_kills_its_node_is_given_up_after_the_third(
    deployment: Deployment,
) -> None:
    deployment.node("n0", AGENTS)
    for number in range(1, 4):
        deployment.node(f"n{number}", [])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    with Node(deployment.url) as poisoner:
        poisoner.tell(AGENTS[0], "poison 0")

    deployment.finish()
    poisoned = [one for one in deployment.ran() if one.message == f"{AGENTS[0]} poison 0"]
    assert len(poisoned) == 3
    assert sum(node.poll() is not None for node in deployment.nodes.values()) == 3
    (letter,) = deployment.log.letters()
    assert letter["reason"] == "crashed-owner"
    assert b"poison 0" in letter["blob"]
    deployment.strike_out("poison")
    check_ledger(deployment, repeats_an_agent=3 * ACK_BATCH)


def test_13_bells_that_nobody_hears_lose_nothing(deployment: Deployment) -> None:
    deployment.node("n1", AGENTS, bells=False)

    deployment.send()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)


@pytest.mark.skipif(not AT_LENGTH, reason="only where nothing else keeps the machine busy")
def test_13_a_message_whose_bell_is_not_heard_is_late_by_no_more_than_a_sweep(
    deployment: Deployment,
) -> None:
    deployment.node("n1", AGENTS, bells=False)

    deployment.send(400, rate=20)

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0, messages=400)
    assert p99(deployment.latencies(AGENTS)) <= SWEEP + 0.05
