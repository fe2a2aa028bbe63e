"""Where a replay is said to differ, and that it is said where it first does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, Node, Reason, Status, handles
from actorbus.errors import NotReplayable
from actorbus.replay import Difference, Divergence, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.persistence.answers import MessageView

    Recorded = Callable[..., list[MessageView]]


class Desk(Agent):
    @handles
    def open(self, case: int) -> str:
        self.tell("log", f"case {case}")
        verdict = self.ask("judge", {"case": case, "words": ["a", "b"]}).get()
        self.tell("log", verdict)
        return f"{case}: {verdict}"


class Judge(Agent):
    @handles
    def judge(self, case: dict) -> str:  # type: ignore[type-arg]
        self.tell("log", "judging")
        return "guilty"


class Log(Agent):
    @handles
    def write(self, line: str) -> None:
        pass


CAST: dict[str, Any] = {"desk": Desk, "judge": Judge, "log": Log}


@pytest.fixture
def views(recorded: Recorded) -> list[MessageView]:
    return recorded(CAST, lambda node: node.ask("desk", 7).get())


def first_difference(views: list[MessageView], **changed: Any) -> Divergence:
    divergence = Replay(views, agents={**CAST, **changed}).run().divergence
    assert divergence is not None
    return divergence


def test_another_payload_is_found_where_it_is_sent(views: list[MessageView]) -> None:
    class Changed(Desk):
        @handles
        def open(self, case: int) -> str:
            self.tell("log", f"case {case}")
            return str(self.ask("judge", {"case": case, "words": ["a", "c"]}).get())

    found = first_difference(views, desk=Changed)

    assert found.difference is Difference.DIFFERENT
    assert found.got is not None
    assert found.expected is not None
    assert found.got.payload == {"case": 7, "words": ["a", "c"]}
    assert found.expected.payload == {"case": 7, "words": ["a", "b"]}
    assert views[found.position - 1].id == found.expected.id
    assert [view.recipient for view in found.chain] == ["desk"]


def test_its_text_shows_both_and_only_what_differs(views: list[MessageView]) -> None:
    class Changed(Desk):
        @handles
        def open(self, case: int) -> str:
            self.tell("log", f"case {case}")
            return str(self.ask("judge", {"case": case, "words": ["a", "c"]}).get())

    lines = str(first_difference(views, desk=Changed)).splitlines()

    assert lines[0].startswith("diverged at message 3 of ")
    assert "  expected  desk -> judge: request dict" in lines
    assert '    -     "b"' in lines
    assert '    +     "c"' in lines
    assert lines[-1] == "    (outside) -> desk: request int  7"


def test_another_recipient_is_shown_against_the_recorded_one(views: list[MessageView]) -> None:
    class Changed(Desk):
        @handles
        def open(self, case: int) -> str:
            self.tell("judge", {"case": case})
            return ""

    found = first_difference(views, desk=Changed)

    assert found.difference is Difference.DIFFERENT
    assert found.expected is not None
    assert found.got is not None
    assert found.got.kind == "tell"


def test_true_is_not_one(recorded: Recorded) -> None:
    class Says(Agent):
        value: Any = 1

        @handles
        def say(self, _: str) -> Any:
            return self.value

    class SaysTrue(Says):
        value = True

    views = recorded({"says": Says}, lambda node: node.ask("says", "?").get())

    found = Replay(views, agents={"says": SaysTrue}).run().divergence

    assert found is not None
    assert found.got is not None
    assert found.got.type == "bool"


def test_a_message_too_many_is_unexpected(views: list[MessageView]) -> None:
    class Changed(Judge):
        @handles
        def judge(self, case: dict) -> str:  # type: ignore[type-arg]
            self.tell("log", "judging")
            self.tell("log", "still judging")
            return "guilty"

    found = first_difference(views, judge=Changed)

    assert found.difference is Difference.UNEXPECTED
    assert found.expected is None
    assert found.got is not None
    assert found.got.payload == "still judging"
    assert [view.recipient for view in found.chain] == ["desk", "judge"]


def test_a_message_too_few_is_missing(views: list[MessageView]) -> None:
    class Changed(Judge):
        @handles
        def judge(self, case: dict) -> str:  # type: ignore[type-arg]
            return "guilty"

    found = first_difference(views, judge=Changed)

    assert found.difference is Difference.MISSING
    assert found.expected is not None
    assert found.expected.payload == "judging"


def test_another_reply_is_found_at_the_reply(views: list[MessageView]) -> None:
    class Changed(Judge):
        @handles
        def judge(self, case: dict) -> str:  # type: ignore[type-arg]
            self.tell("log", "judging")
            return "not guilty"

    found = first_difference(views, judge=Changed)

    assert found.difference is Difference.DIFFERENT
    assert found.expected is not None
    assert found.expected.kind == "reply"
    assert found.got is not None
    assert found.got.payload == "not guilty"


def test_a_handler_that_fails_now_is_another_ending(views: list[MessageView]) -> None:
    class Changed(Log):
        @handles
        def write(self, line: str) -> None:
            if line == "judging":
                raise OSError("disk full")

    found = first_difference(views, log=Changed)

    assert found.difference is Difference.ENDING
    assert "OSError: disk full" in found.note
    assert [view.recipient for view in found.chain] == ["desk", "judge", "log"]


def test_a_subscription_that_is_gone_leaves_an_event_unhandled(recorded: Recorded) -> None:
    class Hears(Log):
        subscriptions = ("news.>",)

    views = recorded({"hears": Hears}, lambda node: node.topic("news.now").publish("x"))

    found = Replay(views, agents={"hears": Log}).run().divergence

    assert found is not None
    assert found.difference is Difference.UNHANDLED


def test_order_between_two_recipients_is_no_difference(recorded: Recorded) -> None:
    class Sends(Agent):
        order = ("a", "b")

        @handles
        def send(self, _: str) -> None:
            for name in self.order:
                self.tell(name, "x")

    class SendsBackwards(Sends):
        order = ("b", "a")

    cast = {"sends": Sends, "a": Log, "b": Log}
    views = recorded(cast, lambda node: node.tell("sends", "go"))

    assert Replay(views, agents={**cast, "sends": SendsBackwards}).run().same


def test_order_to_one_recipient_is(recorded: Recorded) -> None:
    class Counts(Agent):
        order = ("one", "two")

        @handles
        def send(self, _: str) -> None:
            for line in self.order:
                self.tell("log", line)

    class CountsBackwards(Counts):
        order = ("two", "one")

    cast = {"counts": Counts, "log": Log}
    views = recorded(cast, lambda node: node.tell("counts", "go"))

    found = Replay(views, agents={**cast, "counts": CountsBackwards}).run().divergence

    assert found is not None
    assert found.got is not None
    assert found.got.payload == "two"


def test_a_request_without_an_answer_in_history_is_said(views: list[MessageView]) -> None:
    without = [view for view in views if not (view.kind == "reply" and view.sender == "judge")]

    found = Replay(without, agents={"desk": Desk}).run().divergence

    assert found is not None
    assert found.difference is Difference.UNANSWERED
    assert found.got is not None
    assert found.got.recipient == "judge"
    assert "give an agent or a function for 'judge'" in found.note


@pytest.mark.parametrize("marker", ["$redacted", "$repr", "$failed"])
def test_what_history_does_not_hold_cannot_be_sent(views: list[MessageView], marker: str) -> None:
    redacted = [
        replace(view, payload={marker: "sha256:0"}) if view.sender is None else view
        for view in views
    ]

    with pytest.raises(NotReplayable, match=r"\(outside\) -> desk: request int: its payload"):
        Replay(redacted, agents=CAST).run()


def test_a_redacted_answer_ends_the_replay_with_its_reason(views: list[MessageView]) -> None:
    redacted = [
        replace(view, payload={"$redacted": "sha256:0"}) if view.sender == "judge" else view
        for view in views
    ]

    with pytest.raises(NotReplayable, match="was redacted, so it cannot be sent again"):
        Replay(redacted, agents={"desk": Desk}).run()


def test_what_agents_send_themselves_may_be_redacted_in_the_record(
    views: list[MessageView],
) -> None:
    redacted = [
        replace(view, payload={"$redacted": "sha256:0"}) if view.sender is not None else view
        for view in views
    ]

    assert Replay(redacted, agents=CAST).run().same


def test_a_conversation_without_its_beginning_starts_where_it_can(
    views: list[MessageView],
) -> None:
    later = [view for view in views if view.recipient != "desk" and view.sender != "desk"]

    outcome = Replay(views[2:], agents={"judge": Judge, "log": Log}).run()

    assert later
    assert outcome.same, outcome.divergence


def test_a_conversation_without_its_end_is_compared_as_far_as_it_goes(
    views: list[MessageView],
) -> None:
    cut = [replace(views[0], status=Status.ACCEPTED, deliveries=())]

    outcome = Replay(cut, agents=CAST).run()

    assert outcome.same, outcome.divergence
    assert len(outcome.steps) > 1


def test_what_expired_before_it_was_begun_expires_again(views: list[MessageView]) -> None:
    def expired(view: MessageView) -> MessageView:
        ended = replace(
            view.deliveries[0],
            status=Status.DEAD,
            reason=Reason.EXPIRED,
            started_at=None,
            error="too late",
        )
        return replace(view, status=Status.DEAD, reason=Reason.EXPIRED, deliveries=(ended,))

    told = [expired(view) if view.payload == "judging" else view for view in views]

    outcome = Replay(told, agents=CAST).run()

    assert outcome.same, outcome.divergence


def test_nothing_is_said_after_the_first_difference(views: list[MessageView]) -> None:
    class Changed(Desk):
        @handles
        def open(self, case: int) -> str:
            self.tell("log", "otherwise")
            self.tell("log", "and again")
            return "otherwise"

    outcome = Replay(views, agents={**CAST, "desk": Changed}).run()

    assert outcome.divergence is not None
    assert outcome.divergence.position == 2
    assert [step.number for step in outcome.steps] == [1]


def test_a_live_node_may_stand_by(views: list[MessageView]) -> None:
    with Node() as live:
        live.spawn(Log, name="log")
        Replay(views, agents=CAST).run()

        assert len(live.history) == 0
