"""How far the survey is, live on stderr."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn

from actorbus.cli.demo.team import SURVEY
from actorbus.cli.terminal import console

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from actorbus.node import Node


@dataclass(frozen=True, slots=True)
class Standing:
    """Files found so far, files done (read or refused), and files that wait for a surveyor."""

    found: int
    done: int
    queued: int


def look(node: Node) -> Standing:
    """Where the survey stands, as anybody outside it can see."""
    shelf = node.context.namespace(SURVEY)
    letters = len(node.dead_letters) + node.dead_letters.forgotten
    return Standing(
        found=shelf.get("found", 0),
        done=shelf.get("files", 0) + letters,
        queued=sum(surveyor.load for surveyor in node.registry.find(capability=SURVEY)),
    )


@dataclass(frozen=True, slots=True)
class _RoomForCtrlC:
    """`line`, and room for two ^C behind it: on a full line their echo would wrap, and stay."""

    line: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, options.max_width - len("^C^C"))
        yield from console.render(self.line, options.update_width(room))


class _Line(Progress):
    def get_renderable(self) -> RenderableType:
        return _RoomForCtrlC(super().get_renderable())


class LiveProgress:
    """A line that moves, where stderr is a terminal that can do that; else nothing at all.

    It leaves nothing behind when it ends.
    """

    def __init__(self) -> None:
        screen = console(stderr=True)
        self._progress = _Line(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} files"),
            TextColumn("[cyan]{task.fields[rate]:,.0f}/s"),
            TextColumn("[dim]{task.fields[queued]:,} queued"),
            console=screen,
            expand=True,
            transient=True,
            auto_refresh=False,
            disable=not sys.stderr.isatty() or screen.is_dumb_terminal,
        )
        self._task = self._progress.add_task("Surveying", total=0, rate=0.0, queued=0)
        self._started = time.monotonic()

    def show(self, standing: Standing) -> None:
        """Move the line to `standing`."""
        seconds = time.monotonic() - self._started
        self._progress.update(
            self._task,
            total=standing.found,
            completed=standing.done,
            rate=standing.done / seconds if seconds > 0 else 0.0,
            queued=standing.queued,
            refresh=True,
        )

    def say(self, what: str) -> None:
        """Call what goes on by another name."""
        self._progress.update(self._task, description=what, refresh=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
