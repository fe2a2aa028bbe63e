"""One survey, from the first message to the last: how a program uses a node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from actorbus.cli.demo.progress import look
from actorbus.cli.demo.report import History, Report, letter
from actorbus.cli.demo.team import (
    HALTED,
    Explore,
    Halt,
    Librarian,
    Scout,
    SourceFile,
    SumUp,
    Surveyor,
)
from actorbus.errors import NotDrained
from actorbus.message import Priority, format_id

if TYPE_CHECKING:
    from pathlib import Path

    from actorbus.cli.demo.interrupt import Interrupt
    from actorbus.cli.demo.progress import LiveProgress
    from actorbus.node import Node

_LOOK_EVERY: Final = 0.1


def survey(
    node: Node, root: Path, agents: int, interrupt: Interrupt, progress: LiveProgress
) -> Report:
    """Survey `root` with a team of `agents` surveyors; until done, or `interrupt` is asked.

    Raises:
        KeyboardInterrupt: it was asked twice.
    """
    started = time.monotonic()
    node.spawn(Librarian, name="librarian")
    for number in range(1, agents + 1):
        node.spawn(Surveyor, name=f"surveyor-{number}")
    node.spawn(Scout, name="scout").tell(Explore(str(root)))
    _wait(node, interrupt, progress)
    seconds = time.monotonic() - started
    summary = node.ask("librarian", SumUp()).get()
    letters = node.dead_letters
    return Report(
        root=str(root),
        interrupted=interrupt.asked,
        seconds=seconds,
        found=look(node).found,
        summary=summary,
        letters=tuple(sorted(map(letter, letters.list(limit=letters.capacity)))),
        forgotten=letters.forgotten,
    )


def history(node: Node, run: str, report: Report) -> History:
    """What was written, and two ids worth a look.

    Raises:
        AuditUnavailable: it cannot be read.
    """
    audit = node.audit
    asked = audit.messages(run=run, type=SumUp.__name__, limit=1)
    examples = [one.id for one in report.letters if one.kind != HALTED]
    if not examples:
        last = audit.messages(run=run, type=SourceFile.__name__, limit=1)
        examples = [format_id(one.id) for one in last]
    return History(
        url=audit.url,
        run=run,
        messages=audit.counts().messages,
        conversation=format_id(asked[0].id) if asked else None,
        example=examples[0] if examples else None,
        path=audit.path,
    )


def _wait(node: Node, interrupt: Interrupt, progress: LiveProgress) -> None:
    """Until nobody has anything left to do; on the way, pass on the wish to halt."""
    halting = False
    while True:
        try:
            node.drain(timeout=_LOOK_EVERY)
        except NotDrained:
            progress.show(look(node))
        else:
            return
        if interrupt.asked and not halting:
            halting = True
            progress.say("Halting")
            node.broadcast(Halt("interrupted"), priority=Priority.URGENT)
