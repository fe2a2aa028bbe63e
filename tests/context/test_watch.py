"""Watches: in order, once, and no gap that is silent."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus.context import Change, Context, Lagged
from actorbus.context.stores.memory import MemoryStore
from actorbus.errors import AccessDenied
from actorbus.telemetry import Telemetry, WatcherFailed, WatcherLagged
from actorbus.testing.clock import ManualClock
from actorbus.testing.store_contract import run_in_threads

if TYPE_CHECKING:
    from actorbus.telemetry import Event

    from .conftest import WatchThread

News = Change | Lagged


class Ears:
    """Something that listens, and that a weak reference can point at."""

    def hear(self, news: News) -> None: ...


def test_a_watch_tells_of_later_changes_in_order(
    context: Context, clock: ManualClock, watch_thread: WatchThread
) -> None:
    context.set("plan", "before")
    heard: list[News] = []
    context.watch("", heard.append)

    context.bound_to("editor").set("plan", "after")
    context.delete("plan")
    watch_thread.run()

    assert heard == [
        Change("plan", "after", 2, "editor", clock.now()),
        Change("plan", None, 3, None, clock.now(), deleted=True),
    ]


def test_a_watch_keeps_to_its_prefix_and_its_namespace(
    context: Context, watch_thread: WatchThread
) -> None:
    heard: list[News] = []
    context.watch("todo/", heard.append)

    context.set("todo/1", 1)
    context.set("todo", 2)
    context.namespace("plan").set("todo/1", 3)
    watch_thread.run()

    assert values(heard) == [1]


def test_the_changes_of_a_commit_come_together(context: Context, watch_thread: WatchThread) -> None:
    heard: list[News] = []
    context.watch("", heard.append)

    context.commit(set={"b": 1, "a": 2}, increment={"n": 3})
    watch_thread.run()

    assert values(heard) == [1, 2, 3]


def test_an_expiry_is_told_when_its_time_comes(
    context: Context, clock: ManualClock, watch_thread: WatchThread
) -> None:
    context.set("lease", "mine", ttl=10)
    due = clock.now() + 10
    heard: list[News] = []
    context.watch("lease", heard.append)

    clock.advance(60)
    watch_thread.run()

    assert heard == [Change("lease", None, 2, None, due, deleted=True)]


def test_a_watch_is_told_nothing_twice(context: Context, watch_thread: WatchThread) -> None:
    heard: list[News] = []
    context.watch("", heard.append)

    for number in range(20):
        context.set("n", number)
        watch_thread.run()

    assert values(heard) == list(range(20))


def test_however_many_changes_wait_one_turn_is_posted(
    context: Context, watch_thread: WatchThread
) -> None:
    context.watch("", print)

    for number in range(100):
        context.set("n", number)

    assert len(watch_thread.posted) == 1


def test_a_watch_that_is_just_not_too_far_behind_misses_nothing(
    context: Context, watch_thread: WatchThread
) -> None:
    heard: list[News] = []
    context.watch("n", heard.append)

    for number in range(5):
        context.set("n", number)
        context.set("other", number)
    watch_thread.run()

    assert values(heard) == [0, 1, 2, 3, 4]


def test_a_watch_too_far_behind_is_told_once_and_then_goes_on(
    context: Context, watch_thread: WatchThread, events: list[Event]
) -> None:
    heard: list[News] = []
    context.set("n", "before")
    context.watch("n", heard.append)

    for number in range(6):
        context.set("n", number)
    watch_thread.run()
    context.set("n", "after")
    watch_thread.run()

    lagged, change = heard
    assert lagged == Lagged(first=2, last=7)
    assert isinstance(change, Change)
    assert change.value == "after"
    assert events == [WatcherLagged("global:n*", 6)]


def test_a_watch_that_the_log_left_behind_is_told(watch_thread: WatchThread) -> None:
    store = MemoryStore(ManualClock(), log=2)
    context = Context(store, post=watch_thread.post, telemetry=Telemetry())
    heard: list[News] = []
    context.watch("n", heard.append)

    for number in range(3):
        context.set("n", number)
    watch_thread.run()

    assert heard == [Lagged(1, 3)]


def test_a_callback_that_raises_is_reported_and_the_watch_goes_on(
    context: Context, watch_thread: WatchThread, events: list[Event]
) -> None:
    heard: list[News] = []
    error = ZeroDivisionError()

    def fail_first(news: News) -> None:
        heard.append(news)
        if len(heard) == 1:
            raise error

    context.watch("n", fail_first)

    context.set("n", 1)
    context.set("n", 2)
    watch_thread.run()

    assert values(heard) == [1, 2]
    assert events == [WatcherFailed("global:n*", error)]


def test_a_callback_that_exits_hurts_only_itself(
    context: Context, watch_thread: WatchThread, events: list[Event]
) -> None:
    heard: list[News] = []

    def leave(news: News) -> None:
        raise SystemExit

    context.watch("", leave)
    context.watch("", heard.append)

    context.set("n", 1)
    watch_thread.run()

    assert values(heard) == [1]
    assert [type(event) for event in events] == [WatcherFailed]


def test_a_cancelled_watch_tells_nothing_more_even_of_what_waits(
    context: Context, watch_thread: WatchThread
) -> None:
    heard: list[News] = []
    watch = context.watch("", heard.append)

    context.set("n", 1)
    watch.cancel()
    watch.cancel()
    watch_thread.run()
    context.set("n", 2)

    assert heard == []
    assert not watch_thread.posted


def test_a_cancelled_watch_is_let_go_of(context: Context) -> None:
    heard = Ears()
    gone = weakref.ref(heard)
    context.watch("", heard.hear).cancel()

    del heard
    gc.collect()

    assert gone() is None


def test_a_callback_may_cancel_its_own_watch(context: Context, watch_thread: WatchThread) -> None:
    heard: list[News] = []

    def once(news: News) -> None:
        heard.append(news)
        watch.cancel()

    watch = context.watch("", once)

    context.set("n", 1)
    context.set("n", 2)
    watch_thread.run()

    assert values(heard) == [1]


def test_leaving_the_block_cancels_the_watch(context: Context, watch_thread: WatchThread) -> None:
    heard: list[News] = []

    with context.watch("", heard.append):
        context.set("n", 1)
        watch_thread.run()
    context.set("n", 2)
    watch_thread.run()

    assert values(heard) == [1]


@pytest.mark.parametrize("post", ["waits", "runs at once"])
def test_a_callback_may_write_what_it_watches(
    store: MemoryStore, watch_thread: WatchThread, post: str
) -> None:
    context = Context(
        store,
        post=watch_thread.post if post == "waits" else lambda task: task(),
        telemetry=Telemetry(),
    )
    heard: list[Any] = []

    def count_down(news: News) -> None:
        assert isinstance(news, Change)
        heard.append(news.value)
        if news.value:
            context.set("n", news.value - 1)

    context.watch("n", count_down)
    context.set("n", 1_000)
    watch_thread.run()

    assert heard == list(range(1_000, -1, -1))


def test_a_watch_that_is_never_done_lets_others_have_their_turn(
    context: Context, watch_thread: WatchThread
) -> None:
    heard: list[News] = []

    def never_done(news: News) -> None:
        if not heard:
            context.increment("busy")

    context.watch("busy", never_done)
    context.watch("n", heard.append)
    context.increment("busy")
    context.set("n", 1)

    watch_thread.run()

    assert values(heard) == [1]


def test_contexts_of_two_nodes_on_one_store_hear_of_each_other(
    context: Context, store: MemoryStore, watch_thread: WatchThread
) -> None:
    elsewhere = Context(store, post=lambda task: task(), telemetry=Telemetry(), principal="there")
    heard: list[News] = []
    context.watch("", heard.append)

    elsewhere.set("n", 1)
    watch_thread.run()

    assert values(heard) == [1]


def test_a_watch_ends_when_the_right_to_read_is_taken_back(
    context: Context, watch_thread: WatchThread, events: list[Event]
) -> None:
    mine = context.bound_to("editor").namespace("agent/editor")
    mine.grant("reader", "read")
    heard: list[News] = []
    context.bound_to("reader").namespace("agent/editor").watch("", heard.append)

    mine.set("n", 1)
    watch_thread.run()
    mine.revoke("reader")
    mine.set("n", 2)
    watch_thread.run()
    mine.grant("reader", "read")
    mine.set("n", 3)
    watch_thread.run()

    assert values(heard) == [1]
    [event] = events
    assert isinstance(event, WatcherFailed)
    assert isinstance(event.error, AccessDenied)


def test_closing_an_agents_context_ends_its_watches_and_no_others(
    context: Context, watch_thread: WatchThread
) -> None:
    mine, theirs, outside = list[News](), list[News](), list[News]()
    editor = context.bound_to("editor")
    editor.watch("", mine.append)
    editor.namespace("agent/editor").watch("", mine.append)
    context.bound_to("reader").watch("", theirs.append)
    context.watch("", outside.append)

    editor.close()
    context.set("n", 1)
    editor.namespace("agent/editor").set("n", 1)
    watch_thread.run()

    assert (mine, values(theirs), values(outside)) == ([], [1], [1])


def test_closing_the_nodes_context_ends_all(context: Context, watch_thread: WatchThread) -> None:
    heard: list[News] = []
    context.bound_to("editor").watch("", heard.append)
    context.watch("", heard.append)

    context.close()
    context.close()
    context.set("n", 1)

    assert not watch_thread.posted


class Flaky(MemoryStore):
    """A store that now and then cannot be reached."""

    down = False

    def changes(self, *arguments: Any) -> Any:
        if self.down:
            raise ConnectionError
        return super().changes(*arguments)


def test_a_store_that_fails_makes_no_gap(
    clock: ManualClock,
    watch_thread: WatchThread,
    telemetry: Telemetry,
    events: list[Event],
) -> None:
    store = Flaky(clock)
    context = Context(store, post=watch_thread.post, telemetry=telemetry)
    heard: list[News] = []
    context.watch("", heard.append)

    store.down = True
    context.set("n", 1)
    watch_thread.run()
    store.down = False
    context.set("n", 2)
    watch_thread.run()

    assert values(heard) == [1, 2]
    assert [type(event) for event in events] == [WatcherFailed]


@pytest.mark.usefixtures("restless_threads")
def test_writers_on_many_threads_leave_no_gap_and_no_duplicate() -> None:
    store = MemoryStore(ManualClock())
    tasks: list[Any] = []
    there_is_work = threading.Semaphore(0)
    done = threading.Event()
    heard: dict[str, list[int]] = {f"n{writer}": [] for writer in range(4)}

    def post(task: Any) -> None:
        tasks.append(task)
        there_is_work.release()

    def run_watch_thread() -> None:
        while there_is_work.acquire(timeout=30) and not done.is_set():
            tasks.pop(0)()

    def note(news: News) -> None:
        assert isinstance(news, Change)
        heard[news.key].append(news.value)
        if sum(len(values) for values in heard.values()) == 4_000:
            done.set()

    context = Context(store, post=post, telemetry=Telemetry())
    context.watch("n", note)
    names = iter(heard)

    def write() -> None:
        name = next(names)
        for number in range(1_000):
            context.set(name, number)

    watching = threading.Thread(target=run_watch_thread, daemon=True)
    watching.start()
    run_in_threads(write, 4)

    assert done.wait(30)
    assert all(values == list(range(1_000)) for values in heard.values())


@given(seed=st.integers(0, 2**32), backlog=st.integers(1, 6), log=st.integers(1, 6))
def test_what_is_told_and_what_is_said_to_be_missed_is_everything(
    seed: int, backlog: int, log: int
) -> None:
    """However turns and writes fall: each change is told once, or lies in one told gap."""
    chance = random.Random(seed)
    tasks: list[Any] = []
    heard: list[News] = []
    store = MemoryStore(ManualClock(), log=log)
    context = Context(store, post=tasks.append, telemetry=Telemetry(), watch_backlog=backlog)
    context.watch("", heard.append)

    written = 0
    for _ in range(60):
        if chance.random() < 0.7:
            size = chance.randint(1, 3)
            context.commit(set={f"k{one}": written + one + 1 for one in range(size)})
            written += size
        elif tasks:
            tasks.pop(0)()
    while tasks:
        tasks.pop(0)()

    accounted: list[int] = []
    for news in heard:
        if isinstance(news, Lagged):
            accounted += range(news.first, news.last + 1)
        else:
            accounted.append(news.value)
    assert accounted == list(range(1, written + 1))


def values(heard: list[News]) -> list[Any]:
    return [news.value for news in heard if isinstance(news, Change)]
