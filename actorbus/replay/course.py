"""The course that a replay takes: its steps, where it first differs, whether it goes on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from actorbus.errors import NotReplayable
from actorbus.replay.divergence import Difference, Divergence
from actorbus.replay.said import said

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.message import MessageId
    from actorbus.persistence.answers import MessageView
    from actorbus.replay.payloads import Payloads
    from actorbus.replay.record import Record
    from actorbus.replay.said import Said


@dataclass(frozen=True, slots=True)
class Step:
    """One message that was sent: by an agent of the replay, or from history."""

    number: int
    said: Said
    original: MessageView | None
    """The recorded message that it repeats; None where a fork goes its own way."""
    from_history: bool
    """Whether its sender is outside of the replay, or sent it in a run that is not repeated."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a fork does otherwise: another answer to a request, or another payload."""

    at: MessageId
    what: Literal["answer", "payload"]
    value: Any


class Course:
    """Goes on until the replay is over: at its first difference, or if it cannot run on.

    A fork goes on after a difference, once its change was made.
    """

    def __init__(
        self,
        record: Record,
        payloads: Payloads,
        *,
        inside: Callable[[str | None], bool],
        change: Change | None,
    ) -> None:
        self.news: deque[Step] = deque()
        """Steps that nobody has seen yet."""
        self.divergence: Divergence | None = None
        self.error: NotReplayable | None = None
        self.over = False
        self.forked = False
        """Whether the change was made; from then on a difference ends nothing."""
        self.not_sent: dict[MessageId, str] = {}
        """Recorded messages that were not accepted here, and why."""
        self._record = record
        self._payloads = payloads
        self._inside = inside
        self._change = change
        self._steps = 0
        self._most = 10 * len(record.views) + 1_000

    @property
    def unknown(self) -> tuple[str, ...]:
        """Payload types that nobody knew."""
        return tuple(sorted(self._payloads.unknown))

    def went(self, says: Said, view: MessageView | None) -> None:
        """A message was sent that repeats `view`, or none of the record."""
        self._steps += 1
        if self._steps > self._most:
            self._fail(
                NotReplayable(
                    f"the run goes on and on: {self._steps:,} messages, where the record has"
                    f" {len(self._record.views):,}"
                )
            )
        outrun = view is not None and view.id in self._record.outrun
        self.news.append(Step(self._steps, says, view, outrun or not self._inside(says.sender)))

    def differs(
        self,
        difference: Difference,
        expected: MessageView | None,
        got: Said | None,
        cause: MessageView | None,
        note: str = "",
    ) -> None:
        """It differs from the record: the first time it does, that is the divergence."""
        if self.divergence is None:
            if self.unknown:
                unknown = f"nobody knows the class {', '.join(self.unknown)}; name it in types="
                note = f"{note}; {unknown}" if note else unknown
            at = expected or cause
            self.divergence = Divergence(
                difference,
                None if expected is None else said(expected),
                got,
                0 if at is None else self._record.position[at.id],
                len(self._record.views),
                self._record.chain(cause),
                note,
            )
        self.over = not self.forked

    def guard(self, act: Callable[[], Any]) -> Any:
        """An error of ours must not be taken for one of the handler that waits meanwhile."""
        try:
            return act()
        except NotReplayable as error:
            self._fail(error)
            return None

    def changes(self, view: MessageView, what: str) -> bool:
        """Whether the fork is here."""
        change = self._change
        return change is not None and change.at == view.id and change.what == what

    def changed(self, view: MessageView, what: str, otherwise: Callable[[], Any]) -> Any:
        """The changed value, where the fork is here."""
        if self._change is None or not self.changes(view, what):
            return otherwise()
        self.forked = True
        return self._change.value

    def _fail(self, error: NotReplayable) -> None:
        self.error = self.error or error
        self.over = True
