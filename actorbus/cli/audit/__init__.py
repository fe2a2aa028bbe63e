"""``actorbus audit``: read message history, one command a file.

Exit codes: 0 found, 1 the history cannot be read or has no such message, 2 wrong usage,
3 it is not as it should be (``verify``: tampered with, ``replay``: diverged, ``repair``: not sent),
130 interrupted.
"""

from __future__ import annotations

import typer

from actorbus.cli.audit.anchors import anchors
from actorbus.cli.audit.causes import causes
from actorbus.cli.audit.conversation import conversation
from actorbus.cli.audit.export import export
from actorbus.cli.audit.hold import hold
from actorbus.cli.audit.list import list_messages
from actorbus.cli.audit.redact import redact
from actorbus.cli.audit.repair import repair
from actorbus.cli.audit.replay import replay
from actorbus.cli.audit.retain import retain
from actorbus.cli.audit.runs import runs
from actorbus.cli.audit.show import show
from actorbus.cli.audit.tail import tail
from actorbus.cli.audit.talk import talk
from actorbus.cli.audit.times import times
from actorbus.cli.audit.verify import verify

app = typer.Typer(
    name="audit",
    help="Read message history: who said what to whom, and what became of it.",
    epilog=(
        "Exit codes: 0 found, 1 the history cannot be read or has no such message,"
        " 2 wrong usage, 3 it was tampered with (verify), it diverged (replay) or something was not"
        " sent (repair), 130 interrupted."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("list")(list_messages)
app.command()(show)
app.command()(conversation)
app.command()(replay)
app.command()(repair)
app.command()(tail)
app.command()(causes)
app.command()(talk)
app.command()(times)
app.command()(runs)
app.command()(export)
app.command()(verify)
app.command()(retain)
app.command()(redact)
app.command()(hold)
app.command()(anchors)
