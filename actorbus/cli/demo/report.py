"""What came of a survey: gathered into plain values, for a program or for a reader."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from actorbus.cli.demo.team import HALTED
from actorbus.errors import Rejected
from actorbus.message import Reason, format_id

if TYPE_CHECKING:
    from pathlib import Path

    from actorbus.bus.dead_letters import DeadLetter
    from actorbus.cli.demo.team import Summary


@dataclass(frozen=True, slots=True, order=True)
class Letter:
    """A dead letter: about which file, which message, and why. ``kind`` is the why in a word."""

    about: str
    id: str
    reason: str
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class History:
    """Where the messages went. ``path`` and ``bytes`` are None where it is no file; a
    ``conversation`` and the ``example`` of a message are ids worth a look."""

    url: str
    run: str
    messages: int
    conversation: str | None
    example: str | None
    path: Path | None = None
    bytes: int | None = None

    @property
    def kept(self) -> bool:
        """Whether it outlives the process that wrote it."""
        return self.path is not None or not self.url.startswith("sqlite")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a survey. ``forgotten``: dead letters that were too many to keep."""

    root: str
    interrupted: bool
    seconds: float
    found: int
    summary: Summary
    letters: tuple[Letter, ...]
    forgotten: int

    @property
    def refused(self) -> list[Letter]:
        """The files that a surveyor looked at and could not parse."""
        return [one for one in self.letters if _is_refusal(one) and one.kind != HALTED]

    @property
    def left(self) -> int:
        """The files that nobody looked at, because of the halt."""
        return sum(_is_refusal(one) and one.kind == HALTED for one in self.letters)

    @property
    def failures(self) -> list[Letter]:
        """What ended otherwise: a mistake of the team, and not of a file."""
        return [one for one in self.letters if not _is_refusal(one)]

    @property
    def lost(self) -> int:
        """Files found that are neither read nor a dead letter; anything but 0 is our mistake."""
        return self.found - self.summary.files - len(self.letters) - self.forgotten

    @property
    def rate(self) -> float:
        """Files a second, read or refused."""
        return (self.summary.files + len(self.refused)) / self.seconds if self.seconds else 0.0

    def by_reason(self) -> list[tuple[str, str, int]]:
        """Reason, kind and number of the dead letters, most first."""
        counted = Counter((one.reason, one.kind) for one in self.letters)
        return [(reason, kind, number) for (reason, kind), number in counted.most_common()]


def letter(dead: DeadLetter) -> Letter:
    """`dead` in plain words."""
    payload = dead.message.payload
    # The error is that of an ask that was refused; the sentence before the reason adds nothing.
    preface = str(Rejected(dead.recipient or "", ""))
    why = (dead.error or "").removeprefix(preface)
    refused = dead.reason == Reason.REJECTED
    return Letter(
        id=format_id(dead.id),
        about=getattr(payload, "path", dead.message.type),
        reason=str(dead.reason),
        kind=why.partition(":")[0] if refused else "",
        why=why if refused else (why.strip().splitlines() or [""])[-1],
    )


def plain(report: Report, history: History | None) -> dict[str, Any]:
    """The report in JSON's words."""
    summary = report.summary
    return {
        "root": report.root,
        "interrupted": report.interrupted,
        "seconds": round(report.seconds, 3),
        "files": {
            "found": report.found,
            "read": summary.files,
            "refused": len(report.refused),
            "left": report.left,
            "per_second": round(report.rate, 1),
        },
        "totals": {
            "bytes": summary.bytes,
            "lines": summary.lines,
            "functions": summary.functions,
            "classes": summary.classes,
            "documented": summary.documented,
            "modules_imported": summary.modules,
        },
        "largest_files": [
            {"path": one.path, "lines": one.lines, "bytes": one.bytes} for one in summary.largest
        ],
        "longest_functions": [asdict(one) for one in summary.longest],
        "most_imported": [{"module": module, "files": files} for module, files in summary.imported],
        "surveyors": [{**asdict(one), "cpu": round(one.cpu, 3)} for one in summary.tallies],
        "dead_letters": {
            "by_reason": [
                {"reason": reason, "kind": kind, "messages": number}
                for reason, kind, number in report.by_reason()
            ],
            "letters": [asdict(one) for one in report.letters],
            "forgotten": report.forgotten,
        },
        "folders_unlisted": summary.folders_unlisted,
        "unlisted": [asdict(one) for one in summary.unlisted],
        "history": None
        if history is None
        else {**asdict(history), "path": None if history.path is None else str(history.path)},
    }


def _is_refusal(one: Letter) -> bool:
    return one.reason == Reason.REJECTED
