"""A process that sends, and writes down what was accepted."""

from __future__ import annotations

import os
import sys

from actorbus import Node

TOGETHER = 200


def main(url: str, name: str, ledger: str, count: str, agents: str) -> None:
    out = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    names = agents.split(",")
    with Node(url, name=name) as node:
        refs = [node.ref(agent) for agent in names]
        sys.stdout.write("up\n")
        sys.stdout.flush()
        for start in range(0, int(count), TOGETHER):
            lines = []
            for number in range(start, min(start + TOGETHER, int(count))):
                ref = refs[number % len(refs)]
                ref.tell(f"{name} {number}")
                lines.append(f"{ref.name} {name} {number}\n")
            node.flush(60.0)
            os.write(out, "".join(lines).encode())
        if letters := node.dead_letters.list():
            raise SystemExit(f"refused: {letters}")


if __name__ == "__main__":
    main(*sys.argv[1:])
