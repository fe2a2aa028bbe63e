"""``Replay``: a stored conversation runs again, offline. Read this page first.

The agents that are given run for real, on a node of their own: one handler at a time, a clock
that is turned, a bus that nobody else is on. Everybody else is *outside* (a model, a database, a
remote service) and is played from history: what they sent comes again, and what they were asked
is answered as they answered. What an agent does past the bus (files, sockets, random numbers) is
its own; give it a stand-in for what must not happen twice.

What is compared, and what is no difference: ``record.py``. How it runs: ``playing.py``. How
payloads come back from JSON: ``payloads.py``.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from actorbus.actors.functions import agent_class
from actorbus.errors import NotReplayable
from actorbus.message import check_name, format_id, parse_id
from actorbus.persistence.audit import Audit
from actorbus.replay.cast import Cast
from actorbus.replay.course import Change, Step
from actorbus.replay.playing import Playing
from actorbus.replay.record import Record

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from uuid import UUID

    from actorbus.actors.loader import Broken
    from actorbus.message import MessageId
    from actorbus.persistence.answers import MessageView
    from actorbus.replay.divergence import Divergence
    from actorbus.replay.said import Said

_MOST: Final = 10_000
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a replay."""

    divergence: Divergence | None
    """The first difference from the record; a replay ends there, a fork goes on."""
    steps: tuple[Step, ...]
    recorded: int
    """How many messages the record has."""
    forked: bool
    """Whether the change of a fork was made."""
    unanswered: tuple[Said, ...]
    """What a fork asked the outside and history had no answer to: those asks failed."""
    unknown_types: tuple[str, ...]
    """Payload types that nobody knew, and that stayed plain JSON; name them in ``types=``."""
    broken: tuple[Broken, ...]
    """Modules at ``load=`` that could not be used."""
    run_id: str | None
    """The run that a fork was recorded as."""

    @property
    def same(self) -> bool:
        """Whether all went as recorded."""
        return self.divergence is None and not self.forked


class Replay:
    """A stored conversation, ready to run again.

    ::

        replay = Replay(node.audit, message_id, agents={"editor": Editor})
        outcome = replay.run()
        print(outcome.divergence or "the same")

    Args:
        history: an ``Audit``, or the messages themselves.
        id: with an Audit, the conversation: the id of any message in it.
        agents: who runs for real: name to agent class or function, or to a
            ``functools.partial`` of one, for arguments.
        load: a file, folder or package whose agents run for real, as ``node.load`` names them.
        types: classes of payloads that no handler's hints name.
        speed: how many times faster than it was; None: without waiting.
        seed: decides between turns where the record does not.
        context: what shared state begins with: namespace to ``snapshot()``.
        sleep: how real time passes, where `speed` wants it to.

    Raises:
        NotReplayable, InvalidName, AuditUnavailable: it cannot run, as the error says.
    """

    def __init__(
        self,
        history: Audit | Iterable[MessageView],
        id: MessageId | str | UUID | None = None,
        *,
        agents: Mapping[str, Any] | None = None,
        load: str | os.PathLike[str] | None = None,
        types: Iterable[type[Any]] = (),
        speed: float | None = None,
        seed: int = 0,
        context: Mapping[str, Mapping[str, Any]] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._record = Record(_views(history, id))
        if not agents and load is None:
            raise NotReplayable("who is to run? Give agents={'name': AgentClass}, or load=path")
        self._cast = Cast(_spawnable(agents or {}), load, tuple(types), context or {})
        self._seed = seed
        self._pace = _pace(speed, sleep)
        self._playing: Playing | None = None
        self._steps: Iterator[Step] = iter(())
        self._done: list[Step] = []

    def run(self) -> Outcome:
        """Run to the end, or to the first difference; from where ``step`` has come to.

        Raises:
            NotReplayable: it cannot run on, as the error says.
        """
        while self.step() is not None:
            pass
        assert self._playing is not None  # noqa: S101 - step() has made it
        return self._outcome(self._playing, self._done)

    def step(self) -> Step | None:
        """The next message; None at the end.

        A handler that waits in ``.get()`` runs to its end with all that it waits for: its
        messages are then given one by one.
        """
        if self._playing is None:
            self._playing = self._play()
            self._steps = self._playing.play()
        step = next(self._steps, None)
        if step is not None:
            self._done.append(step)
        return step

    def steps(self) -> Iterator[Step]:
        """All messages that are still to come."""
        while (step := self.step()) is not None:
            yield step

    def fork(
        self,
        at: MessageId | str | UUID,
        *,
        answer: Any = _NOTHING,
        payload: Any = _NOTHING,
        agents: Mapping[str, Any] | None = None,
        audit: str | Audit | None = None,
        run_id: str | None = None,
    ) -> Outcome:
        """Run anew with one thing changed; what follows from it may be anything.

        The record is never changed. With `audit` the new run is written there, under `run_id`
        (one is made up), its messages with new ids, of this time, and with the header
        ``replay_of`` where they repeat one.

        Args:
            at: a request, or its reply, to be answered otherwise; or, with `payload`, any
                message that an agent of the replay sends or is sent.
            answer: what the request is answered.
            payload: what the message says.
            agents: who runs for real as well, such as a stand-in for what history cannot answer.
            audit: where to write it: a URL, or an Audit whose tenant and project are taken.
            run_id: the name of the new run.

        Raises:
            NotReplayable: there is no such message, or it runs on and on.
        """
        change = self._change(at, answer, payload)
        if audit is not None:
            run_id = check_name("a run", run_id or f"fork-{uuid4()}")
        cast = Cast(
            {**self._cast.agents, **_spawnable(agents or {})},
            self._cast.load,
            self._cast.types,
            self._cast.context,
        )
        playing = Playing(
            self._record,
            cast,
            seed=self._seed,
            pace=self._pace,
            change=change,
            starts=None if audit is None else time.time(),
            audit=audit,
            run_id=run_id,
        )
        return self._outcome(playing, list(playing.play()), run_id)

    def _play(self) -> Playing:
        return Playing(self._record, self._cast, seed=self._seed, pace=self._pace)

    def _outcome(self, playing: Playing, steps: list[Step], run_id: str | None = None) -> Outcome:
        return Outcome(
            playing.divergence,
            tuple(steps),
            len(self._record.views),
            playing.forked,
            playing.unanswered,
            playing.unknown,
            playing.broken,
            run_id,
        )

    def _change(self, at: MessageId | str | UUID, answer: Any, payload: Any) -> Change:
        if (answer is _NOTHING) == (payload is _NOTHING):
            raise NotReplayable("a fork changes one thing: give answer= or payload=")
        message_id = parse_id(at)
        view = self._record.by_id.get(message_id)
        if view is None:
            raise NotReplayable(f"this conversation has no message {format_id(message_id)}")
        if payload is not _NOTHING:
            return Change(message_id, "payload", payload)
        request = self._record.request(message_id)
        if request is None:
            raise NotReplayable(
                f"message {format_id(message_id)} is a {view.kind}, which nobody answers;"
                " payload= changes what it says"
            )
        return Change(request.id, "answer", answer)

    def __repr__(self) -> str:
        return f"<Replay of {len(self._record.views)} messages>"


def _views(
    history: Audit | Iterable[MessageView], id: MessageId | str | UUID | None
) -> Iterable[MessageView]:
    if not isinstance(history, Audit):
        return history
    if id is None:
        raise NotReplayable("which conversation? Give the id of any message in it")
    views = history.conversation(id, limit=_MOST)
    if len(views) == _MOST:
        raise NotReplayable(f"the conversation has {_MOST:,} messages or more: too many to replay")
    return views


def _spawnable(
    agents: Mapping[str, Any],
) -> dict[str, tuple[Any, tuple[Any, ...], Mapping[str, Any]]]:
    """What to give to ``node.spawn``, by name."""
    found: dict[str, tuple[Any, tuple[Any, ...], Mapping[str, Any]]] = {}
    for name, given in agents.items():
        is_partial = isinstance(given, functools.partial)
        made, args, kwargs = (
            (given.func, given.args, given.keywords) if is_partial else (given, (), {})
        )
        agent_class(made)
        found[check_name("an agent", name)] = (made, args, kwargs)
    return found


def _pace(speed: float | None, sleep: Callable[[float], object]) -> Callable[[float], object]:
    """How long, really, so many turned seconds take."""
    if speed is None:
        return _at_once
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 < speed < math.inf:
        raise NotReplayable(f"speed is {speed!r}: it must be a number above 0, such as 1 or 10")
    return lambda seconds: sleep(seconds / speed)


def _at_once(_: float) -> None:
    return None
