from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from actorbus.registry.directory import ChangeKind
from actorbus.registry.watch import NodeInfo, RegistryChange, RegistryLagged, Watch
from actorbus.telemetry import Event, Telemetry, WatcherFailed, WatcherLagged

if TYPE_CHECKING:
    from collections.abc import Callable


class WatchThread:
    """Collects what is posted, and runs it when told to."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def post(self, call: Callable[[], None]) -> None:
        self.waiting.append(call)

    def run(self) -> None:
        while self.waiting:
            self.waiting.popleft()()


class Fixture:
    """A watch on a watch thread that stands still until `run`, and what it led to."""

    def __init__(self, limit: int = 10, fails_at: str = "") -> None:
        self.thread = WatchThread()
        self.run = self.thread.run
        self.heard: list[str | int] = []
        self.events: list[Event] = []
        self.fails_at = fails_at
        telemetry = Telemetry()
        telemetry.listen(self.events.append)
        self.cancelled: list[Watch] = []
        self.watch = Watch(
            self.hear,
            post=self.thread.post,
            limit=limit,
            telemetry=telemetry,
            on_cancel=self.cancelled.append,
        )

    def hear(self, change: RegistryChange | RegistryLagged) -> None:
        told = change.count if isinstance(change, RegistryLagged) else change.info.name
        self.heard.append(told)
        if told == self.fails_at:
            raise SystemExit

    def offer(self, *names: str) -> None:
        for name in names:
            self.watch.offer(RegistryChange(ChangeKind.DEAD, NodeInfo(name, 0.0)))


def test_changes_come_in_order_and_not_on_the_thread_that_makes_them() -> None:
    one = Fixture()

    one.offer("a", "b", "c")
    before = list(one.heard)
    one.run()
    one.offer("d")
    one.run()

    assert before == []
    assert one.heard == ["a", "b", "c", "d"]


def test_a_burst_is_posted_once() -> None:
    one = Fixture()

    one.offer("a", "b", "c")

    assert len(one.thread.waiting) == 1


def test_a_watcher_too_far_behind_gets_one_notice_in_place_of_what_it_missed() -> None:
    one = Fixture(limit=3)

    one.offer("a", "b", "c", "d", "e")
    one.run()
    one.offer("f")
    one.run()

    assert one.heard == [4, "e", "f"]
    assert one.events == [WatcherLagged(one.watch.name, 4)]


def test_a_watcher_that_lags_twice_before_it_looks_still_gets_one_notice() -> None:
    one = Fixture(limit=2)

    one.offer(*"abcdefgh")
    one.run()

    assert one.heard == [6, "g", "h"]


def test_as_many_changes_as_it_may_be_behind_all_come() -> None:
    one = Fixture(limit=3)

    one.offer("a", "b", "c")
    one.run()

    assert one.heard == ["a", "b", "c"]
    assert one.events == []


def test_a_callback_that_raises_is_reported_and_kept() -> None:
    one = Fixture(fails_at="a")

    one.offer("a", "b")
    one.run()

    assert one.heard == ["a", "b"]
    (event,) = one.events
    assert isinstance(event, WatcherFailed)
    assert event.watch == "registry:Fixture.hear"
    assert isinstance(event.error, SystemExit)


def test_a_cancelled_watch_hears_nothing_more_not_even_what_waited() -> None:
    one = Fixture()
    one.offer("a")

    one.watch.cancel()
    one.watch.cancel()
    one.offer("b")
    one.run()

    assert one.heard == []
    assert one.cancelled == [one.watch, one.watch]


def test_a_watch_ends_with_its_block() -> None:
    one = Fixture()

    with one.watch:
        one.offer("a")
        one.run()
    one.offer("b")
    one.run()

    assert one.heard == ["a"]


def test_a_watch_may_be_cancelled_from_its_own_callback() -> None:
    one = Fixture()
    heard: list[object] = []

    def hear_once(change: object) -> None:
        heard.append(change)
        watch.cancel()

    watch = Watch(
        hear_once,
        post=one.thread.post,
        limit=10,
        telemetry=Telemetry(),
        on_cancel=one.cancelled.append,
    )
    for name in "abc":
        watch.offer(RegistryChange(ChangeKind.BACK, NodeInfo(name, 0.0)))
    one.run()

    assert len(heard) == 1


def test_a_long_backlog_lets_other_work_of_the_watch_thread_in_between() -> None:
    one = Fixture(limit=1_000)
    others: list[int] = []

    one.offer(*map(str, range(200)))
    one.thread.post(lambda: others.append(len(one.heard)))
    one.run()

    assert one.heard == [str(number) for number in range(200)]
    assert others[0] < 200


def test_a_change_made_by_a_callback_comes_after_those_that_wait() -> None:
    heard: list[str] = []

    def hear(change: RegistryChange | RegistryLagged) -> None:
        assert isinstance(change, RegistryChange)
        heard.append(change.info.name)
        if change.info.name == "a":
            offer("nested")
            heard.append("end of a")

    watch = Watch(
        hear,
        post=lambda call: call(),
        limit=10,
        telemetry=Telemetry(),
        on_cancel=lambda watch: None,
    )

    def offer(name: str) -> None:
        watch.offer(RegistryChange(ChangeKind.BACK, NodeInfo(name, 0.0)))

    offer("a")

    assert heard == ["a", "end of a", "nested"]
