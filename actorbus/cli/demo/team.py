"""The team that surveys a source tree: a scout, several surveyors, a librarian.

The scout finds the files and gives each to the least busy surveyor. A surveyor reads and parses
it and publishes what it found, or refuses the file with a reason. The librarian listens, and
gathers the findings in shared context; in the end it asks every surveyor what it did.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from actorbus.actors.agent import Agent
from actorbus.actors.handlers import handles
from actorbus.actors.supervision import Supervision
from actorbus.bus.mailbox import MailboxPolicy
from actorbus.cli.demo.source import Findings, Function, Unlisted, examine, walk
from actorbus.errors import ActorbusError, Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.context.context import Context

SURVEY: Final = "survey"
"""The capability of a surveyor, and the namespace of shared context where findings are."""

HALTED: Final = "halted"
"""The kind of reason of a file that nobody looked at any more."""

_BATCH: Final = 32
_RANKS: Final = 10

R = TypeVar("R", Findings, Function)


@dataclass(frozen=True, slots=True)
class Explore:
    """To the scout: survey the tree at `root`."""

    root: str


@dataclass(frozen=True, slots=True)
class SurveyBegins:
    """To everyone: we begin, at `root`."""

    root: str


@dataclass(frozen=True, slots=True)
class GoOn:
    """From the scout to itself: the next files."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """To a surveyor: look at this file. The path is relative to the root."""

    path: str


@dataclass(frozen=True, slots=True)
class Halt:
    """To everyone, and urgent: begin nothing new."""

    why: str


@dataclass(frozen=True, slots=True)
class SayWhatYouDid:
    """To a surveyor, who answers with a ``Tally``."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What one surveyor did. ``cpu`` is in seconds of its own thread."""

    name: str
    files: int
    refused: int
    lines: int
    cpu: float


@dataclass(frozen=True, slots=True)
class SumUp:
    """To the librarian, who answers with a ``Summary``."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All that was found. ``imported`` is by how many files, most first; of the folders that
    could not be listed, ``unlisted`` are the first."""

    files: int
    bytes: int
    lines: int
    functions: int
    classes: int
    documented: int
    modules: int
    largest: tuple[Findings, ...]
    longest: tuple[Function, ...]
    imported: tuple[tuple[str, int], ...]
    folders_unlisted: int
    unlisted: tuple[Unlisted, ...]
    tallies: tuple[Tally, ...]


class Scout(Agent):
    """Finds the files. It goes on by a message to itself, so that a halt gets in between."""

    def __init__(self) -> None:
        self._tree: Iterator[str | Unlisted] = iter(())
        self._halted = False

    @handles
    def explore(self, order: Explore) -> None:
        self.broadcast(SurveyBegins(order.root))
        self._tree = walk(Path(order.root))
        self.tell(self.ref, GoOn())

    @handles
    def go_on(self, _: GoOn) -> None:
        if self._halted:
            return
        batch = list(islice(self._tree, _BATCH))
        files = [path for path in batch if isinstance(path, str)]
        self.context.namespace(SURVEY).increment("found", len(files))
        for path in files:
            self.any(SURVEY).tell(SourceFile(path))
        for folder in batch:
            if isinstance(folder, Unlisted):
                self.publish("survey.unlisted", folder)
        if batch:
            self.tell(self.ref, GoOn())

    @handles
    def halt(self, _: Halt) -> None:
        self._halted = True


class Surveyor(Agent):
    """Reads and parses files, and publishes what they hold."""

    capabilities = (SURVEY,)
    # Small enough to hold the scout back on a tree of a million files.
    mailbox = MailboxPolicy(capacity=1_000)
    # A file that brings out a mistake of ours costs that file, not the tally.
    supervision = Supervision(on_failure="resume")

    def __init__(self) -> None:
        self._root = Path()
        self._halted = False
        self._files = self._refused = self._lines = 0
        self._cpu = 0.0

    @handles
    def begin(self, start: SurveyBegins) -> None:
        self._root = Path(start.root)

    @handles
    def survey(self, file: SourceFile) -> None:
        if self._halted:
            raise Reject(f"{HALTED}: nobody had begun with it")
        started = time.thread_time()
        try:
            findings = examine(self._root, file.path)
        except Reject:
            self._refused += 1
            raise
        finally:
            self._cpu += time.thread_time() - started
        self._files += 1
        self._lines += findings.lines
        self.publish("survey.findings", findings)

    @handles
    def halt(self, _: Halt) -> None:
        self._halted = True

    @handles
    def tally(self, _: SayWhatYouDid) -> Tally:
        return Tally(self.name, self._files, self._refused, self._lines, self._cpu)


class Librarian(Agent):
    """Gathers what the others publish in shared context, where everyone may look it up."""

    subscriptions = ("survey.*",)

    @handles
    def begin(self, start: SurveyBegins) -> None:
        self._shelf.set("root", start.root)

    @handles
    def gather(self, found: Findings) -> None:
        self._shelf.commit(
            increment={
                "files": 1,
                "bytes": found.bytes,
                "lines": found.lines,
                "functions": found.functions,
                "classes": found.classes,
                "documented": found.documented,
                **{f"imported/{module}": 1 for module in found.imports},
            }
        )
        self._shelf.update("largest", lambda top: _ranked(top, found), ())
        if found.longest is not None:
            longest = found.longest
            self._shelf.update("longest", lambda top: _ranked(top, longest), ())

    @handles
    def note(self, folder: Unlisted) -> None:
        self._shelf.increment("folders unlisted")
        self._shelf.update("unlisted", lambda known: (*known, folder)[:_RANKS], ())

    @handles
    def halt(self, order: Halt) -> None:
        self._shelf.set("halted", order.why)

    @handles
    def sum_up(self, _: SumUp) -> Summary:
        answers = self.all(SURVEY).ask(SayWhatYouDid()).get()
        shelf = self._shelf.snapshot()
        imported = [
            (key.removeprefix("imported/"), files)
            for key, files in shelf.items()
            if key.startswith("imported/")
        ]
        return Summary(
            files=shelf.get("files", 0),
            bytes=shelf.get("bytes", 0),
            lines=shelf.get("lines", 0),
            functions=shelf.get("functions", 0),
            classes=shelf.get("classes", 0),
            documented=shelf.get("documented", 0),
            modules=len(imported),
            largest=shelf.get("largest", ()),
            longest=shelf.get("longest", ()),
            imported=tuple(sorted(imported, key=lambda one: (-one[1], one[0]))[:_RANKS]),
            folders_unlisted=shelf.get("folders unlisted", 0),
            unlisted=shelf.get("unlisted", ()),
            tallies=tuple(one for one in answers if not isinstance(one, ActorbusError)),
        )

    @property
    def _shelf(self) -> Context:
        return self.context.namespace(SURVEY)


def _ranked(top: tuple[R, ...], one: R) -> tuple[R, ...]:
    """The longest of `top` and `one`, longest first; of equal ones the first by path."""
    ranks = list(top)
    ranks.append(one)
    return tuple(sorted(ranks, key=lambda each: (-each.lines, each.path))[:_RANKS])
