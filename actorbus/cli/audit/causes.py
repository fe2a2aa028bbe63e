"""``actorbus audit causes``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import (
    AsJson,
    History,
    Id,
    addressed,
    console,
    inert,
    print_json,
    standing,
)
from actorbus.cli.terminal import fail
from actorbus.message import format_id
from actorbus.persistence.drawing.plain import plain
from actorbus.persistence.drawing.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.persistence.answers import MessageView, Tree


@command
def causes(
    id: Id,
    history: History,
    depth: Annotated[int, typer.Option(help="At most so many steps up and down.")] = 100,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many effects.")] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Draw what caused a message and what it caused."""
    found = history.tree(id, depth=depth, limit=limit)
    if found is None:
        fail(f"history has no message {id}", 1)
    if as_json:
        print_json(_as_json(found))
        return
    page = console()
    for line in _lines(found):
        page.print(line, no_wrap=True, overflow="ellipsis")
    for sentence in _missing(found):
        console(stderr=True).print(sentence, style="dim")


def _lines(tree: Tree) -> Iterator[Text]:
    """One line a message, indented under its cause; the one asked for is marked."""
    for at, cause in enumerate(tree.causes):
        yield _line(at, cause)
    own = len(tree.causes)
    yield _line(own, tree.message, asked=True)
    for effect in tree.effects:
        yield _line(own + effect.depth, effect.message)


def _line(depth: int, view: MessageView, *, asked: bool = False) -> Text:
    line = Text("=> " if asked else "   ", style="bold" if asked else "")
    line.append(f"{'  ' * min(depth, 24)}")
    line.append_text(inert(view.sender or "(outside)"))
    line.append(" ──> ", style="dim")
    line.append_text(inert(addressed(view)))
    line.append("  ")
    line.append_text(inert(view.type))
    line.append("  ")
    line.append_text(standing(view))
    line.append(f"  {format_id(view.id)}", style="dim")
    return line


def _missing(tree: Tree) -> Iterator[str]:
    if tree.lost_cause is not None:
        yield f"Its first cause here was caused by {format_id(tree.lost_cause)}, which is not here."
    if tree.left_out:
        yield f"Left out: {counted(tree.left_out, 'more effect')}; see --depth and --limit."
    if not tree.complete:
        yield "The conversation is very long: only its first messages were looked through."


def _as_json(tree: Tree) -> dict[str, Any]:
    return {
        "causes": [plain(view) for view in tree.causes],
        "message": plain(tree.message),
        "effects": [{"depth": one.depth, "message": plain(one.message)} for one in tree.effects],
        "left_out": tree.left_out,
        "complete": tree.complete,
        "lost_cause": None if tree.lost_cause is None else format_id(tree.lost_cause),
    }
