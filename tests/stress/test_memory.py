"""What many messages and many short lives leave behind: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import pytest

PROGRAM: Final = """
import gc, json, os, sys, time
from actorbus import Agent, Node, Settings, handles

def megabytes():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

class Short(Agent):
    @handles
    def work(self, number: int) -> int:
        return number

rounds, warm_up = int(sys.argv[1]), int(sys.argv[2])
with Node(settings=Settings(log_level="off")) as node:
    for number in range(rounds):
        refs = [node.spawn(Short) for _ in range(1_000)]
        for ref in refs:
            for payload in range(9):
                ref.tell(payload)
        assert [ref.ask(1).get() for ref in refs] == [1] * 1_000
        for ref in refs:
            ref.stop()
        while node._runtime.cells:
            time.sleep(0.001)
        if number + 1 == warm_up:
            warm = megabytes()
    print(json.dumps({
        "grew": megabytes() - warm,
        "cells": len(node._runtime.cells),
        "deadlines": len(node._runtime.asking.deadlines),
        "dead_letters": len(node.dead_letters),
        "history": len(node.history),
    }))
"""


def growth(rounds: int, warm_up: int) -> dict[str, float]:
    """What a process that lived for so many rounds of 10,000 messages and 1,000 agents holds."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(rounds), str(warm_up)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def check(found: dict[str, float], megabytes: float) -> None:
    assert found["grew"] < megabytes
    assert (found["cells"], found["deadlines"], found["dead_letters"]) == (0, 0, 0)
    assert found["history"] == 10_000


def test_short_lives_leave_nothing_behind() -> None:
    found = growth(rounds=20, warm_up=10)

    check(found, megabytes=8)


@pytest.mark.stress
def test_a_million_messages_and_a_hundred_thousand_agents_leave_nothing_behind() -> None:
    found = growth(rounds=100, warm_up=30)

    check(found, megabytes=8)
