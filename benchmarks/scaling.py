"""``python -m benchmarks.scaling``: how cost grows with agents, nodes, size and fan-out.

Each point is a node (or several) beside a Redis of its own; a run takes about a minute. Prints
tables, and draws each curve with ``--svg FOLDER``.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from benchmarks.redis.lab import lab
from benchmarks.redis.payloads import AGENTS, SIZE, payload, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_MESSAGES: Final = 10_000
_MOST_BYTES: Final = 60_000_000
_WARM_UP: Final = 500


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    rate: float
    """Messages (deliveries) a second, end to end."""
    redis: float
    """Microseconds of Redis a message (delivery)."""


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    x: str
    points: Sequence[Point]


def curves(*, share: float = 1.0) -> list[Curve]:
    """Measure all; `share` of the messages."""
    most = int(_MESSAGES * share)
    return [
        Curve("agents", "agents that messages go to", [
            Point(count, *_tell(most, agents=count)) for count in (1, 10, 100, 1_000)
        ]),
        Curve("nodes", "nodes that share 60 agents", [
            Point(count, *_tell(most, agents=60, nodes=count)) for count in (1, 2, 3)
        ]),
        Curve("size", "bytes of a payload", [
            Point(size, *_tell(min(most, _MOST_BYTES // size), size=size))
            for size in (100, 1_000, 10_000, 100_000)
        ]),
        Curve("fan-out", "subscribers on one node, figures a delivery", [
            Point(count, *_publish(most // (4 * count) + 100, count)) for count in (1, 10, 100)
        ]),
    ]  # fmt: skip


def _tell(n: int, *, agents: int = AGENTS, nodes: int = 1, size: int = SIZE) -> tuple[float, float]:
    from actorbus import Node
    from benchmarks.redis.agents import name_of

    each, text = agents // nodes, text_of(size)
    n, warm_up = n - n % nodes, _WARM_UP - _WARM_UP % agents if agents <= _WARM_UP else agents
    with lab() as here, Node(here.url, name="sender") as node, ExitStack() as stack:
        shares = [_share(range(warm_up, warm_up + n), agents, each, one) for one in range(nodes)]
        before = [_share(range(warm_up), agents, each, one) for one in range(nodes)]
        consumers = [
            stack.enter_context(
                here.consumer(
                    "benchmarks.redis.node", "work", str(each), str(each * one),
                    milestones=(before[one], before[one] + shares[one]),
                )
            )
            for one in range(nodes)
        ]  # fmt: skip
        for consumer in consumers:
            consumer.reached(0)
        refs = [node.ref(name_of(number)) for number in range(agents)]

        def send(start: int, stop: int) -> None:
            for number in range(start, stop):
                refs[number % agents].tell(payload(number, text))
            node.flush(60.0)

        send(0, warm_up)
        for one, consumer in enumerate(consumers):
            consumer.reached(before[one])
        busy, start = here.server.cpu_seconds(), monotonic()
        send(warm_up, warm_up + n)
        ends = [
            consumer.reached(before[one] + shares[one]) for one, consumer in enumerate(consumers)
        ]
        return n / (max(ends) - start), (here.server.cpu_seconds() - busy) / n * 1e6


def _share(numbers: range, agents: int, each: int, node: int) -> int:
    """How many of those messages go to the agents of a node."""
    return sum(number % agents // each == node for number in numbers)


def _publish(n: int, subscribers: int) -> tuple[float, float]:
    from benchmarks.redis.fan_out import kept

    sample = kept("", subscribers).case("actorbus").run(n)
    return sample["rate"], sample["redis"]


def table(curve: Curve) -> Table:
    made = Table(curve.x, "messages/s", "us of Redis", "messages/s Redis could carry", box=None)
    made.title = curve.name
    for one in curve.points:
        could = f"{1e6 / one.redis:,.0f}" if one.redis else ""
        made.add_row(f"{one.x:,}", f"{one.rate:,.0f}", f"{one.redis:.1f}", could)
    return made


def svg(curve: Curve, *, width: int = 480, height: int = 240) -> str:
    """The microseconds of Redis over x, as bars: few points, far apart."""
    left, bottom, top = 50, 40, 30
    highest = max((one.redis for one in curve.points), default=0.0) or 1.0
    step = (width - left) / max(1, len(curve.points))
    bars = []
    for number, one in enumerate(curve.points):
        tall = one.redis / highest * (height - top - bottom)
        x, y = left + step * number, height - bottom - tall
        middle = x + step * 0.35
        bars.append(
            f'<rect x="{x:.0f}" y="{y:.1f}" width="{step * 0.7:.0f}" height="{tall:.1f}"/>'
            f'<text x="{middle:.0f}" y="{y - 4:.1f}">{one.redis:.1f}</text>'
            f'<text x="{middle:.0f}" y="{height - bottom + 16}">{one.x:,}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="12" text-anchor="middle" fill="#456">'
        f'<text x="{width / 2:.0f}" y="14">us of Redis a message</text>{"".join(bars)}'
        f'<text x="{width / 2:.0f}" y="{height - 6}">{curve.x}</text></svg>\n'
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="draw the curves there")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    options = parser.parse_args(arguments)
    console = Console()
    for curve in curves(share=0.1 if options.quick else 1.0):
        console.print(table(curve))
        if options.svg:
            options.svg.mkdir(parents=True, exist_ok=True)
            (options.svg / f"{curve.name}.svg").write_text(svg(curve))


if __name__ == "__main__":
    main()
