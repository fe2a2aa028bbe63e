"""What an agent may do from inside its handlers, and in whose name it does it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import (
    AccessDenied,
    Agent,
    AgentStopped,
    AskTimeout,
    InvalidArgument,
    InvalidHandler,
    InvalidName,
    Message,
    NameTaken,
    Node,
    NoHandler,
    NoProvider,
    Reason,
    Ref,
    Terminated,
    UnknownRecipient,
    agent,
    handles,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 10.0


class Call:
    def __init__(self, function: Callable[[Does], Any]) -> None:
        self.function = function


class Does(Agent):
    """Does what it is told: a payload is a function that is called with the agent."""

    @handles
    def do(self, act: Call) -> Any:
        return act.function(self)


class Box:
    """A mailbox of a test: what arrived, waited for."""

    def __init__(self, node: Node, name: str) -> None:
        self.mailbox = node.mailbox(name)
        self.name = name

    def next(self) -> Message[Any]:
        [message] = self.mailbox.take(1, timeout=DEADLINE)
        return message


@pytest.fixture
def box(node: Node) -> Box:
    return Box(node, "box")


def run(ref: Ref, function: Callable[[Does], Any]) -> Any:
    return ref.ask(Call(function)).get(DEADLINE)


class TestSending:
    def test_what_a_handler_sends_comes_from_its_agent_and_was_caused_by_its_message(
        self, node: Node, box: Box
    ) -> None:
        ref = node.spawn(Does, name="doer")

        def send(self: Does) -> Message[Any]:
            self.tell("box", "a")
            return self.message

        cause = run(ref, send)
        sent = box.next()

        assert sent.sender == "doer"
        assert sent.causation_id == cause.id
        assert sent.correlation_id == cause.correlation_id == cause.id
        assert (cause.hops, sent.hops) == (0, 1)

    def test_a_ref_used_inside_a_handler_sends_as_that_agent(self, node: Node, box: Box) -> None:
        other = node.spawn(Does, name="other")
        doer = node.spawn(Does, name="doer")

        run(doer, lambda self: other.tell(Call(lambda self: self.tell("box", self.message))))
        second = box.next()
        first = second.payload

        assert (first.sender, first.recipient) == ("doer", "other")
        assert (second.sender, second.recipient) == ("other", "box")
        assert second.correlation_id == first.correlation_id
        assert (first.hops, second.hops) == (1, 2)

    def test_code_outside_agents_has_no_name(self, node: Node, box: Box) -> None:
        node.tell("box", "a")

        sent = box.next()

        assert sent.sender is None
        assert sent.causation_id is None
        assert sent.correlation_id == sent.id

    def test_what_on_start_sends_comes_from_the_agent(self, node: Node, box: Box) -> None:
        class Eager(Agent):
            def on_start(self) -> None:
                self.tell("box", "here")

        node.spawn(Eager, name="eager")

        assert box.next().sender == "eager"

    def test_tell_carries_priority_and_headers(self, node: Node, box: Box) -> None:
        ref = node.spawn(Does)

        run(ref, lambda self: self.tell("box", 1, priority="urgent", headers={"a": "b"}))  # type: ignore[arg-type]
        sent = box.next()

        assert sent.priority.name == "URGENT"
        assert sent.headers == {"a": "b"}

    def test_ask_takes_a_name_or_a_ref(self, node: Node) -> None:
        @agent
        def double(number: int) -> int:
            return 2 * number

        other = node.spawn(double, name="double")
        ref = node.spawn(Does)

        by_name = run(ref, lambda self: self.ask("double", 3).get())
        by_ref = run(ref, lambda self: self.ask(other, 4).get())

        assert (by_name, by_ref) == (6, 8)

    def test_an_unknown_name_comes_out_of_the_reply_of_an_ask(self, node: Node) -> None:
        node.spawn(Does, name="doer")

        def ask(self: Does) -> str:
            reply = self.ask("dower", 1)
            with pytest.raises(UnknownRecipient, match="Did you mean 'doer'"):
                reply.get()
            with pytest.raises(UnknownRecipient, match="Did you mean 'doer'"):
                self.tell("dower", 1)
            return "as it should"

        assert run(node.ref("doer"), ask) == "as it should"

    @pytest.mark.parametrize("to", ["", "a\n", " a", "*", 3, None])
    def test_what_is_no_name_is_refused(self, node: Node, to: Any) -> None:
        def send(self: Does) -> str:
            with pytest.raises(InvalidName):
                self.tell(to, 1)
            with pytest.raises(InvalidName):
                self.ask(to, 1)
            return "as it should"

        assert run(node.spawn(Does), send) == "as it should"

    def test_any_and_all_find_agents_by_capability(self, node: Node) -> None:
        @agent(capabilities=("double",))
        def double(number: int) -> int:
            return 2 * number

        node.spawn(double)
        node.spawn(double)
        ref = node.spawn(Does)

        assert run(ref, lambda self: self.any("double").ask(3).get()) == 6
        assert run(ref, lambda self: self.all("double").ask(3).get()) == [6, 6]
        with pytest.raises(NoProvider, match="Did you mean 'double'"):
            node.any("duoble").tell(3)

    def test_broadcast_reaches_all_but_its_sender(self, node: Node, box: Box) -> None:
        ref = node.spawn(Does, name="doer")
        node.spawn(Does, name="other")

        reached = run(ref, lambda self: self.broadcast("hello"))
        sent = box.next()

        assert reached == 2
        assert (sent.sender, sent.recipient, sent.kind) == ("doer", None, "broadcast")
        assert [letter.recipient for letter in letters_of_no_handler(node)] == ["other"]

    def test_publish_reaches_subscribers_but_not_its_sender(self, node: Node, box: Box) -> None:
        ref = node.spawn(Does, name="doer")
        ref.subscribe("news.>")
        box.mailbox.subscribe("news.*")

        reached = run(ref, lambda self: self.publish("news.today", "rain"))
        sent = box.next()

        assert reached == 1
        assert (sent.topic, sent.sender, sent.payload) == ("news.today", "doer", "rain")

    def test_an_ask_gets_no_more_time_than_the_message_in_hand(self, node: Node, box: Box) -> None:
        ref = node.spawn(Does)

        reply = ref.ask(
            Call(lambda self: (self.message.deadline, self.ask("box", 1).deadline)), timeout=5
        )
        own, inherited = reply.get(DEADLINE)
        shorter = run(ref, lambda self: self.ask("box", 1, timeout=1).deadline)

        assert own == inherited == reply.deadline
        assert shorter < reply.deadline

    def test_a_tell_inherits_no_deadline(self, node: Node, box: Box) -> None:
        run(node.spawn(Does), lambda self: self.tell("box", 1))

        assert box.next().deadline is None


def letters_of_no_handler(node: Node) -> list[Any]:
    node.drain(DEADLINE)
    return node.dead_letters.list(reason=Reason.NO_HANDLER)


class TestBelongings:
    def test_an_agent_knows_itself(self, node: Node) -> None:
        ref = node.spawn(Does, name="doer")

        name, own, shown = run(ref, lambda self: (self.name, self.ref, repr(self)))

        assert name == "doer"
        assert own == ref
        assert shown == "<Does 'doer'>"

    def test_there_is_no_message_in_hand_outside_a_handler(self, node: Node) -> None:
        found: list[Any] = []
        done = threading.Event()

        class Curious(Agent):
            def on_start(self) -> None:
                try:
                    found.append(self.message)
                except InvalidHandler as error:
                    found.append(error)
                done.set()

        node.spawn(Curious, name="curious")

        assert done.wait(DEADLINE)
        assert "'curious' has no message in hand here" in str(found[0])

    def test_an_agent_made_by_hand_says_what_it_lacks(self) -> None:
        with pytest.raises(InvalidHandler, match=r"made by hand; node\.spawn"):
            Does().tell("box", 1)

    def test_agents_are_not_started_as_pykka_starts_actors(self) -> None:
        with pytest.raises(InvalidHandler, match=r"node\.spawn\(Does"):
            Does.start()

    def test_spawn_makes_a_child_that_stops_with_its_parent(self, node: Node) -> None:
        parent = node.spawn(Does, name="parent")

        child = run(parent, lambda self: self.spawn(Does, name="child"))
        ended = watch(node, "child")
        parent.stop()

        assert ended() == Terminated("child", "its parent stopped")
        with pytest.raises(AgentStopped):
            child.tell(1)

    def test_watch_tells_of_an_agent_that_was_gone_before(self, node: Node) -> None:
        ended = watch(node, "nobody")

        assert ended() == Terminated("nobody", "it runs nowhere")

    def test_schedule_sends_until_it_is_cancelled(self, node: Node, box: Box) -> None:
        schedules: list[Any] = []

        class Clock(Agent):
            def on_start(self) -> None:
                schedules.append(self.schedule(every=0.005, payload="tick"))
                self.ticks = 0

            @handles
            def tick(self, word: str) -> None:
                self.ticks += 1
                if self.ticks == 3:
                    schedules[0].cancel()
                    self.tell("box", self.message)

        node.spawn(Clock, name="clock")
        third = box.next().payload

        assert schedules[0].cancelled
        assert (third.sender, third.recipient, third.causation_id) == ("clock", "clock", None)

    @pytest.mark.parametrize("every", [0, -1, float("nan"), "1", None, True])
    def test_a_period_that_cannot_be_meant_is_refused(self, node: Node, every: Any) -> None:
        def schedule(self: Does) -> str:
            with pytest.raises(InvalidArgument):
                self.schedule(every=every, payload=1)
            return "as it should"

        assert run(node.spawn(Does), schedule) == "as it should"

    def test_context_is_written_as_the_agent_and_private_is_its_own(self, node: Node) -> None:
        first = node.spawn(Does, name="first")
        second = node.spawn(Does, name="second")

        run(first, lambda self: self.context.set("plan", 1))
        run(first, lambda self: self.private.set("diary", 2))

        def peek(self: Does) -> str:
            with pytest.raises(AccessDenied):
                self.context.namespace("agent/first").get("diary")
            return "as it should"

        assert node.context.versioned("plan").author == "first"
        assert run(first, lambda self: self.private.get("diary")) == 2
        assert run(second, peek) == "as it should"

    def test_the_registry_shows_the_agent_at_work(self, node: Node) -> None:
        ref = node.spawn(Does, name="doer")

        status = run(ref, lambda self: self.registry.get(self.name).status)  # type: ignore[union-attr]

        assert status == "busy"

    def test_the_log_knows_its_agent(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Node() as node:
            ref = node.spawn(Does, name="doer")

            run(ref, lambda self: self.log.error("it rains"))
        written = capsys.readouterr()

        assert written.out == ""
        assert "it rains" in written.err
        assert "doer" in written.err

    def test_a_handler_sees_that_its_message_was_cancelled(self, node: Node) -> None:
        started, seen = threading.Event(), threading.Event()
        go_on = threading.Event()

        def look(self: Does) -> None:
            before = self.cancelled
            started.set()
            go_on.wait(DEADLINE)
            if self.cancelled and not before:
                seen.set()

        reply = node.spawn(Does).ask(Call(look))
        assert started.wait(DEADLINE)
        reply.cancel()
        go_on.set()

        assert seen.wait(DEADLINE)

    def test_init_needs_no_super_and_takes_what_it_likes(self, node: Node) -> None:
        class Named(Agent):
            def __init__(self, first: int, *rest: int, last: int) -> None:
                self.sum = first + sum(rest) + last
                self.seen_name = self.name

            @handles
            def report(self, _: str) -> tuple[int, str]:
                return self.sum, self.seen_name

        ref = node.spawn(Named, 1, 2, 3, last=4, name="named")

        assert ref.ask("").get(DEADLINE) == (10, "named")

    @pytest.mark.parametrize("has_on_start", [True, False])
    def test_a_message_may_come_before_spawn_returns(
        self, node: Node, monkeypatch: pytest.MonkeyPatch, has_on_start: bool
    ) -> None:
        class Early(Agent):
            @handles
            def echo(self, word: str) -> str:
                return word

        class Prepared(Early):
            def on_start(self) -> None: ...

        register, replies = node.registry.register, []

        def register_and_ask(member: Any) -> None:
            register(member)
            replies.append(node.ask("early", "first").get(DEADLINE))

        monkeypatch.setattr(node.registry, "register", register_and_ask)

        ref = node.spawn(Prepared if has_on_start else Early, name="early")

        assert replies == ["first"]
        assert ref.ask("second").get(DEADLINE) == "second"

    def test_an_init_that_raises_leaves_nothing_behind(self, node: Node) -> None:
        class Broken(Agent):
            def __init__(self) -> None:
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            node.spawn(Broken, name="broken")

        assert node.registry.get("broken") is None
        assert node.spawn(Does, name="broken").name == "broken"


class TestNames:
    def test_agents_without_a_name_are_numbered(self, node: Node) -> None:
        class HTTPServer(Agent):
            pass

        names = [node.spawn(HTTPServer).name, node.spawn(HTTPServer).name, node.spawn(Does).name]

        assert names == ["http-server-1", "http-server-2", "does-1"]

    def test_a_number_that_is_taken_is_passed_over(self, node: Node) -> None:
        node.spawn(Does, name="does-1")

        assert node.spawn(Does).name == "does-2"

    def test_a_name_is_had_once(self, node: Node) -> None:
        node.spawn(Does, name="one")

        with pytest.raises(NameTaken, match="'one' belongs to a running agent"):
            node.spawn(Does, name="one")

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("", "must not be empty"),
            ("x" * 10_240, "at most 128 bytes of UTF-8, this has 10,240"),
            ("a\x00b", "control characters"),
            ("a ", "no white space at either end"),
            (">", "wildcards"),
            (3, "must be a str, not int"),
            ("\ud800", "valid Unicode"),
        ],
    )
    def test_what_is_no_name_is_refused(self, node: Node, name: Any, why: str) -> None:
        with pytest.raises(InvalidName, match=why) as raised:
            node.spawn(Does, name=name)

        assert len(str(raised.value)) < 200

    def test_an_unknown_name_offers_the_closest_one(self, node: Node) -> None:
        node.spawn(Does, name="librarian")

        with pytest.raises(
            UnknownRecipient, match=r"'libarian'\. Did you mean 'librarian'\? Running: librarian\."
        ):
            node.tell("libarian", 1)

    def test_the_error_of_a_full_house_stays_short(self, node: Node) -> None:
        for number in range(300):
            node.spawn(Does, name=f"agent number {number}")

        with pytest.raises(UnknownRecipient) as raised:
            node.tell("x", 1)

        assert "and 290 more" in str(raised.value)
        assert len(str(raised.value)) < 400

    def test_what_no_handler_takes_names_what_would_be_taken(self, node: Node) -> None:
        with pytest.raises(NoHandler, match="'doer' has no handler for str; it handles Call"):
            node.spawn(Does, name="doer").ask("a").get(DEADLINE)


def watch(node: Node, name: str) -> Callable[[], Terminated]:
    """Watch an agent; what is returned waits for the message about its end."""
    box = Box(node, f"end of {name}")

    class Watcher(Agent):
        def on_start(self) -> None:
            self.watch(name)
            self.tell(box.name, "watching")

        @handles
        def ended(self, end: Terminated) -> None:
            self.tell(box.name, end)

    node.spawn(Watcher)
    box.next()
    return lambda: box.next().payload


def test_an_ask_of_a_slow_agent_times_out_inside_a_handler_too(node: Node) -> None:
    never = threading.Event()
    slow = node.spawn(Does, name="slow")
    ref = node.spawn(Does)

    def ask(self: Does) -> str:
        with pytest.raises(AskTimeout, match=r"'slow' within 0\.05 s"):
            self.ask("slow", Call(lambda _: never.wait(DEADLINE)), timeout=0.05).get()
        return "as it should"

    outcome = run(ref, ask)
    never.set()

    assert outcome == "as it should"
    assert slow.alive
