"""The store in memory: the contract, and what holds for it alone."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorbus.clock import SystemClock
from actorbus.context.store import Change, Commit, Delete, Increment, Set
from actorbus.context.stores.memory import MemoryStore
from actorbus.errors import InvalidOperation, VersionConflict
from actorbus.testing.clock import ManualClock
from actorbus.testing.store_contract import StoreContract, put, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.clock import Timer
    from actorbus.context.store import Operation, Store


@pytest.mark.usefixtures("restless_threads")
class TestMemoryStore(StoreContract):
    def open(self, *, history: int = 100, log: int = 10_000) -> Store:
        self.clock = ManualClock()
        return MemoryStore(self.clock, history=history, log=log)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class ClockWithoutTimers(ManualClock):
    """Time passes, and nobody is called: what a reader sees while a timer is late."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        return super().call_at(when, lambda: None)


class Value:
    """Something that a weak reference can point at."""


def test_an_expired_key_is_absent_even_while_the_timer_is_late() -> None:
    clock = ClockWithoutTimers()
    store = MemoryStore(clock)
    put(store, "k", "a", ttl=10)
    rings: list[int] = []
    store.listen("global", lambda: rings.append(1), None)

    clock.advance(11)
    present = store.read("global", "k", None)

    assert present is None
    assert rings == [1]


def test_every_expiry_rings_at_its_own_time_though_nobody_reads() -> None:
    clock = ManualClock(start=0.0)
    store = MemoryStore(clock)
    rings: list[float] = []
    write(store, Set("later", 1, ttl=20), Set("first", 1, ttl=5), Set("second", 1, ttl=10))
    store.listen("global", lambda: rings.append(clock.now()), None)

    clock.advance(60)

    assert rings == [5, 10, 20]


def test_an_expiry_is_stamped_with_the_time_it_was_due() -> None:
    clock = ClockWithoutTimers()
    store = MemoryStore(clock)
    due = put(store, "k", "a", ttl=10).at + 10

    clock.advance(60)

    assert store.history("global", "k", None)[-1].at == due


def test_a_lease_that_is_renewed_for_ever_leaves_nothing_behind() -> None:
    clock = ManualClock()
    store = MemoryStore(clock, history=1, log=1)

    for _ in range(1_000):
        put(store, "lease", "mine", ttl=3_600)
        clock.advance(1)
    expiries_kept = len(store._spaces["global"]._expiries)
    clock.advance(3_600)

    assert expiries_kept < 100
    assert store.read("global", "lease", None) is None
    assert clock.next_due() is None


def test_a_key_that_is_long_gone_keeps_no_value() -> None:
    store = MemoryStore(ManualClock(), history=10, log=5)
    value = Value()
    gone = weakref.ref(value)
    put(store, "k", value)
    del value
    write(store, Delete("k"))

    for number in range(6):
        put(store, "other", number)
    gc.collect()

    assert gone() is None
    assert store.history("global", "k", None) == ()


def test_reading_a_namespace_does_not_make_it() -> None:
    store = MemoryStore(ManualClock())

    for number in range(10):
        store.read(f"n{number}", "k", None)

    assert len(store._spaces) == 0


def test_a_bell_may_use_the_store() -> None:
    store = MemoryStore(ManualClock())
    store.listen("global", lambda: write(store, Delete("k")), None)

    put(store, "k", "a")

    assert store.read("global", "k", None) is None


def test_the_system_clock_makes_keys_expire() -> None:
    clock = SystemClock()
    store = MemoryStore(clock)
    rang = threading.Event()
    store.listen("global", rang.set, None)

    write(store, Set("k", "a", ttl=0.01))
    rang.clear()
    in_time = rang.wait(30)
    clock.close()

    assert in_time
    assert store.read("global", "k", None) is None


KEYS = ("a", "b", "b/c")
keys = st.sampled_from(KEYS)
ttls = st.none() | st.integers(1, 5)
operations = st.one_of(
    st.builds(Set, keys, st.integers() | st.text(max_size=2), ttls, st.booleans()),
    st.builds(Delete, keys),
    st.builds(Increment, keys, st.integers(-3, 3), ttls),
)
commits = st.lists(operations, max_size=3, unique_by=lambda operation: operation.key)


class Model(RuleBasedStateMachine):
    """The store beside a plain list of everything that ever happened."""

    history = 4
    log = 6

    @initialize()
    def open(self) -> None:
        self.clock = ManualClock(start=0.0)
        self.store = MemoryStore(self.clock, history=self.history, log=self.log)
        self.cursor = 0
        self.past: list[Change] = []
        self.commits: list[int] = []
        self.due: dict[str, float] = {}
        self.gone: dict[str, int] = {}

    def present(self, key: str) -> Change | None:
        versions = self.past_of(key)
        return versions[-1] if versions and not versions[-1].deleted else None

    def version(self, key: str) -> int:
        return len(self.past_of(key))

    def happen(self, key: str, value: Any, at: float, *, deleted: bool = False) -> Change:
        change = Change(key, value, self.version(key) + 1, None, at, deleted)
        self.past.append(change)
        return change

    def expected_outcome(self, operation: Operation) -> Change | None:
        now, key, present = self.clock.now(), operation.key, self.present(operation.key)
        if isinstance(operation, Delete):
            self.due.pop(key, None)
            return None if present is None else self.happen(key, None, now, deleted=True)
        if operation.ttl is not None:
            self.due[key] = now + operation.ttl
        elif isinstance(operation, Set) and not operation.keep_ttl:
            self.due.pop(key, None)
        if isinstance(operation, Set):
            return self.happen(key, operation.value, now)
        return self.happen(key, (present.value if present else 0) + operation.by, now)

    @rule(batch=commits, guess=st.none() | st.integers(0, 4), guessed=keys)
    def commit(self, batch: list[Operation], guess: int | None, guessed: str) -> None:
        present = self.present(guessed)
        current = present.version if present else 0
        expected = () if guess is None else ((guessed, guess),)
        commit = Commit(None, tuple(batch), expected)
        if guess not in (None, current):
            self.refused(commit, VersionConflict)
        elif any(isinstance(one, Increment) and self.is_text(one.key) for one in batch):
            self.refused(commit, InvalidOperation)
        else:
            outcomes = [self.expected_outcome(operation) for operation in batch]
            changes = tuple(change for change in outcomes if change is not None)
            assert self.store.commit("global", commit) == changes
            if changes:
                self.commits.append(len(self.past))

    def is_text(self, key: str) -> bool:
        present = self.present(key)
        return present is not None and isinstance(present.value, str)

    def refused(self, commit: Commit, error: type[Exception]) -> None:
        try:
            self.store.commit("global", commit)
        except error:
            return
        raise AssertionError(f"{commit} was not refused")

    @rule(seconds=st.integers(1, 6))
    def advance(self, seconds: int) -> None:
        until = self.clock.now() + seconds
        for key, due in sorted(self.due.items(), key=lambda item: (item[1], item[0])):
            if due <= until:
                del self.due[key]
                self.happen(key, None, due, deleted=True)
                self.commits.append(len(self.past))
        self.clock.advance(seconds)

    @rule(prefix=st.sampled_from(["", "b", "b/", "x"]), limit=st.integers(1, 8))
    def catch_up(self, prefix: str, limit: int) -> None:
        news = self.store.changes("global", prefix, self.cursor, limit, None)

        missed = [one for one in self.past[self.cursor :] if one.key.startswith(prefix)]
        assert news.revision == len(self.past)
        assert news.complete == (self.cursor >= self.forgotten() and len(missed) <= limit)
        assert news.changes == (tuple(missed) if news.complete else ())
        self.cursor = news.revision

    @invariant()
    def the_present_is_the_same(self) -> None:
        expected = [one for key in KEYS if (one := self.present(key)) is not None]

        assert list(self.store.scan("global", "", None)) == expected
        for key in KEYS:
            assert self.store.read("global", key, None) == self.present(key)

    @invariant()
    def the_past_is_the_same_where_it_is_kept(self) -> None:
        for key in KEYS:
            versions = self.past_of(key)
            if (
                versions
                and versions[-1].deleted
                and self.revision(versions[-1]) <= self.forgotten()
            ):
                self.gone[key] = len(versions)
            kept = versions[self.gone.get(key, 0) :][-self.history :]

            assert list(self.store.history("global", key, None)) == kept

    def past_of(self, key: str) -> list[Change]:
        return [change for change in self.past if change.key == key]

    def revision(self, change: Change) -> int:
        return next(number for number, one in enumerate(self.past, 1) if one is change)

    def forgotten(self) -> int:
        """The latest revision that the log no longer has."""
        return self.commits[-self.log - 1] if len(self.commits) > self.log else 0


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
