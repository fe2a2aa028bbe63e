"""Damage to every part of a written history, and what verification says of it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from actorbus.message import IdSource, MessageKind, Reason, Status, format_id
from actorbus.persistence.anchors import AnchorFile, beside, make_keys
from actorbus.persistence.audit import Audit
from actorbus.persistence.chain import Finding, Flaw
from actorbus.persistence.holds import Hold, hold
from actorbus.persistence.redaction import redact
from actorbus.persistence.retention import Limits, retain
from actorbus.persistence.verify import Verification, verify
from actorbus.telemetry import AuditStalled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHO: Any = {"actor": "ada", "reason": "test", "ids": IdSource(), "now": 1_700_000_100.0}


class Damage:
    """Somebody who can write the file of a history, past all of our code."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url.partition("?")[0])

    def __call__(self, statement: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement), values)

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
def damage(file_url: str) -> Iterator[Damage]:
    made = Damage(file_url)
    yield made
    made.close()


def write(history: Any, messages: int = 6, **settings: Any) -> list[Any]:
    """Messages, and an event for each, through a recorder that ends."""
    recorder = history.record(**settings)
    sent: list[Any] = []
    for number in range(messages):
        history.clock.advance(1)
        deadline = history.clock.now() + 60
        fields = {"run_id": "run-1", "headers": {"h": "1"}, "topic": "t", "deadline": deadline}
        one = history.message({"n": number}, causation_id=sent[-1].id if sent else None, **fields)
        sent.append(one)
        recorder.sent(one)
        recorder.flush(10)
        history.end(recorder, one, Status.FAILED, reason=Reason.STOPPED, error="it broke")
        recorder.flush(10)
    recorder.close(10)
    return sent


def verified(history: Any, **options: Any) -> Verification:
    return verify(history.audit._database(), "default", **options)


def anchors_of(history: Any) -> Path:
    place = beside(history.audit._database())
    assert place is not None
    return place


def first(history: Any, **options: Any) -> Finding:
    found = verified(history, **options)
    assert found.findings
    return found.findings[0]


def test_an_untouched_history_is_sound(history: Any) -> None:
    write(history)

    found = verified(history)

    assert found.findings == ()
    assert (found.rows, found.chains, found.unchained) == (12, 1, 0)


def test_two_incarnations_are_linked(history: Any) -> None:
    write(history)
    write(history)

    found = verified(history)

    assert found.findings == ()
    assert (found.rows, found.chains) == (24, 2)


def test_a_later_incarnation_tells_that_the_one_before_was_cut(
    file_history: Any, damage: Damage
) -> None:
    write(file_history)
    write(file_history)
    (last,) = damage.rows("SELECT hash FROM message_events WHERE chain = 1 AND seq = 10")
    damage("DELETE FROM agent_messages WHERE chain = 1 AND seq > 10")
    damage("DELETE FROM message_events WHERE chain = 1 AND seq > 10")
    damage("UPDATE chains SET seq = 10, hash = :hash WHERE number = 1", hash=last[0])
    file_history.audit.path.with_name("history.db.anchors").unlink()

    found = verified(file_history)

    assert Flaw.CUT in {one.flaw for one in found.findings}


def flipped(value: Any) -> list[Any]:
    """`value` with single bits changed, and what else it might become."""
    if value is None:
        return [b"\1" * 16]
    if isinstance(value, int):
        return [value ^ 1, value ^ (1 << 20)]
    if isinstance(value, bytes):
        return [bytes([value[0] ^ 1]) + value[1:], value[:-1] + bytes([value[-1] ^ 128]), None]
    return [chr(ord(value[0]) ^ 1) + value[1:], value[:-1] + chr(ord(value[-1]) ^ 1)]


COLUMNS = {
    "agent_messages": 29,
    "message_events": 14,
    "chains": 12,
    "audit_acts": 13,
}
PRESENT = [
    *[("agent_messages", number) for number in range(COLUMNS["agent_messages"])],
    *[("message_events", number) for number in range(COLUMNS["message_events"])],
    *[("chains", number) for number in range(COLUMNS["chains"])],
    *[("audit_acts", number) for number in range(COLUMNS["audit_acts"])],
]


@pytest.mark.parametrize(("table", "number"), PRESENT)
def test_a_bit_flipped_in_any_column_is_found(
    file_history: Any, damage: Damage, table: str, number: int
) -> None:
    sent = write(file_history, 3)
    redact(file_history.audit._database(), "default", sent[2].id, **WHO)
    columns = damage.rows(f"PRAGMA table_info({table})")
    assert len(columns) == COLUMNS[table]
    column, not_null = columns[number].name, columns[number].notnull
    nth = 1 if table in ("agent_messages", "message_events") else 0
    (row,) = damage.rows(
        f"SELECT rowid, {column}, seq FROM {table} ORDER BY rowid LIMIT 1 OFFSET {nth}"  # noqa: S608
    )
    where = "number" if (table, column) == ("chains", "number") else "rowid"
    change = f"UPDATE {table} SET {column} = :value WHERE {where} = :row"  # noqa: S608

    for value in flipped(row[1]):
        if value is None and not_null:
            continue
        damage(change, value=value, row=row[0])

        found = verified(file_history).findings

        assert found, f"{table}.{column} = {value!r}"
        if table == "chains" or column in ("chain", "seq"):
            assert {one.table for one in found} & {table, None}
        else:
            assert (table, row[2]) in {(one.table, one.seq) for one in found}
        damage(change, value=row[1], row=value if where == "number" else row[0])
    assert verified(file_history).findings == ()


@pytest.mark.parametrize("seq", [1, 5, 6])
def test_a_deleted_row_is_missed(file_history: Any, damage: Damage, seq: int) -> None:
    write(file_history)
    damage("DELETE FROM agent_messages WHERE seq = :seq", seq=seq)
    damage("DELETE FROM message_events WHERE seq = :seq", seq=seq)

    found = first(file_history)

    assert (found.flaw, found.seq) == (Flaw.MISSING, seq)


def test_a_deleted_last_row_is_a_cut_tail(file_history: Any, damage: Damage) -> None:
    write(file_history)
    damage("DELETE FROM message_events WHERE seq = 12")

    found = first(file_history)

    assert (found.flaw, found.seq) == (Flaw.CUT, 12)


def test_an_anchor_tells_of_a_tail_cut_with_its_head(file_history: Any, damage: Damage) -> None:
    write(file_history)
    ((last,),) = damage.rows("SELECT hash FROM message_events WHERE seq = 10")
    damage("DELETE FROM agent_messages WHERE seq > 10")
    damage("DELETE FROM message_events WHERE seq > 10")
    damage("UPDATE chains SET seq = 10, hash = :hash", hash=last)

    found = first(file_history)

    assert (found.flaw, found.seq) == (Flaw.CUT, 11)
    assert "anchor" in found.says


def test_two_rows_that_changed_places_are_found(file_history: Any, damage: Damage) -> None:
    write(file_history)
    damage("UPDATE agent_messages SET seq = 99 WHERE seq = 3")
    damage("UPDATE agent_messages SET seq = 3 WHERE seq = 5")
    damage("UPDATE agent_messages SET seq = 5 WHERE seq = 99")

    found = first(file_history)

    assert (found.flaw, found.seq) == (Flaw.CHANGED, 3)


def test_a_changed_row_is_one_finding_with_its_name(file_history: Any, damage: Damage) -> None:
    sent = write(file_history)
    damage("UPDATE agent_messages SET sender = 'mallory' WHERE seq = 5")

    (found,) = verified(file_history).findings

    assert (found.flaw, found.chain, found.seq) == (Flaw.CHANGED, 1, 5)
    assert (found.table, found.id) == ("agent_messages", format_id(sent[2].id))


def test_the_anchors_tell_of_a_chain_written_anew(file_history: Any, tmp_path: Path) -> None:
    write(file_history)
    kept = anchors_of(file_history).read_bytes()
    file_history.audit.path.unlink()
    write(file_history)
    anchors_of(file_history).write_bytes(kept)
    lines = [json.loads(line) for line in kept.splitlines()]
    damage_tenant(lines, file_history)
    place = tmp_path / "kept.anchors"
    place.write_text("\n".join(json.dumps(line) for line in lines) + "\n")

    found = verified(file_history, anchors=place)

    assert found.findings
    assert {one.flaw for one in found.findings} <= {Flaw.REWRITTEN}


def damage_tenant(lines: list[Any], history: Any) -> None:
    """The new history has a tenant of another key; whoever rewrites one would keep it."""
    with history.audit._database().reading() as connection:
        key = connection.execute(text("SELECT id FROM tenants")).scalar_one()
    for line in lines:
        line["tenant"] = key.hex()


def test_a_row_put_in_from_outside_is_found(file_history: Any, damage: Damage) -> None:
    write(file_history)
    names = [row[1] for row in damage.rows("PRAGMA table_info(agent_messages)")]
    copied = ", ".join("randomblob(16)" if name == "id" else name for name in names)
    damage(f"INSERT INTO agent_messages SELECT {copied} FROM agent_messages WHERE seq = 5")  # noqa: S608

    found = first(file_history)

    assert (found.flaw, found.seq) == (Flaw.ADDED, 5)


def test_signed_anchors_verify_with_their_key_only(
    file_history: Any, file_url: str, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    make_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    file_history.audit = Audit(file_url, signing_key=tmp_path / "key.pem")
    write(file_history)
    make_keys(tmp_path / "other.pem", tmp_path / "other.pub")

    right = verified(file_history, public_key=tmp_path / "key.pub")
    wrong = verified(file_history, public_key=tmp_path / "other.pub")

    assert right.findings == ()
    assert right.signed
    assert {one.flaw for one in wrong.findings} == {Flaw.ANCHOR}
    assert {one.says for one in wrong.findings} == {"an anchor is not signed with that key"}


@pytest.mark.parametrize("at", [0, -1])
def test_an_anchor_made_without_the_key_is_found(
    file_history: Any, file_url: str, tmp_path: Path, at: int
) -> None:
    pytest.importorskip("cryptography")
    make_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    file_history.audit = Audit(file_url, signing_key=tmp_path / "key.pem")
    write(file_history)
    place = anchors_of(file_history)
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    assert len(lines) > 1
    lines[at]["hash"] = "00" * 32
    place.write_text("\n".join(map(json.dumps, lines)) + "\n")

    found = verified(file_history, public_key=tmp_path / "key.pub")

    assert [one.says for one in found.findings] == ["an anchor is not signed with that key"]


@pytest.mark.parametrize("table", ["agent_messages", "message_events"])
@pytest.mark.parametrize("column", ["chain", "seq"])
@pytest.mark.parametrize("value", ["many", b"\x01", 1.5])
def test_a_place_that_is_no_number_is_damage(
    file_history: Any, damage: Damage, table: str, column: str, value: Any
) -> None:
    write(file_history)
    write(file_history)
    ((key,),) = damage.rows(f"SELECT id FROM {table} ORDER BY id LIMIT 1")  # noqa: S608
    damage(f"UPDATE {table} SET {column} = :value WHERE id = :key", value=value, key=key)  # noqa: S608

    found = verified(file_history).findings

    told = [one.id for one in found if one.says == "its place in a chain is no number"]
    assert told == [format_id(int.from_bytes(key))]
    assert Flaw.MISSING in {one.flaw for one in found}


@pytest.mark.parametrize("value", ["many", b"\x01", 1.5])
def test_the_end_of_a_chain_that_is_no_number_is_damage(
    file_history: Any, damage: Damage, value: Any
) -> None:
    write(file_history)
    damage("UPDATE chains SET seq = :value", value=value)

    assert "its end is no number" in {one.says for one in verified(file_history).findings}


def test_an_act_whose_place_is_no_number_is_damage(file_history: Any, damage: Damage) -> None:
    sent = write(file_history)
    redact(file_history.audit._database(), "default", sent[0].id, **WHO)
    damage("UPDATE audit_acts SET seq = 'many'")

    found = verified(file_history).findings

    assert ("audit_acts", "its place in a chain is no number") in {
        (one.table, one.says) for one in found
    }


def test_a_missing_anchor_is_found(file_history: Any) -> None:
    write(file_history)
    place = anchors_of(file_history)
    anchors, _ = AnchorFile(place).read()
    place.write_bytes(b"".join(place.read_bytes().splitlines(keepends=True)[1:]))

    found = first(file_history)

    assert len(anchors) > 1
    assert found.flaw is Flaw.ANCHOR


def test_anchors_that_are_gone_are_missed(file_history: Any) -> None:
    write(file_history)
    anchors_of(file_history).unlink()

    assert first(file_history).flaw is Flaw.ANCHOR


def test_a_torn_last_anchor_is_no_damage(file_history: Any) -> None:
    write(file_history)
    place = anchors_of(file_history)
    with place.open("ab") as file:
        file.write(b'{"tenant":"01')
    write(file_history)

    assert verified(file_history).findings == ()


def test_after_retention_the_rest_verifies(history: Any) -> None:
    write(history)
    retain(history.audit._database(), "default", Limits(messages=2), **WHO)

    found = verified(history)

    assert found.findings == ()
    assert found.deleted == 8
    assert history.rows() == (2, 2)


def test_after_retention_of_everything_a_new_incarnation_follows(history: Any) -> None:
    write(history)
    retain(history.audit._database(), "default", Limits(messages=0), **WHO)
    write(history)

    found = verified(history)

    assert found.findings == ()
    assert history.rows() == (6, 6)


def test_a_forged_tombstone_is_found(file_history: Any, damage: Damage) -> None:
    write(file_history)
    retain(file_history.audit._database(), "default", Limits(messages=3), **WHO)
    damage("UPDATE audit_acts SET target_seq = target_seq + 1")
    damage("DELETE FROM agent_messages WHERE seq <= 7")

    assert {one.table for one in verified(file_history).findings} >= {"audit_acts"}


def test_after_redaction_the_chain_verifies_and_the_payload_is_gone(history: Any) -> None:
    sent = write(history)
    redact(history.audit._database(), "default", sent[2].id, **WHO)

    found = verified(history)

    assert found.findings == ()
    assert found.redacted == 1
    view = history.audit.message(sent[2].id)
    assert list(view.payload) == ["$redacted"]
    assert view.headers == {}


def test_redaction_takes_the_errors_that_may_quote_the_payload(history: Any) -> None:
    recorder = history.record()
    asked = history.message({"name": "Ada"}, kind=MessageKind.REQUEST)
    answer = history.message(
        ValueError("no such Ada"),
        kind=MessageKind.ERROR,
        causation_id=asked.id,
        correlation_id=asked.correlation_id,
    )
    recorder.sent(asked)
    history.end(recorder, asked, Status.FAILED, reason=Reason.STOPPED, error="at once: Ada")
    recorder.flush(10)
    history.end(recorder, asked, Status.FAILED, reason=Reason.STOPPED, error="later: Ada")
    recorder.sent(answer)
    recorder.flush(10)
    recorder.close(10)

    assert redact(history.audit._database(), "default", asked.id, **WHO)

    with history.audit._database().reading() as connection:
        rows = [
            repr(connection.execute(text(f"SELECT * FROM {table}")).all())  # noqa: S608
            for table in ("agent_messages", "message_events")
        ]
    assert [row.count("$redacted sha256:") for row in rows] == [1, 1]
    assert "Ada" not in "".join(rows)
    found = verified(history)
    assert (found.findings, found.redacted) == ((), 2)
    assert not redact(history.audit._database(), "default", asked.id, **WHO)


def test_what_was_learned_after_a_redaction_can_be_redacted_too(history: Any) -> None:
    recorder = history.record()
    one = history.message({"name": "Ada"})
    recorder.sent(one)
    recorder.flush(10)
    redact(history.audit._database(), "default", one.id, **WHO)
    history.end(recorder, one, Status.FAILED, reason=Reason.STOPPED, error="no Ada")
    recorder.flush(10)
    recorder.close(10)

    again = redact(history.audit._database(), "default", one.id, **WHO)

    assert again
    assert "Ada" not in str(history.audit.message(one.id))
    assert verified(history).findings == ()


def test_an_error_that_only_looks_redacted_is_what_it_is(history: Any) -> None:
    recorder = history.record()
    one = history.message({"name": "Ada"})
    recorder.sent(one)
    history.end(
        recorder, one, Status.FAILED, reason=Reason.STOPPED, error=f"$redacted sha256:{'0' * 64}"
    )
    recorder.flush(10)
    redact(history.audit._database(), "default", one.id, **WHO)
    recorder.close(10)

    assert verified(history).findings == ()


def test_an_error_that_somebody_took_away_unrecorded_is_found(
    file_history: Any, damage: Damage
) -> None:
    write(file_history)
    (row,) = damage.rows("SELECT rowid, error FROM message_events WHERE seq = 2")
    marker = f"$redacted sha256:{sha256(row.error.encode()).hexdigest()}"
    damage("UPDATE message_events SET error = :error WHERE rowid = :row", error=marker, row=row[0])

    found = first(file_history)

    assert (found.flaw, found.seq) == (Flaw.CHANGED, 2)


def test_a_redaction_that_nobody_answers_for_is_found(file_history: Any, damage: Damage) -> None:
    sent = write(file_history)
    redact(file_history.audit._database(), "default", sent[2].id, **WHO)
    damage("UPDATE audit_acts SET target = 'x'")

    found = verified(file_history).findings

    assert {one.flaw for one in found} == {Flaw.CHANGED, Flaw.UNRECORDED}


def test_holds_are_part_of_the_proof(file_history: Any, damage: Damage) -> None:
    write(file_history)
    hold(file_history.audit._database(), "default", Hold.parse("run:run-1"), **WHO)
    damage("UPDATE audit_acts SET target = 'run:run-2'")

    assert [one.flaw for one in verified(file_history).findings] == [Flaw.CHANGED]


def test_a_later_attempt_and_a_repeat_take_no_second_place(history: Any) -> None:
    recorder = history.record()
    one = history.message("once")
    recorder.sent(one)
    recorder.flush(10)
    recorder.sent(one)
    recorder.sent(history.message("next"))
    recorder.flush(10)
    recorder.close(10)

    assert history.rows() == (2, 0)
    assert verified(history).findings == ()


def test_a_commit_that_happened_and_was_never_acknowledged_keeps_the_chain(
    file_history: Any,
) -> None:
    recorder = file_history.record(start=False)
    database = recorder.database
    committing = database.writing
    failures: list[str] = []

    @contextmanager
    def losing_the_answer(connection: Any) -> Iterator[None]:
        with committing(connection):
            yield
        if recorder._writer._appender._rows is not None and not failures:
            failures.append("after COMMIT")
            raise OSError("the connection is lost")

    database.writing = losing_the_answer
    recorder.start()
    recorder.sent(file_history.message("first"))
    assert file_history.clock.armed.wait(10)
    file_history.clock.advance(1)
    file_history.seen.wait_for(AuditStalled)
    recorder.sent(file_history.message("second"))
    recorder.flush(10)
    recorder.close(10)

    assert failures
    assert file_history.rows() == (2, 0)
    assert verified(file_history).findings == ()


def test_what_is_masked_was_never_written(file_history: Any, file_url: str) -> None:
    file_history.audit = Audit(file_url, mask=["email"])
    recorder = file_history.record()
    one = file_history.message({"to": "ada@example.org"}, headers={"cc": "bob@example.org"})
    recorder.sent(one)
    file_history.end(recorder, one, Status.FAILED, error="no mail for ada@example.org")
    recorder.flush(10)

    view = file_history.audit.message(one.id)

    assert view is not None
    assert view.payload == {"to": "[email]"}
    assert view.headers == {"cc": "[email]"}
    assert view.error == "no mail for [email]"
    recorder.close(10)
    assert verified(file_history).findings == ()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("causation_id", bytes(16)),
        ("causation_id", b""),
        ("deadline", -(1 << 63)),
        ("ended_at", -(1 << 63)),
    ],
)
def test_a_value_that_is_hashed_as_nothing_is_not_taken_for_nothing(
    file_history: Any, damage: Damage, column: str, value: Any
) -> None:
    recorder = file_history.record()
    recorder.sent(file_history.message("hello"))
    recorder.flush(10)
    assert damage.rows(f"SELECT {column} FROM agent_messages") == [(None,)]  # noqa: S608

    damage(f"UPDATE agent_messages SET {column} = :value", value=value)  # noqa: S608

    assert first(file_history).flaw is Flaw.CHANGED


@pytest.mark.parametrize("column", ["id", "correlation_id"])
def test_an_id_with_something_behind_it_is_found(
    file_history: Any, damage: Damage, column: str
) -> None:
    write(file_history, 1)

    damage(f"UPDATE agent_messages SET {column} = CAST({column} || x'00' AS BLOB)")  # noqa: S608

    assert Flaw.CHANGED in {one.flaw for one in verified(file_history).findings}
