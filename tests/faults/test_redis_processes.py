"""Processes that fork, or end without closing their node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.deployment import AGENTS, Deployment, check_ledger

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.faults

SENT = 1_000
GONE_WITHIN = 5.0


def begun(deployment: Deployment, how: str) -> subprocess.Popen[str]:
    """A process that has sent all, and written down what was accepted."""
    leaver = deployment.start(
        "redis_leaver.py", deployment.url, "p", str(deployment.ledger), ",".join(AGENTS), how
    )
    deployment.senders.append(leaver)
    deployment.is_up(leaver)
    return leaver


def test_44_a_child_that_was_forked_is_refused_and_disturbs_nothing(
    deployment: Deployment,
) -> None:
    deployment.node("n1", AGENTS)

    begun(deployment, "forks")

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0, messages=SENT)


def test_45_an_interpreter_that_ends_without_closing_its_node_loses_nothing(
    deployment: Deployment,
) -> None:
    deployment.node("n1", AGENTS)

    leaver = begun(deployment, "leaves")
    said = time.monotonic()
    leaver.wait(2 * GONE_WITHIN)
    took = time.monotonic() - said

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0, messages=SENT)
    assert took <= GONE_WITHIN
