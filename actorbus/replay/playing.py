"""One replay as it runs.

Every message of the sandbox has, where it has one, a *twin* in the record. A root is sent with
its twin; what an agent sends gets the next unmatched message that the record has of the same
handling and destination, if both say the same (``record.py`` tells the rule). Where they do
not, the replay has diverged.

So that agents with a state come to the same state, each is given its messages in the order in
which it began to handle their twins: a message whose turn has not come is held, at longest
until the moment (on the turned clock) at which its twin was begun. What load or time decided
is taken from the record too: who was chosen by capability, what expired before it was begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from actorbus.actors.functions import agent_class
from actorbus.actors.reply import Reply
from actorbus.actors.runtime import kebab_case
from actorbus.bus.middleware import Accepted, Dead, Handled, taker
from actorbus.bus.origin import CURRENT
from actorbus.errors import ActorbusError, AgentStopped, NotReplayable, NotStopped
from actorbus.message import MessageId, MessageKind, Reason, Status, format_id
from actorbus.replay.divergence import Difference, Divergence
from actorbus.replay.outside import error_of, error_passed_on, stand_in_class
from actorbus.replay.payloads import Payloads
from actorbus.replay.record import first_to
from actorbus.replay.said import said
from actorbus.replay.sandbox import Sandbox
from actorbus.telemetry import MessageEnded, MessageSent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from actorbus.actors.loader import Broken
    from actorbus.bus.middleware import Handle, Outcome
    from actorbus.message import Ending, Message
    from actorbus.persistence.audit import Audit, Delivery, MessageView
    from actorbus.replay.record import Handling, Record
    from actorbus.replay.said import Said
    from actorbus.telemetry import Event

REPLAY_OF: Final = "replay_of"
"""The header with the id of the message that this one repeats."""

_ANSWERS: Final = frozenset({MessageKind.REPLY, MessageKind.ERROR})
_A_MOMENT: Final = 1e-6
"""Below this, in seconds, sums of node times are not exact."""
_SLACK: Final = 1.0
"""Seconds after the end of the record in which what was under way may still end."""
_OVERTIME: Final = 600.0
"""And this, where a handler is still at work."""


class ReplayOver(BaseException):
    """Ends a handler that waits when the replay is over. Not an error that a handler may eat."""


@dataclass(frozen=True, slots=True)
class Step:
    """One message that was sent: by an agent of the replay, or from history."""

    number: int
    said: Said
    original: MessageView | None
    """The recorded message that it repeats; None where a fork goes its own way."""
    from_history: bool
    """Whether its sender is outside of the replay."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a fork does otherwise: another answer to a request, or another payload."""

    at: MessageId
    what: Literal["answer", "payload"]
    value: Any


@dataclass(frozen=True, slots=True)
class Cast:
    """Who runs for real, and on what."""

    agents: Mapping[str, tuple[Any, tuple[Any, ...], Mapping[str, Any]]]
    load: Any
    types: tuple[type[Any], ...]
    context: Mapping[str, Mapping[str, Any]]


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
        self.divergence: Divergence | None = None
        self.seen = 0
        self.unanswered: list[Said] = []
        self.broken: tuple[Broken, ...] = ()
        self.forked = False
        """Whether the change was made; from then on a difference ends nothing."""
        self._over = False
        self._error: NotReplayable | None = None
        self._record = record
        self._cast = cast
        self._pace = pace
        self._change = change
        self._run_id = run_id
        self._most = 10 * len(record.views) + 1_000
        self._shift = 0.0 if starts is None else starts - record.starts
        self._news: deque[Step] = deque()
        self._twins: dict[MessageId, MessageView] = {}
        self._repeats: dict[MessageId, MessageId] = {}
        self._conversations: dict[MessageId, MessageId] = {}
        self._left: dict[Handling, list[MessageView]] = {
            handling: list(sent) for handling, sent in record.sent.items()
        }
        self._to_come = deque(record.messages)
        self._adopted: set[MessageId] = set()
        self._handled: set[Handling] = set()
        self._orders: dict[str, deque[tuple[float, MessageId]]] = {}
        self._held: dict[Handling, tuple[float, Callable[[], object]]] = {}
        self._named: set[str] = set()
        self._not_sent: dict[MessageId, str] = {}
        self._asked: list[Reply[Any]] = []
        self._loaded: set[str] = set()
        self._chains = 0
        self._outside = stand_in_class(self._answer)
        self.sandbox = Sandbox(self, starts=record.starts + self._shift, seed=seed, audit=audit)
        self._payloads = Payloads((), cast.types, self._ref)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Payload types that nobody knew."""
        return tuple(sorted(self._payloads.unknown))

    # -- the thin loop

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
        try:
            self._begin()
            while not self._over:
                while self._news:
                    yield self._news.popleft()
                if not self.sandbox.give_turns(self._has_news) and not self._time_goes_on():
                    break
            self._check_all_handled()
            yield from self._news
        finally:
            self._end()
        if self._error is not None:
            raise self._error

    def wait(self, done: Callable[[], bool], until: float | None) -> bool:
        """What a handler's ``.get()`` does: others have their turns, and time passes.

        Raises:
            ReplayOver: what it waits for does not come any more.
        """
        clock = self.sandbox.clock
        limit = math.inf if until is None else until
        if until is not None:
            clock.call_at(until, _at_that_time)

        def woken() -> bool:
            return self._over or done() or clock.now() >= limit

        while not woken():
            if self.sandbox.suspend(woken):
                continue
            # Code outside of turns, such as an __init__.
            if not self.sandbox.give_turns(woken) and not self._pass(limit):
                break
        if self._over:
            raise ReplayOver
        return done()

    def _begin(self) -> None:
        node = self.sandbox
        node.telemetry.listen(self._look)
        node.start()
        for name, values in self._cast.context.items():
            owner = name.removeprefix("agent/") if name.startswith("agent/") else None
            namespace = node.context.bound_to(owner).namespace(name)
            for key, value in values.items():
                namespace.set(key, value)
        for name, (agent, args, kwargs) in self._cast.agents.items():
            node.spawn(agent, *args, name=name, **kwargs)
        runtime = node._runtime
        if self._cast.load is not None:
            loaded = node.load(self._cast.load)
            self.broken = loaded.broken
            self._loaded = set(loaded.agents)
        senders = {view.sender for view in self._record.views}
        for name in self._record.names():
            if name in self._loaded:
                runtime.standby.wake(name)
            elif name not in runtime.cells:
                runtime.standby.add(name, self._outside)
        for name in self._loaded & senders:
            runtime.standby.wake(str(name))
        if not any(self._is_here(name) for name in [*self._record.names(), *senders]):
            given = ", ".join(sorted({*self._cast.agents, *self._loaded})) or "nobody"
            raise NotReplayable(
                f"nobody of this conversation is here to replay it: it is between"
                f" {', '.join(self._record.names()) or 'nobody'}; given are {given}"
            )

    def _end(self) -> None:
        self._over = True
        # A handler that waits for what will not come any more is left where it waits.
        with contextlib.suppress(NotStopped):
            self.sandbox.stop()

    def _has_news(self) -> bool:
        return self._over or bool(self._news)

    def _time_goes_on(self) -> bool:
        ends = self._record.ends + self._shift + _SLACK
        if self._pass(ends):
            return True
        return self.sandbox.at_work() and self._pass(ends + _OVERTIME)

    def _pass(self, limit: float) -> bool:
        """Go to what is due next and do it; False if nothing is due up to `limit`."""
        clock = self.sandbox.clock
        arrives = self._moment(self._to_come[0].created_at) if self._to_come else math.inf
        held = min(self._held.items(), key=lambda item: item[1][0], default=None)
        released = math.inf if held is None else held[1][0]
        timer = clock.next_due()
        due = min(arrives, released, math.inf if timer is None else timer)
        if due > limit or due == math.inf:
            if limit != math.inf:
                self._turn_clock(limit)
            return False
        self._turn_clock(due)
        if arrives <= due:
            self._guard(partial(self._arrive, self._to_come.popleft()))
        elif held is not None and released <= due:
            self._release(held[0])
        return True

    def _turn_clock(self, moment: float) -> None:
        gap = moment - self.sandbox.clock.now()
        if gap > 0:
            self._pace(gap)
        self.sandbox.pass_time(max(0.0, gap) + _A_MOMENT)

    def _moment(self, recorded: datetime) -> float:
        return recorded.timestamp() + self._shift

    def _guard(self, act: Callable[[], Any]) -> Any:
        """An error of ours must not be taken for one of the handler that waits meanwhile."""
        try:
            return act()
        except NotReplayable as error:
            self._error = self._error or error
            self._over = True
            return None

    # -- what comes from history

    def _arrive(self, view: MessageView) -> None:
        """Send a recorded message, unless an agent here sends it itself."""
        if view.id in self._adopted:
            return
        caused = view.causation_id in self._record.by_id
        if caused and self.sandbox.inside(view.sender):
            return
        if caused and self.forked and view.causation_id not in self._repeats:
            return
        if view.recipient is not None and not self._is_here(view.recipient):
            return
        message = self._root(view)
        self._remember(message, view)
        self._tell_news(said(message), view)
        bus = self.sandbox.bus
        token = CURRENT.set(None)
        try:
            if message.recipient is None:
                bus.fan_out(message)
            else:
                bus.send(message, bus.inbox(message.recipient))
        except ActorbusError as error:
            self._not_sent[view.id] = str(error)
        finally:
            CURRENT.reset(token)

    def _root(self, view: MessageView) -> Message[Any]:
        runtime = self.sandbox._runtime
        now = self.sandbox.clock.now()
        deadline = None
        if view.deadline is not None:
            deadline = now + (view.deadline - view.created_at).total_seconds()
        answer_to = None
        if view.kind is MessageKind.REQUEST:
            recipient = str(view.recipient)
            owner = runtime.ref(recipient)._cell
            ends = now + runtime.ask_timeout if deadline is None else deadline
            answer_to = Reply[Any](runtime.asking, recipient, now, ends, owner)
            self._asked.append(answer_to)
        message = self.sandbox.bus.stamp(
            view.kind,
            view.recipient,
            self._change_of(view, "payload", lambda: self._rebuilt(view)),
            view.priority,
            topic=view.topic,
            deadline=deadline,
            headers={**view.headers, REPLAY_OF: format_id(view.id)},
            answer_to=answer_to,
        )
        message.sender = view.sender
        message.hops = view.hops
        message.run_id = self._run_id or view.run_id
        message.causation_id = self._repeats.get(view.causation_id or MessageId(0))
        message.correlation_id = self._conversations.setdefault(view.correlation_id, message.id)
        return message

    def _answer(self, message: Message[Any], agent: str) -> Any:
        """What somebody outside answers: as and when they did."""
        if message.answer_to is None:
            return None
        request = self._twins.get(message.id) or self._asked_before(message)
        answer = None
        if request is not None:
            answer = self._guard(partial(self._recorded_answer, request, agent))
        if answer is None:
            return self._has_no_answer(message, agent)
        value, error, after = answer
        runtime = self.sandbox._runtime
        now = self.sandbox.clock.now()
        reply = Reply[Any](runtime.asking, agent, now, now + after + _OVERTIME)
        settle = partial(reply.resolve, value) if error is None else partial(reply.fail, error)
        if after != math.inf:
            self.sandbox.clock.call_at(now + after, settle)
        return reply

    def _recorded_answer(
        self, request: MessageView, agent: str
    ) -> tuple[Any, ActorbusError | None, float] | None:
        """A value or an error, and after how many seconds; None if history has neither."""
        reply = self._record.answers.get(request.id)
        if reply is not None:
            after = (reply.created_at - request.created_at).total_seconds()
            if reply.kind is MessageKind.ERROR:
                return None, error_passed_on(reply, agent), after
            return self._rebuilt(reply), None, after
        ending = self._record.delivery(request, agent)
        if ending is not None and ending.status in (Status.FAILED, Status.DEAD):
            after = (ending.ended_at - request.created_at).total_seconds()
            return None, error_of(request, agent, ending), after
        return (None, None, math.inf) if self._was_waited_out(request) else None

    def _was_waited_out(self, request: MessageView) -> bool:
        """Whether its asker went on without an answer, when the time for it was up."""
        asker = self._record.by_id.get(request.causation_id or MessageId(0))
        if asker is None or request.sender is None or request.deadline is None:
            return False
        ending = self._record.delivery(asker, request.sender)
        return ending is not None and ending.ended_at >= request.deadline

    def _asked_before(self, message: Message[Any]) -> MessageView | None:
        """A recorded request that says the same and was not repeated yet."""
        asked = said(message)
        for view in self._record.messages:
            if (
                view.kind is MessageKind.REQUEST
                and view.id not in self._repeats
                and said(view).same_as(asked)
            ):
                self._repeats[view.id] = message.id
                return view
        return None

    def _has_no_answer(self, message: Message[Any], agent: str) -> Any:
        asked = said(message)
        twin = self._twins.get(message.id)
        if self.forked:
            self.unanswered.append(asked)
            reply = Reply[Any](self.sandbox._runtime.asking, agent, 0.0, math.inf)
            reply.fail(AgentStopped(agent, "is not in this replay, and history has no answer"))
            return reply
        cause = twin or self._twins.get(message.causation_id or MessageId(0))
        note = f"give an agent or a function for {agent!r}, and it will answer"
        self._differs(Difference.UNANSWERED, None, asked, cause, note)
        return None

    # -- what agents send

    def on_send(self, handle: Handle) -> Handle:
        """The middleware that sees every message before it is accepted."""
        # A delayed message comes through a chain of its own, and waits for its time instead.
        self._chains += 1
        in_turn = self._chains == 1

        def send(message: Message[Any]) -> Outcome:
            if self._over:
                return Accepted(0)
            if message.id not in self._twins:
                passed = self._sent(message)
                if passed is None:
                    return Accepted(0)
                message = passed
            if message.recipient is None or not in_turn:
                return handle(message)
            outcome = self.in_turn(message, message.recipient, partial(handle, message))
            return outcome or Accepted()

        return send

    def _sent(self, message: Message[Any]) -> Message[Any] | None:
        """The message as it goes on; None if it may not, because here the replay diverged."""
        says = said(message)
        cause = self._twins.get(message.causation_id or MessageId(0))
        if cause is None or message.sender is None:
            twin = self._adopt(says)
        else:
            twin = self._match(cause, message.sender, says)
        if self._over:
            return None
        self._tell_news(says, twin)
        if twin is None:
            return message
        self._remember(message, twin)
        return message.copy(
            headers={**message.headers, REPLAY_OF: format_id(twin.id)},
            payload=self._change_of(twin, "payload", lambda: message.payload),
        )

    def _match(self, cause: MessageView, sender: str, says: Said) -> MessageView | None:
        """The recorded message that this one repeats."""
        left = self._left.get((cause.id, sender), [])
        twin = first_to(left, says)
        if twin is not None:
            if said(twin).same_as(says):
                left.remove(twin)
                return twin
            if self.forked:
                left.remove(twin)
        if not left and twin is None and self._record.delivery(cause, sender) is None:
            return None  # the record ends within this handling
        expected = twin or (left[0] if left else None)
        difference = Difference.UNEXPECTED if expected is None else Difference.DIFFERENT
        self._differs(difference, expected, says, cause)
        return None

    def _adopt(self, says: Said) -> MessageView | None:
        """For what an agent sends of its own accord (a hook, a timer): its twin is a root.

        It has no twin if the conversation does not tell of it; it is let go, and not compared.
        """
        for view in self._to_come:
            if (
                view.id not in self._adopted
                and view.causation_id not in self._record.by_id
                and view.sender is not None
                and said(view).same_as(says)
            ):
                self._adopted.add(view.id)
                return view
        return None

    def chosen(self, capability: str) -> str | None:
        """Whom the handler at work chose by that capability, in the record."""
        for view in self._left_of_handling():
            name = view.recipient
            if name is not None and (
                not self.sandbox.inside(name)
                or capability in self.sandbox._runtime.cells[name].capabilities
            ):
                return name
        return None

    def chosen_all(self, capability: str) -> list[str]:
        """Who got the same thing at once from the handler at work, in the record."""
        names: list[str] = []
        left = self._left_of_handling()
        for view in left:
            if view.recipient is None or (view.kind, view.type, view.payload) != (
                left[0].kind,
                left[0].type,
                left[0].payload,
            ):
                break
            names.append(view.recipient)
        return names if self.chosen(capability) in names else []

    def next_name(self, cls: type[Any]) -> str | None:
        """The name that the next agent of that class has in the record, if it was not given one."""
        numbered = re.compile(rf"{re.escape(kebab_case(cls.__name__))}-\d+")
        for name in self._record.names():
            if (
                numbered.fullmatch(name)
                and name not in self._named
                and name not in self._cast.agents
            ):
                self._named.add(name)
                return name
        return None

    def _left_of_handling(self) -> list[MessageView]:
        """What the handler at work has still to send, as the record has it."""
        origin = CURRENT.get()
        message = None if origin is None else origin.message
        if origin is None or origin.name is None or message is None:
            return []
        twin = self._twins.get(message.id)
        return [] if twin is None else self._left.get((twin.id, origin.name), [])

    # -- in which order agents get it

    def in_turn(self, message: Message[Any], agent: str, pass_on: Callable[[], Any]) -> Any:
        """Pass `message` on when it is its turn; None if that is later."""
        twin = self._twins.get(message.id)
        if twin is None or not self.sandbox.inside(agent):
            return pass_on()
        order = self._order_at(agent)
        began = next((when for when, message_id in order if message_id == twin.id), None)
        if began is None or order[0][1] == twin.id:
            return pass_on()
        self._held[twin.id, agent] = (began + self._shift, pass_on)
        return None

    def _begun(self, twin: MessageView, agent: str) -> None:
        """`agent` has `twin` in hand: the next one may come."""
        order = self._order_at(agent)
        for entry in order:
            if entry[1] == twin.id:
                order.remove(entry)
                break
        if order and (order[0][1], agent) in self._held:
            self._release((order[0][1], agent))

    def _release(self, held: Handling) -> None:
        _, pass_on = self._held.pop(held)
        try:
            pass_on()
        except ActorbusError as error:
            self._not_sent[held[0]] = str(error)

    def _order_at(self, agent: str) -> deque[tuple[float, MessageId]]:
        order = self._orders.get(agent)
        if order is None:
            order = self._orders[agent] = deque(self._record.order_at(agent))
        return order

    # -- how it ends

    def on_deliver(self, handle: Handle) -> Handle:
        """The middleware that sees every message before its handler starts."""

        def deliver(message: Message[Any]) -> Outcome:
            agent = taker(message)
            twin = self._twins.get(message.id)
            if agent is None or twin is None:
                return handle(message)
            self._begun(twin, agent)
            if self._changes(twin, "answer"):
                return Handled(self._change_of(twin, "answer", lambda: None))
            ending = self._record.delivery(twin, agent)
            if self.forked or not self.sandbox.inside(agent):
                return handle(message)
            if ending is None and twin.kind is MessageKind.BROADCAST and twin.deliveries:
                return Handled()  # it was not there yet when that was said
            if ending is None or not _never_begun(ending):
                return handle(message)
            reason = ending.reason or Reason.REFUSED
            return Dead(reason, ending.error or "", error_of(twin, agent, ending))

        return deliver

    def _look(self, event: Event) -> None:
        if self._over:
            return
        if isinstance(event, MessageEnded):
            self._ended(event.ending)
        elif isinstance(event, MessageSent):
            if event.message.kind in _ANSWERS:
                self._answered(event.message)
            elif event.message.id not in self._twins and event.message.causation_id is None:
                twin = self._adopt(said(event.message))
                if twin is not None:
                    self._remember(event.message, twin)
                    self._tell_news(said(event.message), twin)

    def _answered(self, reply: Message[Any]) -> None:
        """An agent gave an answer: is it the recorded one?"""
        request = self._twins.get(reply.causation_id or MessageId(0))
        expected = None if request is None else self._record.answers.get(request.id)
        says = said(reply)
        compared = (
            request is not None
            and expected is not None
            and self.sandbox.inside(reply.sender)
            and not self._changes(request, "answer")
        )
        if compared and expected is not None and not said(expected).same_as(says):
            self._differs(Difference.DIFFERENT, expected, says, request)
            expected = None
        if self._over:
            return
        self._tell_news(says, expected)
        if expected is not None:
            self._remember(reply, expected)

    def _ended(self, ending: Ending) -> None:
        """A delivery ended: as it did in the record, with all that was to be sent?"""
        twin = self._twins.get(ending.id)
        agent = ending.recipient
        if twin is None or agent is None or ending.kind in _ANSWERS:
            return
        self._handled.add((twin.id, agent))
        expected = self._record.delivery(twin, agent)
        if expected is None or _never_begun(expected) or not self.sandbox.inside(agent):
            return
        if self._changes(twin, "answer"):
            return
        if (ending.status, ending.reason) != (expected.status, expected.reason):
            note = (
                f"{agent} is to end it as {_ended_as(expected.status, expected.error)},"
                f" and ended it as {_ended_as(ending.status, ending.error)}"
            )
            self._differs(Difference.ENDING, twin, None, twin, note)
        elif left := self._left.get((twin.id, agent)):
            note = f"{agent} ended without sending it"
            self._differs(Difference.MISSING, left[0], None, twin, note)

    def _check_all_handled(self) -> None:
        """What was sent and was handled in the record must have been handled here."""
        if self._over or self.forked:
            return
        for view in self._record.messages:
            if view.id not in self._repeats:
                continue
            for one in view.deliveries:
                agent = one.recipient
                if (
                    agent is not None
                    and one.status is Status.HANDLED
                    and self._is_here(agent)
                    and (view.id, agent) not in self._handled
                ):
                    note = self._not_sent.get(view.id, f"{agent} did not handle it to the end")
                    self._differs(Difference.UNHANDLED, view, None, view, note)
                    return

    def _differs(
        self,
        difference: Difference,
        expected: MessageView | None,
        got: Said | None,
        cause: MessageView | None,
        note: str = "",
    ) -> None:
        """The replay differs from its record: the first time it does, that is the divergence."""
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
        self._over = not self.forked

    # -- small things

    def _changes(self, view: MessageView, what: str) -> bool:
        change = self._change
        return change is not None and change.at == view.id and change.what == what

    def _change_of(self, view: MessageView, what: str, otherwise: Callable[[], Any]) -> Any:
        """The changed value, where the fork is here."""
        if self._change is None or not self._changes(view, what):
            return otherwise()
        self.forked = True
        return self._change.value

    def _remember(self, message: Message[Any], view: MessageView) -> None:
        self._twins[message.id] = view
        self._repeats[view.id] = message.id
        self._conversations.setdefault(view.correlation_id, message.correlation_id)

    def _tell_news(self, says: Said, view: MessageView | None) -> None:
        self.seen += 1
        if self.seen > self._most:
            self._error = NotReplayable(
                f"the run goes on and on: {self.seen:,} messages, where the record has"
                f" {len(self._record.views):,}"
            )
            self._over = True
        self._news.append(Step(self.seen, says, view, not self.sandbox.inside(says.sender)))

    def _rebuilt(self, view: MessageView) -> Any:
        for cell in self.sandbox._runtime.cells.values():
            if cell.agent_class is not self._outside:
                self._payloads.learn(agent_class(cell.agent_class))
        return self._payloads.rebuild(view)

    def _ref(self, name: str) -> Any:
        runtime = self.sandbox._runtime
        if name not in runtime.cells:
            runtime.standby.add(name, self._outside)
        return runtime.ref(name)

    def _is_here(self, name: str | None) -> bool:
        return name in self._loaded or self.sandbox.inside(name)


def _at_that_time() -> None:
    """The clock stops where something is due: here, that somebody waits no longer."""


def _never_begun(ending: Delivery) -> bool:
    """Whether it was decided without the handler: by time, by load, by a middleware."""
    return ending.started_at is None and ending.status in (Status.FAILED, Status.DEAD)


def _ended_as(status: Status, error: str | None) -> str:
    last = (error or "").rstrip().rpartition("\n")[2]
    return f"{status} ({last[:200]})" if last else str(status)
