"""The command line: one command a file."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import actorbus
from actorbus.cli.agents import agents
from actorbus.cli.ask import ask
from actorbus.cli.audit import app as audit
from actorbus.cli.context import app as context
from actorbus.cli.dead_letters import app as dead_letters
from actorbus.cli.demo import demo
from actorbus.cli.doctor import doctor
from actorbus.cli.keys import keys
from actorbus.cli.node import node
from actorbus.cli.nodes import nodes
from actorbus.cli.send import send
from actorbus.cli.terminal import write_whatever_it_is
from actorbus.cli.top import top
from actorbus.cli.topics import topics

app = typer.Typer(
    name="actorbus",
    help="A message bus that teams of agents run on.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Help and usage errors as plain sentences: a frame is what gets in the way of a pipe.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(agents)
app.command()(ask)
app.command()(demo)
app.command()(doctor)
app.command()(keys)
app.command()(node)
app.command()(nodes)
app.command()(send)
app.command()(top)
app.command()(topics)
app.add_typer(audit, name="audit")
app.add_typer(context, name="context")
app.add_typer(dead_letters, name="dead-letters")


def main() -> None:
    """Run the command line and exit."""
    write_whatever_it_is()
    try:
        app(prog_name="actorbus")
    except OSError as error:
        # Commands name the files they fail on, so this is where they write: a full disk.
        sys.exit(f"Error: cannot write the results: {error.strerror or error}")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"actorbus {actorbus.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None: ...
