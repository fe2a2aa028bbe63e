"""What every store of shared state promises, as tests that a new one inherits."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.context.store import Change, Commit, Delete, Increment, Set
from actorbus.errors import AccessDenied, InvalidOperation, VersionConflict

if TYPE_CHECKING:
    from actorbus.context.store import Operation, Store

_DEADLINE = 60
"""Seconds that a thread of a test may take."""


class StoreContract:
    """A subclass says how to open a store, and how time passes for it.

    ::

        class TestMyStore(StoreContract):
            def open(self, *, history: int = 100, log: int = 10_000) -> Store:
                return MyStore(history=history, log=log)
    """

    def open(self, *, history: int = 100, log: int = 10_000) -> Store:
        """An empty store that keeps `history` versions a key and `log` commits a namespace."""
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        """Let so much time pass for the store that was opened."""
        raise NotImplementedError

    def test_a_key_counts_its_versions_from_1_by_1(self) -> None:
        store = self.open()

        versions = [put(store, "k", value).version for value in "abc"]

        assert versions == [1, 2, 3]
        assert value_of(store, "k") == "c"

    def test_versions_of_one_key_are_no_business_of_another_nor_of_another_namespace(self) -> None:
        store = self.open()
        put(store, "k", "a")

        other_key = put(store, "other", "b")
        other_namespace = put(store, "k", "c", namespace="plan")

        assert (other_key.version, other_namespace.version) == (1, 1)
        assert value_of(store, "k") == "a"

    def test_a_deletion_is_a_version_and_the_count_goes_on_after_it(self) -> None:
        store = self.open()
        put(store, "k", "a")

        [deletion] = write(store, Delete("k"))
        again = put(store, "k", "b")

        assert (deletion.version, deletion.deleted, deletion.value) == (2, True, None)
        assert again.version == 3

    def test_the_count_goes_on_even_when_the_deletion_is_forgotten(self) -> None:
        store = self.open(history=2, log=3)
        put(store, "k", "a")
        write(store, Delete("k"))
        for number in range(10):
            put(store, f"other {number}", number)

        again = put(store, "k", "b")

        assert again.version == 3

    def test_a_deleted_key_is_absent(self) -> None:
        store = self.open()
        put(store, "k", "a")

        write(store, Delete("k"))

        assert store.read("global", "k", None) is None
        assert store.scan("global", "", None) == ()

    def test_deleting_what_is_absent_changes_nothing(self) -> None:
        store = self.open()

        assert write(store, Delete("k")) == ()
        assert put(store, "k", "a").version == 1

    def test_a_change_says_who_made_it(self) -> None:
        store = self.open()

        store.commit("global", Commit("editor", (Set("k", "a"),)))

        present = store.read("global", "k", None)
        assert present is not None
        assert present.author == "editor"

    def test_time_of_changes_never_runs_backwards(self) -> None:
        store = self.open()

        first = put(store, "k", "a")
        self.advance(1)
        second = put(store, "k", "b")

        assert first.at < second.at

    def test_an_expectation_that_holds_lets_the_commit_through(self) -> None:
        store = self.open()
        put(store, "k", "a")

        write(store, Set("k", "b"), expected=(("k", 1), ("absent", 0)))

        assert value_of(store, "k") == "b"

    @pytest.mark.parametrize("expected", [0, 1, 3])
    def test_an_expectation_that_fails_says_the_version_that_is(self, expected: int) -> None:
        store = self.open()
        put(store, "k", "a")
        put(store, "k", "b")

        with pytest.raises(VersionConflict) as raised:
            write(store, Set("k", "c"), expected=(("k", expected),))

        error = raised.value
        assert (error.namespace, error.key) == ("global", "k")
        assert (error.expected, error.current) == (expected, 2)

    def test_a_deleted_key_is_at_version_0_for_an_expectation(self) -> None:
        store = self.open()
        put(store, "k", "a")
        write(store, Delete("k"))

        with pytest.raises(VersionConflict) as raised:
            write(store, Set("k", "b"), expected=(("k", 2),))
        [change] = write(store, Set("k", "b"), expected=(("k", 0),))

        assert raised.value.current == 0
        assert change.version == 3

    def test_a_commit_does_all_of_it(self) -> None:
        store = self.open()
        put(store, "old", "x")

        changes = write(store, Set("new", "y"), Delete("old"), Increment("n", 2))

        assert [change.key for change in changes] == ["new", "old", "n"]
        assert contents(store) == {"new": "y", "n": 2}

    @pytest.mark.parametrize(
        ("operation", "expected", "error"),
        [
            (Set("d", 1), (("a", 1), ("b", 7)), VersionConflict),
            (Increment("b", 1), (), InvalidOperation),
        ],
        ids=["expectation", "increment"],
    )
    def test_a_commit_that_is_refused_leaves_no_trace(
        self, operation: Operation, expected: tuple[tuple[str, int], ...], error: type[Exception]
    ) -> None:
        store = self.open()
        write(store, Set("a", 1), Set("b", "text"), Set("c", 3))
        before = everything(store)

        with pytest.raises(error):
            write(store, Set("a", 9, ttl=1), Delete("c"), operation, expected=expected)
        self.advance(2)

        assert everything(store) == before

    def test_an_increment_starts_from_0_and_adds(self) -> None:
        store = self.open()

        write(store, Increment("n", 1))
        write(store, Increment("n", -3))
        [change] = write(store, Increment("n", 0.5))

        assert change.value == -1.5
        assert change.version == 3

    @pytest.mark.parametrize("value", ["1", None, [1], True])
    def test_what_is_no_number_cannot_be_incremented(self, value: Any) -> None:
        store = self.open()
        put(store, "k", value)

        with pytest.raises(InvalidOperation, match=r"global:k holds a \w+, and only"):
            write(store, Increment("k", 1))

    def test_a_scan_is_sorted_and_keeps_to_its_prefix(self) -> None:
        store = self.open()
        write(store, Set("b/2", 2), Set("a", 0), Set("b/1", 1), Set("c", 3))

        found = store.scan("global", "b/", None)

        assert [(change.key, change.value) for change in found] == [("b/1", 1), ("b/2", 2)]

    def test_history_has_every_version_oldest_first(self) -> None:
        store = self.open()
        put(store, "k", "a")
        write(store, Delete("k"))
        put(store, "k", "b")

        history = store.history("global", "k", None)

        assert [(one.version, one.value, one.deleted) for one in history] == [
            (1, "a", False),
            (2, None, True),
            (3, "b", False),
        ]

    def test_history_keeps_the_latest_versions(self) -> None:
        store = self.open(history=3)
        for number in range(1, 11):
            put(store, "k", number)

        history = store.history("global", "k", None)

        assert [change.version for change in history] == [8, 9, 10]

    def test_history_of_an_unknown_key_is_empty(self) -> None:
        assert self.open().history("global", "k", None) == ()

    def test_a_key_lives_as_long_as_its_ttl(self) -> None:
        store = self.open()
        put(store, "k", "a", ttl=10)

        self.advance(9)
        before = value_of(store, "k")
        self.advance(1)

        assert before == "a"
        assert store.read("global", "k", None) is None

    def test_expiry_is_a_deletion_by_nobody_and_a_version(self) -> None:
        store = self.open()
        store.commit("global", Commit("editor", (Set("k", "a", ttl=10),)))

        self.advance(11)

        expiry = store.history("global", "k", None)[-1]
        assert (expiry.version, expiry.deleted, expiry.author) == (2, True, None)
        assert put(store, "k", "b").version == 3

    def test_setting_without_a_ttl_makes_a_key_stay(self) -> None:
        store = self.open()
        put(store, "k", "a", ttl=10)
        put(store, "k", "b")

        self.advance(11)

        assert value_of(store, "k") == "b"

    @pytest.mark.parametrize(
        "operation", [Increment("k", 1), Set("k", 5, keep_ttl=True)], ids=["increment", "set"]
    )
    def test_a_ttl_goes_on_through_an_increment_and_where_it_is_kept(
        self, operation: Operation
    ) -> None:
        store = self.open()
        put(store, "k", 1, ttl=10)
        self.advance(5)

        write(store, operation)
        self.advance(4)
        before = store.read("global", "k", None)
        self.advance(2)

        assert before is not None
        assert store.read("global", "k", None) is None

    def test_a_new_ttl_takes_the_place_of_the_old(self) -> None:
        store = self.open()
        put(store, "longer", "a", ttl=10)
        put(store, "shorter", "a", ttl=10)
        put(store, "longer", "b", ttl=20)
        put(store, "shorter", "b", ttl=5)

        self.advance(11)

        assert contents(store) == {"longer": "b"}

    def test_a_ttl_ends_with_its_key(self) -> None:
        store = self.open()
        put(store, "k", "a", ttl=10)
        write(store, Delete("k"))
        put(store, "k", "b")

        self.advance(11)

        assert value_of(store, "k") == "b"

    def test_changes_after_a_revision_come_in_order(self) -> None:
        store = self.open()
        put(store, "k", "a")
        start = revision_of(store)
        put(store, "k", "b")
        write(store, Set("l", 1), Delete("k"))

        news = store.changes("global", "", start, 100, None)

        assert news.complete
        assert [(one.key, one.version) for one in news.changes] == [("k", 2), ("l", 1), ("k", 3)]
        assert news.revision == start + 3
        assert store.changes("global", "", news.revision, 100, None).changes == ()

    def test_changes_keep_to_their_prefix(self) -> None:
        store = self.open()
        write(store, Set("a/1", 1), Set("b/1", 1))
        write(store, Set("b/2", 2), Set("a/2", 2))

        news = store.changes("global", "a/", 0, 100, None)

        assert [change.key for change in news.changes] == ["a/1", "a/2"]
        assert news.revision == 4

    def test_a_reader_that_cannot_have_all_changes_gets_none_and_is_told(self) -> None:
        store = self.open()
        for number in range(5):
            put(store, "k", number)

        enough = store.changes("global", "", 0, 5, None)
        too_few = store.changes("global", "", 0, 4, None)

        assert (len(enough.changes), enough.complete) == (5, True)
        assert (len(too_few.changes), too_few.complete) == (0, False)
        assert too_few.revision == 5

    def test_changes_that_do_not_match_do_not_count_against_the_limit(self) -> None:
        store = self.open()
        for number in range(10):
            put(store, f"b/{number}", number)
        put(store, "a/1", 1)

        news = store.changes("global", "a/", 0, 1, None)

        assert [change.key for change in news.changes] == ["a/1"]

    def test_a_reader_that_the_log_has_left_behind_is_told(self) -> None:
        store = self.open(log=3)
        for number in range(5):
            put(store, "k", number)

        behind = store.changes("global", "", 1, 100, None)
        just_in_time = store.changes("global", "", 2, 100, None)

        assert (behind.changes, behind.complete) == ((), False)
        assert [change.version for change in just_in_time.changes] == [3, 4, 5]

    def test_a_bell_rings_after_changes_until_it_is_stopped(self) -> None:
        store = self.open()
        put(store, "k", "a")
        rings: list[int] = []
        listening = store.listen("global", lambda: rings.append(revision_of(store)), None)

        put(store, "k", "b")
        put(store, "k", "c", namespace="plan")
        heard = list(rings)
        listening.stop()
        put(store, "k", "d")

        assert listening.revision == 1
        assert heard == [2]
        assert rings == heard

    def test_a_bell_rings_when_a_key_expires(self) -> None:
        store = self.open()
        put(store, "k", "a", ttl=10)
        rings: list[int] = []
        listening = store.listen("global", lambda: rings.append(1), None)

        self.advance(11)

        news = store.changes("global", "", listening.revision, 100, None)
        assert rings
        assert [(one.key, one.deleted) for one in news.changes] == [("k", True)]

    def test_a_private_namespace_is_its_owners(self) -> None:
        store = self.open()

        store.commit("agent/editor", Commit("editor", (Set("k", "a"),)))

        present = store.read("agent/editor", "k", "editor")
        assert present is not None
        assert present.value == "a"

    @pytest.mark.parametrize("stranger", ["reader", None])
    def test_a_private_namespace_refuses_others(self, stranger: str | None) -> None:
        store = self.open()
        store.commit("agent/editor", Commit("editor", (Set("k", "a"),)))

        for name, right in (("agent/editor", "read"), ("agent/nobody-yet", "read")):
            for attempt in reads(store, name, stranger):
                with pytest.raises(AccessDenied) as raised:
                    attempt()
                assert (raised.value.namespace, raised.value.right) == (name, right)
        with pytest.raises(AccessDenied) as raised:
            store.commit("agent/editor", Commit(stranger, (Set("k", "b"),)))

        assert (raised.value.principal, raised.value.right) == (stranger, "write")
        assert value_of(store, "k", namespace="agent/editor", principal="editor") == "a"

    @pytest.mark.parametrize("grantee", ["reader", None])
    def test_who_is_granted_a_right_has_that_and_no_other(self, grantee: str | None) -> None:
        store = self.open()
        put(store, "k", "a", namespace="agent/editor", author="editor")

        store.grant("agent/editor", grantee, "read", "editor")
        seen = value_of(store, "k", namespace="agent/editor", principal=grantee)
        with pytest.raises(AccessDenied):
            put(store, "k", "b", namespace="agent/editor", author=grantee)
        store.grant("agent/editor", grantee, "write", "editor")
        put(store, "k", "c", namespace="agent/editor", author=grantee)
        with pytest.raises(AccessDenied):
            store.read("agent/editor", "k", grantee)
        store.grant("agent/editor", grantee, "both", "editor")
        put(store, "k", "d", namespace="agent/editor", author=grantee)

        assert seen == "a"
        assert value_of(store, "k", namespace="agent/editor", principal=grantee) == "d"
        with pytest.raises(AccessDenied):
            store.read("agent/editor", "k", "third")

    def test_rights_can_be_taken_back(self) -> None:
        store = self.open()
        store.grant("agent/editor", "reader", "both", "editor")

        store.grant("agent/editor", "reader", None, "editor")

        with pytest.raises(AccessDenied):
            store.read("agent/editor", "k", "reader")

    @pytest.mark.parametrize("principal", ["reader", None])
    def test_only_the_owner_grants(self, principal: str | None) -> None:
        store = self.open()
        store.grant("agent/editor", principal, "both", "editor")

        with pytest.raises(AccessDenied):
            store.grant("agent/editor", "third", "read", principal)

    @pytest.mark.parametrize("principal", ["reader", None])
    def test_nobody_grants_what_is_open_to_everyone(self, principal: str | None) -> None:
        store = self.open()

        with pytest.raises(AccessDenied):
            store.grant("global", "third", "read", principal)

    def test_increments_from_many_threads_all_count(self) -> None:
        store = self.open()

        def work() -> None:
            for _ in range(500):
                write(store, Increment("n", 1), Increment("m", -1))

        run_in_threads(work, 8)

        assert contents(store) == {"n": 4_000, "m": -4_000}
        assert revision_of(store) == 8_000

    def test_a_scan_never_sees_half_a_commit(self) -> None:
        store = self.open()
        torn: list[tuple[Change, ...]] = []
        write(store, Set("left", 0), Set("right", 0))

        def write_pairs() -> None:
            for number in range(1_000):
                write(store, Set("left", number), Set("right", number))

        def read_pairs() -> None:
            for _ in range(1_000):
                left, right = store.scan("global", "", None)
                if left.value != right.value:
                    torn.append((left, right))

        run_in_threads(write_pairs, 1, read_pairs, 2)

        assert torn == []


def write(
    store: Store, *operations: Operation, expected: tuple[tuple[str, int], ...] = ()
) -> tuple[Change, ...]:
    return store.commit("global", Commit(None, operations, expected))


def put(
    store: Store,
    key: str,
    value: Any,
    *,
    ttl: float | None = None,
    namespace: str = "global",
    author: str | None = None,
) -> Change:
    [change] = store.commit(namespace, Commit(author, (Set(key, value, ttl),)))
    return change


def value_of(
    store: Store, key: str, *, namespace: str = "global", principal: str | None = None
) -> Any:
    present = store.read(namespace, key, principal)
    assert present is not None
    return present.value


def contents(store: Store) -> dict[str, Any]:
    return {change.key: change.value for change in store.scan("global", "", None)}


def revision_of(store: Store) -> int:
    return store.changes("global", "", 0, 1, None).revision


def everything(store: Store) -> tuple[Any, ...]:
    """All that can be read of the global namespace."""
    present = store.scan("global", "", None)
    histories = [store.history("global", change.key, None) for change in present]
    return present, histories, store.changes("global", "", 0, 1_000, None)


def reads(store: Store, namespace: str, principal: str | None) -> list[Any]:
    return [
        lambda: store.read(namespace, "k", principal),
        lambda: store.scan(namespace, "", principal),
        lambda: store.history(namespace, "k", principal),
        lambda: store.changes(namespace, "", 0, 10, principal),
        lambda: store.listen(namespace, lambda: None, principal),
    ]


def run_in_threads(*work: Any) -> None:
    """Run each function on as many threads as the number after it says, and wait for all."""
    threads = [
        threading.Thread(target=function, daemon=True)
        for function, count in zip(work[::2], work[1::2], strict=True)
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE)
        assert not thread.is_alive()
