"""A changed answer forks a new run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from actorbus import Agent, agent, format_id, handles
from actorbus.errors import NotReplayable
from actorbus.persistence.audit import Audit
from actorbus.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.persistence.answers import MessageView

    Recorded = Callable[..., list[MessageView]]


class Planner(Agent):
    @handles
    def plan(self, goal: str) -> str:
        self.tell("log", "begun")
        step = self.ask("model", f"first step to {goal}").get()
        if step == "give up":
            return "gave up"
        if step == "ask again":
            return str(self.ask("model", "what now?").get())
        return f"{step}, then {self.ask('model', 'and then?').get()}"


class Log(Agent):
    @handles
    def write(self, line: str) -> None:
        pass


@agent
def model(question: str) -> str:
    return "rest" if question == "and then?" else "walk"


CAST: dict[str, Any] = {"planner": Planner, "log": Log}


@pytest.fixture
def views(recorded: Recorded) -> list[MessageView]:
    return recorded({**CAST, "model": model}, lambda node: node.ask("planner", "Oslo").get())


def question(views: list[MessageView]) -> MessageView:
    return next(view for view in views if view.recipient == "model")


def test_it_differs_from_the_changed_answer_on(views: list[MessageView]) -> None:
    replay = Replay(views, agents=CAST)

    fork = replay.fork(question(views).id, answer="swim")

    said = [step.said.payload for step in fork.steps if step.said.sender == "planner"]
    assert fork.forked
    assert not fork.same
    assert said == ["begun", "first step to Oslo", "and then?", "swim, then rest"]
    assert fork.divergence is not None
    assert fork.divergence.got is not None
    assert fork.divergence.got.payload == "swim, then rest"
    assert replay.run().same


def test_it_may_be_named_by_the_reply_and_by_text(views: list[MessageView]) -> None:
    reply = next(view for view in views if view.sender == "model")

    fork = Replay(views, agents=CAST).fork(UUID(int=reply.id), answer="give up")

    assert fork.steps[-1].said.payload == "gave up"


def test_an_agent_of_the_replay_may_be_answered_for(views: list[MessageView]) -> None:
    fork = Replay(views, agents={**CAST, "model": model}).fork(
        format_id(question(views).id), answer="give up"
    )

    assert fork.steps[-1].said.payload == "gave up"


def test_a_changed_message_runs_anew_too(views: list[MessageView]) -> None:
    replay = Replay(views, agents={**CAST, "model": model})

    from_outside = replay.fork(views[0].id, payload="Rome")
    from_inside = replay.fork(question(views).id, payload="and then?")

    assert "first step to Rome" in [step.said.payload for step in from_outside.steps]
    assert from_inside.steps[-1].said.payload == "rest, then rest"


def test_what_history_cannot_answer_fails_that_ask(views: list[MessageView]) -> None:
    fork = Replay(views, agents=CAST).fork(question(views).id, answer="ask again")

    assert [said.payload for said in fork.unanswered] == ["what now?"]


def test_a_stand_in_answers_what_history_cannot(views: list[MessageView]) -> None:
    @agent
    def new_model(question: str) -> str:
        return f"about {question!r}: run"

    fork = Replay(views, agents=CAST).fork(
        question(views).id, answer="ask again", agents={"model": new_model}
    )

    assert fork.unanswered == ()
    assert fork.steps[-1].said.payload == "about 'what now?': run"


def test_it_is_recorded_as_a_new_run_and_the_old_one_is_left(
    views: list[MessageView], url: str
) -> None:
    audit = Audit(url)
    before = audit.messages()

    fork = Replay(audit, views[0].id, agents=CAST).fork(
        question(views).id, answer="swim", audit=audit
    )

    new = audit.messages(run=fork.run_id)[::-1]
    assert audit.messages()[-len(before) :] == before
    assert [view.payload for view in new] == [step.said.payload for step in fork.steps]
    assert not {view.id for view in new} & {view.id for view in before}
    assert len({view.correlation_id for view in new}) == 1
    assert new[0].correlation_id == new[0].id
    assert new[0].headers == {"replay_of": format_id(views[0].id)}
    assert new[0].created_at > before[0].created_at


def test_its_run_is_listed_with_the_agents_that_had_a_part(
    views: list[MessageView], url: str
) -> None:
    audit = Audit(url)

    Replay(audit, views[0].id, agents=CAST).fork(
        question(views).id, answer="swim", audit=audit, run_id="what-if"
    )

    assert [run.name for run in audit.runs()] == ["what-if"]
    assert {part.agent for part in audit.agent_runs("what-if")} == {"planner", "log", "model"}
    audit.close()


def test_without_an_audit_it_writes_nothing(views: list[MessageView], url: str) -> None:
    before = Audit(url).counts()

    Replay(views, agents=CAST).fork(question(views).id, answer="swim")

    assert Audit(url).counts() == before


def test_it_must_come_to_the_change_as_recorded(views: list[MessageView]) -> None:
    class Changed(Planner):
        @handles
        def plan(self, goal: str) -> str:
            self.tell("log", "otherwise")
            return "?"

    fork = Replay(views, agents={"planner": Changed, "log": Log}).fork(
        question(views).id, answer="swim"
    )

    assert not fork.forked
    assert fork.divergence is not None
    assert fork.divergence.got is not None
    assert fork.divergence.got.payload == "otherwise"


def test_a_fork_that_never_ends_is_ended(recorded: Recorded) -> None:
    class Ping(Agent):
        @handles
        def hit(self, again: bool) -> None:
            if again:
                self.tell("ping", True)

    views = recorded({"ping": Ping}, lambda node: node.tell("ping", False))

    with pytest.raises(NotReplayable, match="goes on and on"):
        Replay(views, agents={"ping": Ping}).fork(views[0].id, payload=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [({}, "changes one thing"), ({"answer": 1, "payload": 1}, "changes one thing")],
)
def test_one_thing_is_changed(views: list[MessageView], change: dict[str, Any], says: str) -> None:
    with pytest.raises(NotReplayable, match=says):
        Replay(views, agents=CAST).fork(views[0].id, **change)


def test_a_tell_has_no_answer_and_a_stranger_is_not_there(views: list[MessageView]) -> None:
    replay = Replay(views, agents=CAST)
    told = next(view for view in views if view.kind == "tell")

    with pytest.raises(NotReplayable, match="which nobody answers"):
        replay.fork(told.id, answer=1)
    with pytest.raises(NotReplayable, match="has no message"):
        replay.fork(1, answer=1)  # type: ignore[arg-type]
