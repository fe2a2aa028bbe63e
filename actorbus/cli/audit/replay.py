"""``actorbus audit replay``.

Exit codes: 0 all went as recorded, 3 it diverged; else as for ``actorbus audit``.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import AsJson, History, console, inert, print_json
from actorbus.cli.terminal import fail
from actorbus.persistence.drawing.wording import counted

if TYPE_CHECKING:
    from rich.text import Text

    from actorbus.replay import Outcome, Replay, Step

DIVERGED: Final = 3
_WIDEST: Final = 100


@command
def replay(
    id: Annotated[
        str, typer.Argument(metavar="ID", help="The id of any message of the conversation.")
    ],
    load: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The agents that run for real: a file, folder or package. History plays the rest.",
        ),
    ],
    history: History,
    speed: Annotated[
        float | None,
        typer.Option(help="So many times faster than it was. Default: without waiting."),
    ] = None,
    step: Annotated[bool, typer.Option("--step", help="Wait for Enter at each message.")] = False,
    seed: Annotated[int, typer.Option(help="Decides the order where the record does not.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run a conversation again, offline, and say where it first differs from its record.

    Exit codes: 0 all went as recorded, 3 it diverged.
    """
    from actorbus.replay import Replay

    if speed is not None and not 0 < speed < math.inf:
        fail(f"--speed is {speed}: it must be a number above 0, such as 1 or 10", 2)
    made = Replay(history, id, load=load, speed=speed, seed=seed)
    outcome = _run(made, step=step, shown=not as_json)
    for broken in outcome.broken:
        console(stderr=True).print(inert(f"not loaded: {broken}"), style="yellow")
    if as_json:
        print_json(_plain(outcome))
    else:
        _say(outcome)
    if outcome.divergence is not None:
        raise typer.Exit(DIVERGED)


def _run(made: Replay, *, step: bool, shown: bool) -> Outcome:
    page = console()
    for one in made.steps():
        if shown:
            page.print(_line(one), no_wrap=True, overflow="ellipsis")
        if step:
            step = sys.stdin.readline() != ""
    return made.run()


def _line(one: Step) -> Text:
    payload = repr(one.said.payload)
    if len(payload) > _WIDEST:
        payload = f"{payload[: _WIDEST - 1]}…"
    style = "dim" if one.from_history else ""
    return inert(f"{one.number:>5}  {one.said}  {payload}", style=style)


def _say(outcome: Outcome) -> None:
    page = console()
    if outcome.unknown_types:
        names = ", ".join(outcome.unknown_types)
        said = inert(f"plain JSON, for want of a class: {names}")
        console(stderr=True).print(said, style="yellow")
    if outcome.divergence is None:
        messages = counted(len(outcome.steps), "message")
        page.print(f"the same: {messages}, {outcome.recorded:,} recorded")
    else:
        page.print(inert(str(outcome.divergence), lines=True))


def _plain(outcome: Outcome) -> dict[str, object]:
    divergence = outcome.divergence
    return {
        "same": outcome.same,
        "messages": len(outcome.steps),
        "recorded": outcome.recorded,
        "divergence": None if divergence is None else divergence.as_json(),
        "unknown_types": list(outcome.unknown_types),
        "broken": [str(broken) for broken in outcome.broken],
    }
