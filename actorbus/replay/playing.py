"""One replay as it runs: its time, and what it does with each message.

Every message of the sandbox has, where it has one, a *twin* in the record (``twins.py``). A root
is sent with its twin (``roots.py``), what an agent sends is matched with it (``script.py``), and
each agent gets its messages in the order of their twins (``order.py``). Where what an agent says
or how it ends (``endings.py``) is not what its twin has, the replay has diverged
(``course.py``). Whoever is outside answers from history (``answers.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorbus.actors.functions import agent_class
from actorbus.bus.middleware import Accepted, Deliver, Send, taker
from actorbus.errors import NotReplayable, NotStopped
from actorbus.message import format_id
from actorbus.replay.answers import OVERTIME, Answers
from actorbus.replay.course import Course
from actorbus.replay.endings import Endings
from actorbus.replay.order import Order
from actorbus.replay.outside import stand_in_class
from actorbus.replay.payloads import Payloads
from actorbus.replay.record import ANSWERS
from actorbus.replay.roots import Roots
from actorbus.replay.said import said
from actorbus.replay.sandbox import Sandbox
from actorbus.replay.script import Choices, Script
from actorbus.replay.twins import REPLAY_OF, Twins
from actorbus.telemetry import MessageEnded, MessageSent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.actors.loader import Broken
    from actorbus.bus.middleware import Handle, Outcome
    from actorbus.message import Message
    from actorbus.persistence.answers import MessageView
    from actorbus.persistence.audit import Audit
    from actorbus.replay.cast import Cast
    from actorbus.replay.course import Change, Step
    from actorbus.replay.divergence import Divergence
    from actorbus.replay.record import Record
    from actorbus.replay.said import Said
    from actorbus.telemetry import Event

_A_MOMENT: Final = 1e-6
"""Below this, in seconds, sums of node times are not exact."""
_SLACK: Final = 1.0
"""Seconds after the end of the record in which what was under way may still end."""


class ReplayOver(BaseException):
    """Ends a handler that waits when the replay is over. Not an error that a handler may eat."""


class Playing:
    """A record, played once."""

    def __init__(
        self,
        record: Record,
        cast: Cast,
        *,
        seed: int,
        pace: Callable[[float], object],
        change: Change | None = None,
        starts: float | None = None,
        audit: str | Audit | None = None,
        run_id: str | None = None,
    ) -> None:
        self.broken: tuple[Broken, ...] = ()
        self._record = record
        self._cast = cast
        self._pace = pace
        shift = 0.0 if starts is None else starts - record.starts
        self._ends = record.ends + shift
        self._chains = 0
        self._twins = twins = Twins()
        self._payloads = Payloads((), cast.types, self._ref)
        self._course = course = Course(record, self._payloads, inside=self._inside, change=change)
        self._script = Script(record, twins, course)
        self._order = Order(record, twins, course, inside=self._inside, shift=shift)
        self._sandbox = Sandbox(
            self._order,
            Choices(record, self._script, cast.agents),
            wait=self._wait,
            middleware=[Send(self._on_send), Deliver(self._on_deliver)],
            starts=record.starts + shift,
            seed=seed,
            audit=audit,
        )
        self._roots = Roots(
            record,
            twins,
            course,
            self._sandbox,
            shift=shift,
            rebuild=self._rebuilt,
            run_id=run_id,
        )
        self._answers = Answers(record, twins, course, self._sandbox, rebuild=self._rebuilt)
        self._stand_in = stand_in_class(self._answers.answer)
        self._endings = Endings(record, twins, course, self._script, self._sandbox)

    @property
    def divergence(self) -> Divergence | None:
        return self._course.divergence

    @property
    def forked(self) -> bool:
        """Whether the change of a fork was made."""
        return self._course.forked

    @property
    def unanswered(self) -> tuple[Said, ...]:
        """What a fork asked the outside, and history has no answer to."""
        return tuple(self._answers.missing)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Payload types that nobody knew."""
        return self._course.unknown

    # -- the thin loop, and time

    def play(self) -> Iterator[Step]:
        """Run to the end, or to the first difference; each message as it is sent.

        Raises:
            NotReplayable: it cannot run on, as the error says.
        """
        if asyncio._get_running_loop() is not None:
            raise NotReplayable(
                "a replay has an event loop of its own; here, on a running one, write"
                " `await asyncio.to_thread(replay.run)`"
            )
        course = self._course
        try:
            self._begin()
            while not course.over:
                while course.news:
                    yield course.news.popleft()
                if not self._sandbox.give_turns(self._has_news) and not self._time_goes_on():
                    break
            self._endings.check_all_handled()
            yield from course.news
        finally:
            self._end()
        if course.error is not None:
            raise course.error

    def _begin(self) -> None:
        self._sandbox.telemetry.listen(self._look)
        self._sandbox.start()
        self.broken = self._cast.enter(self._sandbox, self._record, self._stand_in)

    def _end(self) -> None:
        self._course.over = True
        # A handler that waits for what will not come any more is left where it waits.
        with contextlib.suppress(NotStopped):
            self._sandbox.stop()

    def _has_news(self) -> bool:
        return self._course.over or bool(self._course.news)

    def _wait(self, done: Callable[[], bool], until: float | None) -> bool:
        """What a handler's ``.get()`` does: others have their turns, and time passes.

        Raises:
            ReplayOver: what it waits for does not come any more.
        """
        clock = self._sandbox.clock
        limit = math.inf if until is None else until
        if until is not None:
            clock.call_at(until, _at_that_time)

        def woken() -> bool:
            return self._course.over or done() or clock.now() >= limit

        while not woken():
            if self._sandbox.suspend(woken):
                continue
            # Code outside of turns, such as an __init__.
            if not self._sandbox.give_turns(woken) and not self._pass(limit):
                break
        if self._course.over:
            raise ReplayOver
        return done()

    def _time_goes_on(self) -> bool:
        ends = self._ends + _SLACK
        if self._pass(ends):
            return True
        return self._sandbox.at_work() and self._pass(ends + OVERTIME)

    def _pass(self, limit: float) -> bool:
        """Go to what is due next and do it; False if nothing is due up to `limit`."""
        arrives = self._roots.due()
        released = self._order.due()
        timer = self._sandbox.clock.next_due()
        due = min(arrives, released, math.inf if timer is None else timer)
        if due > limit or due == math.inf:
            if limit != math.inf:
                self._turn_clock(limit)
            return False
        self._turn_clock(due)
        if arrives <= due:
            self._course.guard(self._roots.arrive)
        elif released <= due:
            self._order.release()
        return True

    def _turn_clock(self, moment: float) -> None:
        gap = moment - self._sandbox.clock.now()
        if gap > 0:
            self._pace(gap)
        self._sandbox.pass_time(max(0.0, gap) + _A_MOMENT)

    # -- each message

    def _on_send(self, handle: Handle) -> Handle:
        """The middleware that sees every message before it is accepted."""
        # A delayed message comes through a chain of its own, and waits for its time instead.
        self._chains += 1
        in_turn = self._chains == 1

        def send(message: Message[Any]) -> Outcome:
            if self._course.over:
                return Accepted(0)
            if self._twins.of(message.id) is None:
                passed = self._sent(message)
                if passed is None:
                    return Accepted(0)
                message = passed
            if message.recipient is None or not in_turn:
                return handle(message)
            pass_on = partial(handle, message)
            outcome: Outcome | None = self._order.in_turn(message, message.recipient, pass_on)
            return outcome or Accepted()

        return send

    def _sent(self, message: Message[Any]) -> Message[Any] | None:
        """The message as it goes on; None if it may not, because here the replay diverged."""
        says = said(message)
        cause = self._twins.of(message.causation_id)
        if cause is None or message.sender is None:
            twin = self._roots.adopt(says)
        else:
            twin = self._script.match(cause, message.sender, says)
        if self._course.over:
            return None
        self._course.went(says, twin)
        if twin is None:
            return message
        self._twins.pair(message, twin)
        return message.copy(
            headers={**message.headers, REPLAY_OF: format_id(twin.id)},
            payload=self._course.changed(twin, "payload", lambda: message.payload),
        )

    def _on_deliver(self, handle: Handle) -> Handle:
        """The middleware that sees every message before its handler starts."""

        def deliver(message: Message[Any]) -> Outcome:
            agent = taker(message)
            twin = self._twins.of(message.id)
            if agent is None or twin is None:
                return handle(message)
            self._order.begun(twin, agent)
            return self._endings.foretold(twin, agent) or handle(message)

        return deliver

    def _look(self, event: Event) -> None:
        if self._course.over:
            return
        if isinstance(event, MessageEnded):
            self._endings.ended(event.ending)
        elif isinstance(event, MessageSent):
            if event.message.kind in ANSWERS:
                self._endings.answered(event.message)
            elif event.message.causation_id is None and self._twins.of(event.message.id) is None:
                self._sent_past_us(event.message)

    def _sent_past_us(self, message: Message[Any]) -> None:
        """A message that took no middleware was sent."""
        says = said(message)
        twin = self._roots.adopt(says)
        if twin is not None:
            self._twins.pair(message, twin)
            self._course.went(says, twin)

    # -- who is who

    def _inside(self, name: str | None) -> bool:
        return self._sandbox.inside(name)

    def _ref(self, name: str) -> Any:
        self._sandbox.stand_in(name, self._stand_in)
        return self._sandbox._runtime.ref(name)

    def _rebuilt(self, view: MessageView) -> Any:
        """The payload of `view`; agents that came meanwhile know its class, maybe."""
        for cls in self._sandbox.real_classes():
            self._payloads.learn(agent_class(cls))
        return self._payloads.rebuild(view)


def _at_that_time() -> None:
    """The clock stops where something is due: here, that somebody waits no longer."""
