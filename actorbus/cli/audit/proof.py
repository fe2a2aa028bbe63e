"""What the commands about proof share."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from actorbus.cli import terminal
from actorbus.cli.audit.common import answered, history
from actorbus.errors import HistoryHeld, UnknownRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.persistence.audit import Audit

T = TypeVar("T")

Why = Annotated[str, typer.Option("--why", help="The reason, which history keeps.")]
Who = Annotated[
    str | None, typer.Option("--by", help="Who answers for it. Default: the user of this shell.")
]
SigningKey = Annotated[
    Path | None,
    typer.Option("--signing-key", help="PEM file with the Ed25519 key that signs the anchor."),
]
Anchors = Annotated[
    Path | None, typer.Option("--anchors", help="The anchors. Default: beside the database.")
]


def proven(
    url: str | None, tenant: str, *, anchors: Path | None = None, signing_key: Path | None = None
) -> Audit:
    """The history that is meant, with its anchors."""
    place = True if anchors is None else anchors
    return answered(lambda: history(url, tenant, "default", anchors=place, signing_key=signing_key))


def done(do: Callable[[], T]) -> T:
    """What `do` returns; what it refuses ends the command with a sentence."""
    try:
        return answered(do)
    except (HistoryHeld, UnknownRecord) as error:
        terminal.fail(str(error), 1)


def whoever(given: str | None) -> str:
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        terminal.fail("nobody is logged in here: say who does it with --by", 2)
