"""Calls whose answers did not come are settled before the next one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from actorbus.bus.transports.redis.topics.log import Answer, TopicLog
from actorbus.bus.transports.redis.topics.record import Lost, Record
from actorbus.errors import TransportUnavailable


class Log:
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self, *answers: Answer | TransportUnavailable) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._answers = list(answers)

    def keep(self, *call: Any) -> Answer:
        self.asked.append(call)
        answer = self._answers.pop(0)
        if isinstance(answer, TransportUnavailable):
            raise answer
        return answer


def test_what_may_have_been_done_is_sent_again_before_the_next_call() -> None:
    log = Log(TransportUnavailable("away"), Answer("OK"), Answer("OK", ("x",)))
    record = Record(cast("TopicLog", log), "n1")
    with pytest.raises(TransportUnavailable):
        record.call("join", "a")

    assert record.call("park", "b") == ("x",)

    assert log.asked == [
        ("join", "n1", 0, 1, "a"),
        ("join", "n1", 0, 1, "a"),
        ("park", "n1", 1, 2, "b"),
    ]


def test_a_server_that_forgot_is_told_from_one_that_refused() -> None:
    log = Log(Answer("LOST"), Answer("OK"))
    record = Record(cast("TopicLog", log), "n1")
    with pytest.raises(Lost):
        record.call("join", "a")

    record.call("save", anew=True)

    assert log.asked[-1] == ("save", "n1", -1, 2)
