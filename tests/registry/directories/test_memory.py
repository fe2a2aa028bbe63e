from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from actorbus.errors import NameTaken
from actorbus.registry.directories.memory import MemoryDirectory
from actorbus.registry.directory import ChangeKind, Directory, DirectoryChange
from actorbus.testing.clock import ManualClock
from actorbus.testing.directory_contract import DirectoryContract, ListedAgent, entry

if TYPE_CHECKING:
    from collections.abc import Callable


class TestMemoryDirectory(DirectoryContract):
    def open(self) -> Directory:
        self.clock = ManualClock()
        return MemoryDirectory(self.clock, dead_after=self.dead_after)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


names = st.sampled_from(["ann", "bob", "cy", "dee"])
capabilities = st.lists(st.sampled_from(["count", "sort", "read"]), max_size=3).map(tuple)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("register"), names, capabilities),
        st.tuples(st.just("unregister"), names, st.just(())),
        st.tuples(st.just("look"), names, st.just(())),
    ),
    max_size=40,
)


@given(steps)
def test_the_capability_index_agrees_with_a_plain_model(
    script: list[tuple[str, str, tuple[str, ...]]],
) -> None:
    directory = MemoryDirectory(ManualClock())
    directory.join("a")
    model: dict[str, tuple[str, ...]] = {}

    for verb, name, offered in script:
        if verb == "register" and name not in model:
            directory.register(entry(ListedAgent(name, offered), "a"))
            model[name] = offered
        elif verb == "unregister":
            directory.unregister(name, "a")
            model.pop(name, None)
        else:
            directory.members("count")

        for capability in ("count", "sort", "read"):
            found = [one.member.name for one in directory.members(capability)]
            assert found == [one for one, offers in model.items() if capability in offers]
        assert [one.member.name for one in directory.members()] == list(model)


def test_capabilities_that_nobody_offers_any_more_take_no_room() -> None:
    directory = MemoryDirectory(ManualClock())
    directory.join("a")

    for number in range(100):
        directory.register(entry(ListedAgent("counter", (f"count-{number}",)), "a"))
        directory.unregister("counter", "a")

    assert directory._offerings == {}


def test_a_listener_may_change_the_directory_and_still_hears_all_in_order() -> None:
    directory = MemoryDirectory(ManualClock())
    directory.join("a")
    heard: list[tuple[ChangeKind, str]] = []

    def replace(change: DirectoryChange) -> None:
        heard.append((change.kind, change.entry.member.name))
        if change.kind == ChangeKind.JOINED and change.entry.member.name == "first":
            directory.register(entry(ListedAgent("second"), "a"))
            directory.unregister("first", "a")

    directory.listen(replace)
    directory.register(entry(ListedAgent("first"), "a"))

    assert heard == [
        (ChangeKind.JOINED, "first"),
        (ChangeKind.JOINED, "second"),
        (ChangeKind.LEFT, "first"),
    ]


class LockThatLetsOneIn:
    """A lock; `on_release` runs on another thread just before it is first let go."""

    def __init__(self, on_release: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._on_release: Callable[[], None] | None = on_release

    def acquire(self, *, blocking: bool) -> bool:
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        meanwhile, self._on_release = self._on_release, None
        if meanwhile is not None:
            run_together([meanwhile])
        self._lock.release()


def test_a_change_that_comes_as_the_delivering_thread_lets_go_is_not_left_behind() -> None:
    directory = MemoryDirectory(ManualClock())
    directory.join("a")
    heard: list[str] = []
    directory.listen(lambda change: heard.append(change.entry.member.name))
    late = entry(ListedAgent("late"), "a")
    directory._delivering = LockThatLetsOneIn(lambda: directory.register(late))  # type: ignore[assignment]

    directory.register(entry(ListedAgent("early"), "a"))

    assert heard == ["early", "late"]


def test_eight_threads_that_register_and_leave_keep_index_and_listener_consistent() -> None:
    directory = MemoryDirectory(ManualClock())
    directory.join("a")
    heard: list[DirectoryChange] = []
    directory.listen(heard.append)

    def churn(number: int) -> None:
        offered = ("count", f"kind-{number % 2}")
        for turn in range(300):
            directory.register(entry(ListedAgent(f"{number}-{turn}", offered), "a"))
            for one in directory.members("count"):
                assert "count" in one.capabilities
            if turn % 3:
                directory.unregister(f"{number}-{turn}", "a")

    run_together([partial(churn, number) for number in range(8)])

    kept = {f"{number}-{turn}" for number in range(8) for turn in range(0, 300, 3)}
    assert {one.member.name for one in directory.members()} == kept
    assert {one.member.name for one in directory.members("count")} == kept
    assert len(directory.members("kind-0")) == len(directory.members("kind-1")) == len(kept) / 2
    assert replay(heard) == kept


def test_of_eight_threads_that_want_one_name_one_gets_it() -> None:
    directory = MemoryDirectory(ManualClock())
    directory.join("a")
    winners: list[ListedAgent] = []

    def claim() -> None:
        member = ListedAgent("counter", ("count",))
        try:
            directory.register(entry(member, "a"))
        except NameTaken:
            return
        winners.append(member)

    run_together([claim] * 8)

    assert len(winners) == 1
    assert [one.member for one in directory.members("count")] == winners


def replay(changes: list[DirectoryChange]) -> set[str]:
    """Who is there after `changes`; nobody joins twice or leaves before joining."""
    present: set[str] = set()
    for change in changes:
        name = change.entry.member.name
        if change.kind == ChangeKind.JOINED:
            assert name not in present
            present.add(name)
        else:
            present.remove(name)
    return present


def run_together(tasks: list[Callable[[], None]]) -> None:
    """Run each task on a thread of its own, and raise what one of them raised."""
    start = threading.Barrier(len(tasks))
    errors: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        start.wait(timeout=10)
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)
