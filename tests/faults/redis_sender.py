"""A process that sends, and writes down what was accepted."""

from __future__ import annotations

import os
import sys
import time

from actorbus import Node

TOGETHER = 200


def main(url: str, name: str, ledger: str, count: str, agents: str, size: str, rate: str) -> None:
    out = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    filling = "x" * int(size)
    together = TOGETHER if float(rate) == 0.0 else max(1, min(TOGETHER, int(float(rate) / 20)))
    names = agents.split(",")
    with Node(url, name=name) as node:
        refs = [node.ref(agent) for agent in names]
        sys.stdout.write("up\n")
        sys.stdout.flush()
        began = time.monotonic()
        for start in range(0, int(count), together):
            lines = []
            for number in range(start, min(start + together, int(count))):
                ref = refs[number % len(refs)]
                lines.append(f"{ref.name} {name} {number} {time.monotonic():.4f}\n")
                ref.tell(f"{name} {number} {filling}")
            node.flush(60.0)
            os.write(out, "".join(lines).encode())
            if float(rate):
                time.sleep(max(0.0, began + (start + together) / float(rate) - time.monotonic()))
        if letters := node.dead_letters.list():
            raise SystemExit(f"{len(letters)} refused, such as {letters[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
