"""What retention deletes, what holds keep from it, and what is left when all is gone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.errors import HistoryHeld, HistoryKept, InvalidQuery, UnknownRecord
from actorbus.message import IdSource, format_id
from actorbus.persistence import verify as verification
from actorbus.persistence.acts import Kind
from actorbus.persistence.holds import Hold, hold, release
from actorbus.persistence.repositories.repository import TenantName
from actorbus.persistence.repositories.tenants import Tenants
from actorbus.persistence.retention import ROW_BYTES, Deleted, Limits, retain
from actorbus.persistence.verify import Verification, verify

if TYPE_CHECKING:
    from actorbus.message import Message

WHO: Any = {"actor": "ada", "reason": "test", "ids": IdSource()}
DEFAULT = TenantName("default")


def write(history: Any, count: int = 6, **fields: Any) -> list[Message[Any]]:
    """Messages a minute apart, each with an event, by an incarnation of its own."""
    recorder = history.record()
    sent = []
    for number in range(count):
        history.clock.advance(60)
        one = history.message({"n": number}, **fields)
        sent.append(one)
        recorder.sent(one)
        recorder.flush(10)
        history.end(recorder, one)
        recorder.flush(10)
    recorder.close(10)
    return sent


def retained(history: Any, **limits: Any) -> list[Deleted]:
    database = history.audit._database()
    return retain(database, "default", Limits(**limits), now=history.clock.now(), **WHO)


def held(history: Any, what: str) -> None:
    database = history.audit._database()
    hold(database, "default", Hold.parse(what), now=history.clock.now(), **WHO)


def verified(history: Any) -> Verification:
    return verify(history.audit._database(), "default")


def left(history: Any) -> list[int]:
    """The numbers of the messages that are left, the oldest first."""
    return sorted(view.payload["n"] for view in history.audit.messages())


def test_age_takes_what_is_older_and_no_more(history: Any) -> None:
    write(history)

    [deleted] = retained(history, age=150)

    assert left(history) == [3, 4, 5]
    assert (deleted.rows, deleted.through, deleted.held) == (6, 6, False)
    assert verified(history).findings == ()


def test_size_keeps_the_newest_that_fit(history: Any) -> None:
    write(history)

    retained(history, size=2 * (ROW_BYTES + 20))

    assert left(history) == [4, 5]
    assert verified(history).findings == ()


@pytest.mark.parametrize(("size", "kept"), [(0, []), (10**9, [0, 1, 2, 3, 4, 5])])
def test_size_may_leave_nothing_or_all(history: Any, size: int, kept: list[int]) -> None:
    write(history)

    retained(history, size=size)

    assert left(history) == kept
    assert verified(history).findings == ()


def test_of_several_limits_the_narrowest_counts(history: Any) -> None:
    write(history)

    retained(history, age=270, messages=2, size=10**9)

    assert left(history) == [4, 5]


def test_retention_again_takes_what_came_of_age_and_still_verifies(history: Any) -> None:
    write(history)
    retained(history, messages=4)
    history.clock.advance(120)

    retained(history, age=270)

    assert left(history) == [3, 4, 5]
    assert verified(history).findings == ()
    assert retained(history, age=270) == []


def test_each_chain_loses_its_own_beginning(history: Any) -> None:
    write(history, 3)
    write(history, 3)
    write(history, 3)

    deleted = retained(history, messages=4)

    assert [(one.chain, one.rows) for one in deleted] == [(1, 6), (2, 4)]
    assert len(left(history)) == 4
    found = verified(history)
    assert (found.findings, found.deleted) == ((), 10)


def test_a_held_run_stays_and_so_does_what_follows_in_its_chain(history: Any) -> None:
    write(history, 2)
    write(history, 2, run_id="run-1")
    write(history, 2)
    held(history, "run:run-1")

    deleted = retained(history, messages=0)

    assert [(one.rows, one.held) for one in deleted] == [(4, False), (0, True), (4, False)]
    assert [view.run_id for view in history.audit.messages()] == ["run-1", "run-1"]
    assert verified(history).findings == ()


def test_a_held_conversation_stays_within_its_chain(history: Any) -> None:
    sent = write(history)
    held(history, f"conversation:{format_id(sent[2].id)}")

    [deleted] = retained(history, messages=0)

    assert left(history) == [2, 3, 4, 5]
    assert (deleted.rows, deleted.held) == (4, True)
    assert verified(history).findings == ()


@pytest.mark.parametrize("limit", [-1, math.nan])
def test_a_limit_is_a_number_from_0(limit: float) -> None:
    with pytest.raises(InvalidQuery, match=f"is {limit}: it must be a number from 0"):
        Limits(age=limit)


def test_a_hold_on_a_message_is_one_on_its_conversation(history: Any) -> None:
    asked = history.message("asked")
    answer = history.message("answer", correlation_id=asked.id, causation_id=asked.id)
    recorder = history.record()
    for one in (asked, answer):
        recorder.sent(one)
    recorder.close(10)
    held(history, f"conversation:{format_id(answer.id)}")

    with pytest.raises(HistoryHeld, match=format_id(asked.id)):
        history.audit.redact(answer.id, actor="ada", reason="asked to")

    [(hold, _)] = history.audit.holds()
    assert str(hold) == f"conversation:{format_id(asked.id)}"
    assert history.audit.release(
        f"conversation:{format_id(answer.id)}", actor="ada", reason="settled"
    )


def test_a_conversation_that_is_not_here_is_not_said_to_be_held(history: Any) -> None:
    write(history, 1)
    nobodys = format_id(history.message("never sent").id)

    with pytest.raises(UnknownRecord, match=f"no conversation '{nobodys}'"):
        held(history, f"conversation:{nobodys}")

    assert history.audit.holds() == []


def test_a_run_may_be_held_before_its_first_message(history: Any) -> None:
    write(history, 1)
    held(history, "run:tomorrow")
    before = history.audit.keeps_any("run:tomorrow")
    write(history, 2, run_id="tomorrow")

    retained(history, messages=0)

    assert before is False
    assert history.audit.keeps_any("run:tomorrow") is True
    assert [view.run_id for view in history.audit.messages()] == ["tomorrow", "tomorrow"]


def test_what_was_held_goes_once_it_is_released(history: Any) -> None:
    sent = write(history)
    held(history, f"conversation:{format_id(sent[2].id)}")
    retained(history, messages=0)
    what = Hold.parse(f"conversation:{format_id(sent[2].id)}")
    release(history.audit._database(), "default", what, now=history.clock.now(), **WHO)

    retained(history, messages=0)

    assert history.rows() == (0, 0)
    assert verified(history).findings == ()


def test_retention_while_history_is_verified_is_no_damage(
    postgres_or_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = postgres_or_file
    write(history)
    walk = verification._Examination._history
    deleted: list[Deleted] = []

    def retain_meanwhile(self: Any, known: Any) -> None:
        deleted.extend(retained(history, messages=2))
        walk(self, known)

    monkeypatch.setattr(verification._Examination, "_history", retain_meanwhile)

    found = verified(history)

    monkeypatch.undo()
    assert found.findings == ()
    assert (found.deleted, [one.rows for one in deleted]) == (0, [8])
    again = verified(history)
    assert (again.findings, again.deleted) == ((), 8)


@pytest.fixture(params=["sqlite-file", "postgresql"])
def postgres_or_file(request: pytest.FixtureRequest, history_at: Any, tmp_path: Any) -> Any:
    """A history that two can use at once."""
    if request.param == "postgresql":
        return history_at(request.getfixturevalue("postgres_url"))
    return history_at(f"sqlite:///{tmp_path / 'history.db'}")


def tenants(history: Any) -> Tenants:
    return Tenants(history.audit._database(), clock=history.clock)


def test_a_tenant_with_messages_is_not_deleted_by_force(history: Any) -> None:
    write(history, 1)

    with pytest.raises(HistoryKept, match="let retention delete its messages"):
        tenants(history).delete(DEFAULT, force=True)

    assert left(history) == [0]


def test_a_tenant_whose_messages_are_gone_is_deleted_by_force_only(history: Any) -> None:
    write(history)
    retained(history, messages=0)

    with pytest.raises(HistoryKept, match="by force"):
        tenants(history).delete(DEFAULT)
    acts = tenants(history).delete(DEFAULT, force=True)

    assert [(act.kind, act.rows) for act in acts] == [(Kind.DELETED, 12)]
    with pytest.raises(UnknownRecord):
        tenants(history).get(DEFAULT)


def test_a_tenant_on_hold_is_not_deleted_by_force(history: Any) -> None:
    write(history)
    retained(history, messages=0)
    held(history, "tenant")

    with pytest.raises(HistoryHeld, match="tenant 'default'"):
        tenants(history).delete(DEFAULT, force=True)

    assert tenants(history).get(DEFAULT).name == DEFAULT


def test_a_deleted_tenant_may_begin_anew(history: Any) -> None:
    write(history)
    retained(history, messages=0)
    tenants(history).delete(DEFAULT, force=True)

    write(history, 2)

    found = verified(history)
    assert (found.findings, found.rows, found.chains) == ((), 4, 1)


def test_deleting_a_tenant_by_force_leaves_its_neighbours(history: Any) -> None:
    database = history.audit._database()
    write(history)
    tenants(history).create(TenantName("acme"))
    hold(database, "acme", Hold.parse("tenant"), now=history.clock.now(), **WHO)
    retained(history, messages=0)

    tenants(history).delete(DEFAULT, force=True)

    assert verify(database, "acme").findings == ()
    assert verify(database, "acme").chains == 1
