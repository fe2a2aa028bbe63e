"""A process that sends, and then ends without a word to its node; or forks in the midst."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from actorbus import ActorbusError, Node

if TYPE_CHECKING:
    from collections.abc import Callable

HALF = 500


def main(url: str, name: str, ledger: str, agents: str, how: str) -> None:
    out = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    node = Node(url, name=name).start()
    refs = [node.ref(agent) for agent in agents.split(",")]

    def send(first: int) -> list[str]:
        lines = []
        for number in range(first, first + HALF):
            ref = refs[number % len(refs)]
            lines.append(f"{ref.name} {name} {number} {time.monotonic():.4f}\n")
            ref.tell(f"{name} {number} ")
        return lines

    lines = send(0)
    if how == "forks":
        child = os.fork()
        if child == 0:
            os._exit(_as_child(node, lambda: refs[0].tell(f"{name} -1 ")))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    lines += send(HALF)
    node.flush(60.0)
    os.write(out, "".join(lines).encode())
    sys.stdout.write("up\n")
    sys.stdout.flush()
    if how == "forks":
        node.stop()


def _as_child(node: Node, tell: Callable[[], object]) -> int:
    """How many of the things that a node does were not refused to a child."""
    done = 0
    for act in (tell, node.flush, lambda: node.ask("anybody", 1).get(), node.context.keys):
        try:
            act()
        except ActorbusError:
            continue
        done += 1
    return done


if __name__ == "__main__":
    main(*sys.argv[1:])
