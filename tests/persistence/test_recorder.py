from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.errors import AuditUnavailable
from actorbus.message import MessageKind, Reason, Status
from actorbus.persistence.pressure import Health
from actorbus.telemetry import AuditDamaged, AuditResumed, AuditSpilled, AuditStalled

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_message_and_its_ending_that_wait_together_are_one_row(history: Any) -> None:
    recorder = history.record()
    message = history.message()

    recorder.sent(message)
    history.end(recorder, message)
    recorder.flush(10)

    assert history.rows() == (1, 0)
    assert history.audit.message(message.id).status is Status.HANDLED


def test_an_ending_before_its_message_is_still_one_row(history: Any) -> None:
    recorder = history.record()
    message = history.message()

    history.end(recorder, message)
    recorder.sent(message)
    recorder.flush(10)

    assert history.rows() == (1, 0)


def test_an_ending_that_comes_later_is_an_event(history: Any) -> None:
    recorder = history.record()
    message = history.message()
    recorder.sent(message)
    recorder.flush(10)

    history.end(recorder, message, Status.DEAD, reason=Reason.EXPIRED, error="too late")
    recorder.flush(10)

    view = history.audit.message(message.id)
    assert history.rows() == (1, 1)
    assert (view.status, view.reason, view.error) == (Status.DEAD, Reason.EXPIRED, "too late")


def test_the_last_attempt_decides_and_all_are_kept(history: Any) -> None:
    recorder = history.record()
    message = history.message()

    recorder.sent(message)
    history.end(recorder, message, Status.FAILED, reason=Reason.HANDLER_ERROR)
    history.end(recorder, message.copy(attempt=2))
    recorder.flush(10)

    view = history.audit.message(message.id)
    assert (view.status, view.attempts) == (Status.HANDLED, 2)
    assert [one.status for one in view.deliveries] == [Status.FAILED, Status.HANDLED]


def test_the_ending_of_a_message_recorded_twice_is_kept(history: Any) -> None:
    recorder = history.record()
    message = history.message()
    recorder.sent(message)
    recorder.flush(10)

    again = message.copy(attempt=2)
    recorder.sent(again)
    history.end(recorder, again)
    recorder.flush(10)

    view = history.audit.message(message.id)
    assert (view.status, view.attempts) == (Status.HANDLED, 2)


def test_a_broadcast_is_one_row_and_an_event_for_each_recipient(history: Any) -> None:
    recorder = history.record()
    message = history.message(kind=MessageKind.BROADCAST, recipient=None)

    recorder.sent(message)
    history.end(recorder, message, recipient="bob")
    history.end(recorder, message, Status.DEAD, recipient="carol", reason=Reason.MAILBOX_FULL)
    history.end(recorder, message, recipient="dave")
    recorder.flush(10)

    view = history.audit.message(message.id)
    assert history.rows() == (1, 3)
    assert [one.recipient for one in view.deliveries] == ["bob", "carol", "dave"]
    assert (view.status, view.reason) == (Status.DEAD, Reason.MAILBOX_FULL)


def test_a_reply_to_code_outside_is_one_row(history: Any) -> None:
    recorder = history.record()
    reply = history.message(kind=MessageKind.REPLY, sender="bob", recipient=None)

    recorder.sent(reply)
    history.end(recorder, reply)
    recorder.flush(10)

    assert history.rows() == (1, 0)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8, 500])
def test_batches_of_any_size_lose_and_double_nothing(history: Any, batch: int) -> None:
    recorder = history.record(audit_batch=batch)
    messages = [history.message(number) for number in range(17)]

    for message in messages:
        recorder.sent(message)
        history.end(recorder, message)
    history.end(recorder, messages[3].copy(attempt=2))
    recorder.flush(10)

    found = history.audit.messages(limit=100)
    assert [view.payload for view in found] == list(range(16, -1, -1))
    assert history.rows() == (17, 1)


def test_a_transaction_holds_at_most_a_batch(
    history: Any, commits_of: Callable[[Any], Any]
) -> None:
    recorder = history.record(audit_batch=4)
    recorder.flush(10)
    commits = commits_of(recorder)

    for number in range(10):
        recorder.sent(history.message(number))
    recorder.flush(10)

    opening = 1  # the project's row is made, and the chain begun
    assert commits.count == opening + 3


def test_records_are_written_when_the_interval_is_over(
    history: Any, commits_of: Callable[[Any], Any]
) -> None:
    recorder = history.record(audit_interval=60)
    commits = commits_of(recorder)

    recorder.sent(history.message())
    assert history.clock.armed.wait(10)
    assert commits.count == 0
    history.clock.advance(60)

    assert commits.happened.wait(10)


def test_closing_writes_what_waits(history: Any) -> None:
    recorder = history.record(audit_interval=3600)
    for number in range(10):
        recorder.sent(history.message(number))

    recorder.close(10)

    assert history.rows() == (10, 0)


def test_closing_starting_and_flushing_may_be_repeated(history: Any) -> None:
    recorder = history.record()
    recorder.start()
    recorder.sent(history.message())

    recorder.close(10)
    recorder.close(10)
    recorder.start()
    recorder.flush(10)

    assert history.rows() == (1, 0)


def test_a_recorder_that_never_started_closes(history: Any) -> None:
    recorder = history.record(start=False)

    recorder.flush(10)
    recorder.close(10)

    with pytest.raises(AuditUnavailable, match="closed"):
        recorder.sent(history.message())


def test_a_closed_recorder_refuses_messages(history: Any) -> None:
    recorder = history.record()
    recorder.close(10)

    with pytest.raises(AuditUnavailable, match="closed: its node has stopped"):
        recorder.sent(history.message())


def test_an_ending_after_the_close_is_told_of(file_history: Any) -> None:
    recorder = file_history.record()
    message = file_history.message()
    recorder.sent(message)
    recorder.close(10)

    file_history.end(recorder, message)

    assert "before" in file_history.seen.wait_for(AuditStalled).error
    recorder._ring.endings.clear()


def test_a_full_ring_refuses_after_the_time_out_and_keeps_what_it_has(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record(audit_ring=4, send_timeout=0.01, audit_spill_bytes=0)
    recorder.flush(10)
    lock.take()

    for number in range(4):
        recorder.sent(file_history.message(number))
    with pytest.raises(AuditUnavailable, match="4 records of history were not written"):
        recorder.sent(file_history.message("refused"))
    lock.release()
    recorder.flush(10)

    kept = {view.payload for view in file_history.audit.messages()}
    assert kept == {0, 1, 2, 3}


def test_a_sender_at_a_full_ring_goes_on_when_there_is_room(file_history: Any, lock: Any) -> None:
    recorder = file_history.record(audit_ring=4, audit_spill_bytes=0)
    lock.take()
    for number in range(4):
        recorder.sent(file_history.message(number))

    with ThreadPoolExecutor() as pool:
        blocked = pool.submit(recorder.sent, file_history.message("waited"))
        file_history.seen.wait_for(AuditStalled)
        assert not blocked.done()
        lock.release()
        recorder.flush(10)
        blocked.result(10)
    recorder.flush(10)

    assert file_history.rows() == (5, 0)


def test_a_full_ring_without_a_database_holds_up_no_ending(file_history: Any, lock: Any) -> None:
    recorder = file_history.record(audit_ring=2, audit_spill_bytes=0)
    lock.take()
    messages = [file_history.message(number) for number in range(2)]
    for message in messages:
        recorder.sent(message)
    recorder._ring.hurry()
    file_history.seen.wait_for(AuditStalled)

    for message in messages:
        file_history.end(recorder, message)
    lock.release()
    recorder.flush(10)

    assert [view.status for view in file_history.audit.messages()] == [Status.HANDLED] * 2


async def test_a_full_ring_without_a_database_does_not_hold_up_a_loop(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record(audit_ring=1, audit_spill_bytes=0)
    lock.take()
    recorder.sent(file_history.message())
    recorder._ring.hurry()
    file_history.seen.wait_for(AuditStalled)

    with pytest.raises(AuditUnavailable, match="locked"):
        recorder.sent(file_history.message())

    lock.release()


def test_a_locked_database_loses_nothing_and_is_told_of_once(file_history: Any, lock: Any) -> None:
    recorder = file_history.record()
    recorder.flush(10)
    lock.take()

    messages = [file_history.message(number) for number in range(10)]
    for message in messages:
        recorder.sent(message)
    recorder._ring.hurry()
    stalled = file_history.seen.wait_for(AuditStalled)
    with pytest.raises(AuditUnavailable, match="10 records of history were not written"):
        recorder.flush(0.01)
    lock.release()
    recorder.flush(10)

    assert "locked" in stalled.error
    assert stalled.waiting == 10
    assert len(file_history.seen.of(AuditStalled)) == 1
    assert file_history.seen.wait_for(AuditResumed).written == 10
    assert file_history.rows() == (10, 0)


def test_a_failing_database_is_tried_again_when_the_pause_is_over(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record()
    recorder.flush(10)
    lock.take()
    recorder.sent(file_history.message())
    recorder._ring.hurry()
    file_history.seen.wait_for(AuditStalled)
    lock.release()

    while not file_history.seen.of(AuditResumed):
        file_history.clock.advance(0.1)

    assert file_history.rows() == (1, 0)


def test_closing_without_database_or_spill_says_how_many_records_are_left(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record(audit_spill_bytes=0)
    recorder.flush(10)
    lock.take()
    for number in range(3):
        recorder.sent(file_history.message(number))

    with pytest.raises(AuditUnavailable, match=r"^3 records of history were not written.*locked"):
        recorder.close(0.01)

    recorder._thread.join(10)
    recorder._ring.sent.clear()
    recorder._ring.in_flight = 0


def test_a_crowded_ring_goes_to_the_disk_and_then_to_the_database_in_order(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record(audit_ring=10)
    recorder.flush(10)
    lock.take()

    messages = [file_history.message(number) for number in range(40)]
    for message in messages:
        recorder.sent(message)
    spilled = file_history.seen.wait_for(AuditSpilled)
    during = recorder.health
    for message in messages:
        file_history.end(recorder, message)
    lock.release()
    recorder.flush(10)

    views = file_history.audit.messages()
    assert (during, recorder.health) == (Health.SPILLING, Health.OK)
    assert "locked" in spilled.error
    assert [view.payload for view in views] == list(range(39, -1, -1))
    assert {view.status for view in views} == {Status.HANDLED}
    assert recorder.spilled == 0
    resumed = file_history.seen.of(AuditResumed)
    assert len(resumed) == 1
    assert resumed[0].written == 80


def sent_until_refused(recorder: Any, history: Any, why: str) -> int:
    """How many messages were taken."""
    for number in range(10_000):
        try:
            recorder.sent(history.message(number))
        except AuditUnavailable as error:
            assert why in str(error)  # noqa: PT017 - the number is wanted too
            return number
    pytest.fail("nothing was refused")


async def test_a_spill_that_takes_records_holds_up_no_loop(file_history: Any, lock: Any) -> None:
    recorder = file_history.record(audit_ring=4)
    recorder.flush(10)
    lock.take()

    for number in range(50):
        recorder.sent(file_history.message(number))
    lock.release()
    recorder.flush(10)

    assert file_history.rows() == (50, 0)


def test_a_full_spill_blocks_senders_and_drops_nothing(file_history: Any, lock: Any) -> None:
    recorder = file_history.record(audit_ring=4, send_timeout=2, audit_spill_bytes=1_000)
    recorder.flush(10)
    lock.take()

    taken = sent_until_refused(recorder, file_history, "of 1,000 allowed")
    during = recorder.health
    lock.release()
    recorder.flush(10)

    assert taken > 4
    assert (during, recorder.health) == (Health.BLOCKED, Health.OK)
    assert {view.payload for view in file_history.audit.messages()} == set(range(taken))


def test_what_is_left_at_the_close_is_there_after_the_next_start(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record()
    recorder.flush(10)
    lock.take()
    payload = {"bytes": b"\x00", "text": "half \ud800"}
    message = file_history.message(payload, headers={"a": "b"}, run_id="run", hops=3)
    recorder.sent(message)
    file_history.end(recorder, message, Status.DEAD, reason=Reason.EXPIRED, error="late")

    recorder.close(10)
    told = file_history.seen.wait_for(AuditSpilled)
    lock.release()
    before = file_history.rows()
    later = file_history.record()
    later.flush(10)

    view = file_history.audit.message(message.id)
    later.close(10)
    assert told.size > 0
    assert (before, file_history.rows()) == ((0, 0), (1, 0))
    assert view.payload == {"bytes": {"$bytes": "AA=="}, "text": "half \\ud800"}
    assert (view.headers, view.run_id, view.hops) == ({"a": "b"}, "run", 3)
    assert (view.status, view.reason, view.error) == (Status.DEAD, Reason.EXPIRED, "late")
    assert not Path(told.path).exists()


def test_what_was_written_before_a_crash_is_not_written_twice(
    file_history: Any, lock: Any, tmp_path: Path
) -> None:
    recorder = file_history.record(audit_ring=4)
    recorder.flush(10)
    lock.take()
    for number in range(8):
        recorder.sent(file_history.message(number))
    spill = Path(file_history.seen.wait_for(AuditSpilled).path)
    recorder.close(10)
    shutil.copytree(spill, tmp_path / "copy")
    lock.release()
    file_history.record().flush(10)
    file_history.close()

    shutil.copytree(tmp_path / "copy", spill, dirs_exist_ok=True)
    again = file_history.record()
    again.sent(file_history.message("new"))
    again.flush(10)

    assert file_history.rows() == (9, 0)


def test_a_spill_cut_short_by_a_crash_is_replayed_as_far_as_it_goes(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record(audit_batch=2)
    recorder.flush(10)
    lock.take()
    for number in range(6):
        recorder.sent(file_history.message(number))
    recorder.close(10)
    lock.release()
    (segment,) = Path(file_history.seen.wait_for(AuditSpilled).path).rglob("*.spill")
    os.truncate(segment, segment.stat().st_size - 1)

    file_history.record().flush(10)

    damage = file_history.seen.wait_for(AuditDamaged)
    assert "crash" in damage.cause
    assert {view.payload for view in file_history.audit.messages()} == {0, 1, 2, 3}


def test_a_deleted_file_is_noticed_and_made_anew(file_history: Any) -> None:
    recorder = file_history.record()
    recorder.sent(file_history.message("gone with its file"))
    recorder.flush(10)
    file_history.audit.path.unlink()

    recorder.sent(file_history.message("kept"))
    recorder._ring.hurry()
    file_history.seen.wait_for(AuditStalled)
    recorder.flush(10)

    assert "deleted" in file_history.seen.wait_for(AuditStalled).error
    assert [view.payload for view in file_history.audit.messages()] == ["kept"]


def test_large_payloads_leave_room_for_fewer(file_history: Any) -> None:
    recorder = file_history.record(audit_ring=1_000, audit_ring_bytes=100_000)

    for _ in range(30):
        recorder.sent(file_history.message("x" * 10_000))
        recorder.flush(10)

    assert 9 <= recorder._ring.limit <= 10


def test_strict_is_committed_when_sent_returns(file_history: Any) -> None:
    recorder = file_history.record(strict=True)

    recorder.sent(file_history.message())

    assert file_history.rows() == (1, 0)


def test_strict_fails_the_send_whose_record_fails_and_recovers(
    file_history: Any, lock: Any
) -> None:
    recorder = file_history.record(strict=True)
    recorder.sent(file_history.message("before"))
    lock.take()

    with pytest.raises(AuditUnavailable, match=r"not sent.*locked"):
        recorder.sent(file_history.message("refused"))
    lock.release()
    recorder.sent(file_history.message("after"))

    assert [view.payload for view in file_history.audit.messages()] == ["after", "before"]


def test_strict_keeps_the_endings_of_a_failed_batch(file_history: Any, lock: Any) -> None:
    recorder = file_history.record(strict=True)
    message = file_history.message()
    recorder.sent(message)
    lock.take()

    file_history.end(recorder, message)
    with pytest.raises(AuditUnavailable):
        recorder.sent(file_history.message("refused"))
    lock.release()

    assert file_history.audit.message(message.id).status is Status.HANDLED


def test_strict_senders_that_wait_together_share_transactions(
    patient_history: Any, lock: Any, commits_of: Callable[[Any], Any]
) -> None:
    history = patient_history
    recorder = history.record(strict=True)
    recorder.sent(history.message())
    commits = commits_of(recorder)
    lock.take()

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(recorder.sent, history.message(one)) for one in range(8)]
        while recorder._ring.waiting() < 8:
            threading.Event().wait(0.001)
        lock.release()
        for one in waiting:
            one.result(10)

    assert commits.count < 8
    assert history.rows() == (9, 0)


@pytest.mark.parametrize("number", [0, -1, 1.0, 0.1, 2**63, 12345678901234567890123])
def test_a_payload_that_is_a_number_is_kept_as_it_is_and_proven(history: Any, number: Any) -> None:
    recorder = history.record()
    message = history.message(number)

    recorder.sent(message)
    recorder.flush(10)

    kept = history.audit.message(message.id).payload
    assert (kept, type(kept)) == (number, type(number))
    assert history.audit.verify().findings == ()


@pytest.mark.parametrize(
    "hostile",
    ["\ud800 half a pair", "NUL \0 inside", "'; DROP TABLE agent_messages; --", "\x1b[2J"],
)
def test_hostile_text_is_kept_and_stops_nothing(history: Any, hostile: str) -> None:
    recorder = history.record()
    message = history.message({hostile: hostile}, run_id=hostile, headers={"x": hostile})

    recorder.sent(message)
    history.end(recorder, message, Status.DEAD, error=hostile)
    recorder.sent(history.message("next"))
    recorder.flush(10)

    assert history.rows() == (2, 0)
    assert history.audit.message(message.id).error


def test_names_longer_than_an_index_takes_stop_nothing(history: Any) -> None:
    recorder = history.record()
    endless = "".join(map(chr, range(0x4E00, 0x4E00 + 5_000)))  # too varied to be compressed
    message = history.message(run_id=endless, type=endless)

    recorder.sent(message)
    recorder.sent(history.message("next"))
    recorder.flush(10)

    kept = history.audit.message(message.id)
    assert history.rows() == (2, 0)
    assert kept.run_id == kept.type == endless[:512]
    assert history.audit.verify().findings == ()


def test_values_of_the_wrong_type_stop_nothing(history: Any) -> None:
    recorder = history.record()

    recorder.sent(history.message(run_id=object()))
    recorder.sent(history.message("next"))
    recorder.flush(10)

    assert history.rows() == (2, 0)


def test_many_threads_record_everything_through_a_small_ring(history: Any) -> None:
    recorder = history.record(audit_ring=50, audit_batch=16)

    def send_some(_: int) -> None:
        for number in range(100):
            message = history.message(number)
            recorder.sent(message)
            history.end(recorder, message)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send_some, range(8)))
    recorder.flush(10)

    assert history.audit.counts().by_status == {Status.HANDLED: 800}
