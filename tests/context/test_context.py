"""Shared state as agents and their users see it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from actorbus.context import AsyncContext, Change, Context, Versioned
from actorbus.context.arguments import MAX_TTL
from actorbus.context.stores.memory import MemoryStore
from actorbus.errors import (
    AccessDenied,
    ActorbusError,
    InvalidName,
    InvalidOperation,
    VersionConflict,
    VersionNotKept,
)
from actorbus.telemetry import Telemetry
from actorbus.testing.store_contract import run_in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.context.store import Commit
    from actorbus.testing.clock import ManualClock


def test_what_was_set_can_be_got(context: Context) -> None:
    version = context.set("plan", ["a", "b"])

    assert version == 1
    assert context.get("plan") == ["a", "b"]


def test_an_absent_key_gives_the_default(context: Context) -> None:
    assert context.get("plan") is None
    assert context.get("plan", "none yet") == "none yet"


def test_none_is_a_value_like_any_other(context: Context) -> None:
    context.set("plan", None)

    assert context.get("plan", "default") is None
    assert context.keys() == ["plan"]


def test_values_are_shared_by_reference(context: Context) -> None:
    value = object()

    context.set("k", value)

    assert context.get("k") is value


def test_a_deletion_says_whether_there_was_something(context: Context) -> None:
    context.set("plan", 1)

    assert context.delete("plan") is True
    assert context.delete("plan") is False
    assert context.get("plan") is None


def test_keys_are_sorted_and_keep_to_a_prefix(context: Context) -> None:
    for key in ("todo/2", "done", "todo/1"):
        context.set(key, True)

    assert context.keys() == ["done", "todo/1", "todo/2"]
    assert context.keys("todo/") == ["todo/1", "todo/2"]


def test_versioned_says_who_wrote_and_when(context: Context, clock: ManualClock) -> None:
    clock.advance(7)
    context.bound_to("editor").set("plan", "p")

    assert context.versioned("plan") == Versioned("p", 1, "editor", clock.now())


def test_an_absent_key_is_at_version_0(context: Context) -> None:
    context.set("plan", "p")
    context.delete("plan")

    assert context.versioned("plan") == Versioned(None, 0, None, 0.0)


def test_compare_and_set_writes_where_nobody_came_in_between(context: Context) -> None:
    first = context.compare_and_set("plan", "a", 0)
    second = context.compare_and_set("plan", "b", first)

    assert (first, second) == (1, 2)
    assert context.get("plan") == "b"


def test_compare_and_set_refuses_where_somebody_did(context: Context) -> None:
    seen = context.versioned("plan").version
    context.set("plan", "theirs")

    with pytest.raises(VersionConflict, match="global:plan is at version 1, not 0") as raised:
        context.compare_and_set("plan", "mine", seen)

    assert raised.value.current == 1
    assert context.get("plan") == "theirs"


def test_one_of_many_gets_a_lease_until_it_expires(context: Context, clock: ManualClock) -> None:
    first, second = context.bound_to("first"), context.bound_to("second")

    first.compare_and_set("leader", "first", 0, ttl=10)
    with pytest.raises(VersionConflict):
        second.compare_and_set("leader", "second", 0, ttl=10)
    clock.advance(10)
    second.compare_and_set("leader", "second", 0, ttl=10)

    assert context.get("leader") == "second"


def test_update_applies_a_function_and_returns_what_it_gave(context: Context) -> None:
    first = context.update("todo", lambda todo: [*todo, "write"], default=[])
    second = context.update("todo", lambda todo: [*todo, "check"], default=[])

    assert first == ["write"]
    assert second == context.get("todo") == ["write", "check"]


def test_update_starts_again_when_somebody_came_in_between(context: Context) -> None:
    context.set("n", 1)
    seen = []

    def add_ten(n: int) -> int:
        seen.append(n)
        if len(seen) == 1:
            context.set("n", 5)
        return n + 10

    assert context.update("n", add_ten) == 15
    assert seen == [1, 5]


def test_update_gives_up_rather_than_go_on_for_ever(context: Context) -> None:
    def be_overtaken(n: int) -> int:
        context.increment("n")
        return n

    with pytest.raises(VersionConflict):
        context.update("n", be_overtaken, 0)

    assert context.get("n") == 1_000


def test_update_leaves_the_ttl_as_it_is(context: Context, clock: ManualClock) -> None:
    context.set("n", 1, ttl=10)
    context.update("n", lambda n: n + 1)

    clock.advance(10)

    assert context.get("n") is None


def test_an_update_whose_function_fails_changes_nothing(context: Context) -> None:
    context.set("n", 1)

    with pytest.raises(ZeroDivisionError):
        context.update("n", lambda n: n // 0)

    assert context.versioned("n").version == 1


@pytest.mark.usefixtures("restless_threads")
def test_updates_from_eight_threads_are_none_of_them_lost(context: Context) -> None:
    def work() -> None:
        for _ in range(1_000):
            context.update("n", lambda n: n + 1, 0)

    run_in_threads(work, 8)

    assert context.get("n") == 8_000
    assert context.versioned("n").version == 8_000


def test_increment_returns_the_sum(context: Context) -> None:
    assert context.increment("n") == 1
    assert context.increment("n", 2.5) == 3.5


def test_a_commit_writes_several_keys_together(context: Context) -> None:
    context.set("draft", "d")

    changes = context.commit(
        set={"plan": "p", "status": "ready"},
        delete=["draft", "never-there"],
        increment={"rounds": 2},
        expect={"draft": 1, "plan": 0},
    )

    assert context.snapshot() == {"plan": "p", "status": "ready", "rounds": 2}
    assert {key: (one.version, one.deleted) for key, one in changes.items()} == {
        "plan": (1, False),
        "status": (1, False),
        "rounds": (1, False),
        "draft": (2, True),
    }


def test_a_commit_that_expects_wrongly_writes_nothing(context: Context) -> None:
    context.set("lock", "theirs")

    with pytest.raises(VersionConflict, match="global:lock is at version 1, not 0"):
        context.commit(set={"plan": "p"}, increment={"n": 1}, expect={"lock": 0})

    assert context.snapshot() == {"lock": "theirs"}


def test_a_commit_of_nothing_still_checks_what_it_expects(context: Context) -> None:
    assert context.commit() == {}
    with pytest.raises(VersionConflict):
        context.commit(expect={"plan": 3})


def test_a_commit_gives_all_its_keys_a_ttl_or_some(context: Context, clock: ManualClock) -> None:
    context.commit(set={"a": 1}, increment={"b": 1}, ttl=10)
    context.commit(set={"c": 1, "d": 1}, ttl={"d": 10})

    clock.advance(10)

    assert context.snapshot() == {"c": 1}


def test_history_and_at_say_what_was_when(context: Context, clock: ManualClock) -> None:
    start = clock.now()
    context.set("plan", "a")
    clock.advance(1)
    context.bound_to("editor").set("plan", "b")
    clock.advance(1)
    context.delete("plan")

    assert context.history("plan") == [
        Change("plan", "a", 1, None, start),
        Change("plan", "b", 2, "editor", start + 1),
        Change("plan", None, 3, None, start + 2, deleted=True),
    ]
    assert context.at("plan", 2).value == "b"
    assert context.at("plan", 3).deleted


@pytest.mark.parametrize("version", [0, 2, 6])
def test_a_version_that_is_not_kept_is_an_error_that_says_which_are(
    clock: ManualClock, version: int
) -> None:
    context = context_on(MemoryStore(clock, history=3))
    for number in range(5):
        context.set("plan", number)

    with pytest.raises(
        VersionNotKept, match=f"global:plan keeps versions 3 to 5, not version {version}"
    ) as raised:
        context.at("plan", version)

    assert raised.value.kept == (3, 4, 5)


def test_a_version_of_an_unknown_key_is_an_error_too(context: Context) -> None:
    with pytest.raises(VersionNotKept, match="global:plan keeps no version, not version 1"):
        context.at("plan", 1)


def test_a_snapshot_is_the_users_own(context: Context) -> None:
    context.set("a", 1)

    snapshot = context.snapshot()
    snapshot["a"] = 2
    context.set("b", 1)

    assert snapshot == {"a": 2}
    assert context.get("a") == 1


def test_namespaces_do_not_see_each_other(context: Context) -> None:
    plan = context.namespace("plan")
    plan.set("k", "plan's")
    context.set("k", "global")

    assert context.namespace("plan").get("k") == "plan's"
    assert plan.namespace("global").get("k") == "global"
    assert plan.name == "plan"


def test_contexts_on_one_store_see_each_other(store: MemoryStore) -> None:
    here, there = context_on(store), context_on(store)

    here.set("k", 1)

    assert there.compare_and_set("k", 2, 1) == 2
    assert here.get("k") == 2


def test_private_state_is_its_owners(context: Context) -> None:
    private = context.bound_to("editor").namespace("agent/editor")

    private.set("notes", "n")

    assert private.get("notes") == "n"
    assert private.versioned("notes").author == "editor"


ACCESSES: dict[str, Callable[[Context], object]] = {
    "get": lambda private: private.get("k"),
    "versioned": lambda private: private.versioned("k"),
    "keys": lambda private: private.keys(),
    "snapshot": lambda private: private.snapshot(),
    "set": lambda private: private.set("k", 1),
    "delete": lambda private: private.delete("k"),
    "compare_and_set": lambda private: private.compare_and_set("k", 1, 0),
    "update": lambda private: private.update("k", str),
    "increment": lambda private: private.increment("k"),
    "commit": lambda private: private.commit(set={"k": 1}),
    "history": lambda private: private.history("k"),
    "at": lambda private: private.at("k", 1),
    "watch": lambda private: private.watch("", print),
    "grant": lambda private: private.grant("third", "read"),
    "revoke": lambda private: private.revoke("third"),
}


@pytest.mark.parametrize("name", ACCESSES)
@pytest.mark.parametrize("stranger", ["reader", None])
def test_private_state_refuses_others_in_every_way(
    context: Context, stranger: str | None, name: str
) -> None:
    who = f"agent '{stranger}'" if stranger else "code outside an agent"
    private = context.bound_to(stranger).namespace("agent/editor")

    with pytest.raises(AccessDenied, match=f"{who} may not .* 'agent/editor'"):
        ACCESSES[name](private)


def test_every_public_method_has_a_row_among_the_accesses() -> None:
    views = {"namespace", "bound_to", "aio", "close", "stop", "name", "principal"}
    public = {name for name in dir(Context) if not name.startswith("_")}

    assert public == views | set(ACCESSES)


def test_an_owner_may_let_others_in_and_out_again(context: Context) -> None:
    mine = context.bound_to("editor").namespace("agent/editor")
    theirs = context.bound_to("reader").namespace("agent/editor")
    mine.set("notes", "n")

    mine.grant("reader", "read")
    seen = theirs.get("notes")
    mine.revoke("reader")

    assert seen == "n"
    with pytest.raises(AccessDenied):
        theirs.get("notes")


def test_update_of_somebody_elses_state_takes_both_rights(context: Context) -> None:
    mine = context.bound_to("editor").namespace("agent/editor")
    theirs = context.namespace("agent/editor")

    for rights in ("read", "write"):
        mine.grant(None, rights)
        with pytest.raises(AccessDenied):
            theirs.update("n", str)
    mine.grant(None, "both")

    assert theirs.update("n", lambda n: n + 1, 0) == 1


def context_on(store: MemoryStore) -> Context:
    return Context(store, post=lambda task: task(), telemetry=Telemetry())


BAD_KEYS: list[tuple[Any, str]] = [
    ("", "'' is no name for a context key: it must not be empty"),
    (None, "it must be a str, not NoneType"),
    (b"k", "it must be a str, not bytes"),
    (3, "it must be a str, not int"),
    ([], "it must be a str, not list"),
    ("k" * 257, "at most 256 bytes of UTF-8, this has 257"),
    ("ø" * 129, "at most 256 bytes of UTF-8, this has 258"),
    ("k" * 10_240, "at most 256 bytes of UTF-8, this has 10,240"),
    ("a\nb", "control characters are not allowed"),
    ("a\x00", "control characters are not allowed"),
    ("a\x7f", "control characters are not allowed"),
    ("a\x85", "control characters are not allowed"),
    ("a\u2028", "control characters are not allowed"),
    ("a\ud800", "it must be valid Unicode"),
]
KEYED: dict[str, Callable[[Context, Any], object]] = {
    "get": lambda context, key: context.get(key),
    "versioned": lambda context, key: context.versioned(key),
    "set": lambda context, key: context.set(key, 1),
    "delete": lambda context, key: context.delete(key),
    "compare_and_set": lambda context, key: context.compare_and_set(key, 1, 0),
    "update": lambda context, key: context.update(key, str),
    "increment": lambda context, key: context.increment(key),
    "history": lambda context, key: context.history(key),
    "at": lambda context, key: context.at(key, 1),
    "commit deletes": lambda context, key: context.commit(delete=[key]),
}


@pytest.mark.parametrize("name", KEYED)
def test_a_key_that_cannot_be_is_refused_by_name(context: Context, name: str) -> None:
    for key, why in BAD_KEYS:
        with pytest.raises(InvalidName, match=why):
            KEYED[name](context, key)

    assert context.snapshot() == {}


@pytest.mark.parametrize("key", ["k", " ", "k" * 256, "ø" * 128, "a b/c.d:*>", "日本語", "\u200b"])
def test_a_key_may_be_any_other_text(context: Context, key: str) -> None:
    context.set(key, 1)

    assert context.keys() == [key]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "a namespace: it must not be empty"),
        (None, "a namespace: it must be a str"),
        ("n" * 129, "a namespace: at most 128 bytes"),
        ("a\nb", "a namespace: control characters"),
        (" plan", "a namespace: no white space"),
        ("*", "a namespace: '\\*' and '>' are wildcards"),
        ("agent/", "an agent: it must not be empty"),
        ("agent/ x", "an agent: no white space"),
        ("agent/" + "n" * 129, "an agent: at most 128 bytes"),
    ],
)
def test_a_namespace_that_cannot_be_is_refused(context: Context, name: Any, why: str) -> None:
    with pytest.raises(InvalidName, match=why):
        context.namespace(name)


@pytest.mark.parametrize("name", ["plan", "team/plan", "agent", "agent/" + "n" * 128, "a/b/c"])
def test_a_namespace_may_have_any_other_name(context: Context, name: str) -> None:
    assert context.namespace(name).name == name


BAD_CALLS: dict[str, tuple[Callable[[Any], object], type[ActorbusError], str]] = {
    "ttl 0": (lambda c: c.set("k", 1, ttl=0), InvalidOperation, "a ttl is a number .* not 0"),
    "ttl negative": (lambda c: c.set("k", 1, ttl=-1), InvalidOperation, "not -1"),
    "ttl nan": (lambda c: c.set("k", 1, ttl=float("nan")), InvalidOperation, "not nan"),
    "ttl inf": (lambda c: c.set("k", 1, ttl=float("inf")), InvalidOperation, "not inf"),
    "ttl past all waiting": (lambda c: c.set("k", 1, ttl=MAX_TTL + 1), InvalidOperation, "up to"),
    "ttl str": (lambda c: c.set("k", 1, ttl="10"), InvalidOperation, "not '10'"),
    "ttl bool": (lambda c: c.set("k", 1, ttl=True), InvalidOperation, "not True"),
    "ttl of a lease": (lambda c: c.compare_and_set("k", 1, 0, ttl=0), InvalidOperation, "ttl"),
    "ttl of a commit": (lambda c: c.commit(set={"k": 1}, ttl=0), InvalidOperation, "ttl"),
    "ttl by key": (lambda c: c.commit(set={"k": 1}, ttl={"k": 0}), InvalidOperation, "ttl"),
    "ttl of what is not set": (
        lambda c: c.commit(set={"k": 1}, ttl={"l": 1}),
        InvalidOperation,
        "a ttl for 'l', which is neither set nor incremented",
    ),
    "version negative": (
        lambda c: c.compare_and_set("k", 1, -1),
        InvalidOperation,
        "a version is an int, 0 where the key is absent, else 1 and up, not -1",
    ),
    "version None": (lambda c: c.compare_and_set("k", 1, None), InvalidOperation, "not None"),
    "version bool": (lambda c: c.compare_and_set("k", 1, True), InvalidOperation, "not True"),
    "version float": (lambda c: c.at("k", 1.0), InvalidOperation, "not 1.0"),
    "expect float": (lambda c: c.commit(expect={"k": 1.5}), InvalidOperation, "not 1.5"),
    "by str": (lambda c: c.increment("k", "1"), InvalidOperation, "finite number, not '1'"),
    "by nan": (lambda c: c.increment("k", float("nan")), InvalidOperation, "not nan"),
    "by inf": (lambda c: c.commit(increment={"k": float("inf")}), InvalidOperation, "not inf"),
    "by too much": (
        lambda c: (c.set("k", 10**400), c.increment("k", 0.5)),
        InvalidOperation,
        "global:k is too large to add 0.5",
    ),
    "increment of a list": (
        lambda c: (c.set("k", []), c.increment("k")),
        InvalidOperation,
        "global:k holds a list, and only an int or a float can be incremented",
    ),
    "fn missing": (lambda c: c.update("k", None), InvalidOperation, "fn must be a function"),
    "fn async": (lambda c: c.update("k", _async), InvalidOperation, "fn must return the value"),
    "callback missing": (
        lambda c: c.watch("", None),
        InvalidOperation,
        "callback must be a function, not None",
    ),
    "callback async": (
        lambda c: c.watch("", _async),
        InvalidOperation,
        "callback must be a plain function, not an `async def`",
    ),
    "prefix None": (lambda c: c.keys(None), InvalidName, "a prefix of context keys"),
    "prefix too long": (lambda c: c.watch("k" * 257, print), InvalidName, "at most 256"),
    "delete one str": (
        lambda c: c.commit(delete="key"),
        InvalidOperation,
        "delete= takes a list of keys, not 'key'",
    ),
    "delete None": (lambda c: c.commit(delete=None), InvalidOperation, "delete= takes a list"),
    "set a list": (lambda c: c.commit(set=["k"]), InvalidOperation, "set= takes a mapping"),
    "set a bad key": (lambda c: c.commit(set={"": 1}), InvalidName, "must not be empty"),
    "increment a bad key": (lambda c: c.commit(increment={3: 1}), InvalidName, "must be a str"),
    "expect a bad key": (lambda c: c.commit(expect={"a\n": 1}), InvalidName, "control"),
    "a key twice": (
        lambda c: c.commit(set={"k": 1}, delete=["k"]),
        InvalidOperation,
        "one commit has both set and delete for the key 'k'",
    ),
    "deleted twice": (
        lambda c: c.commit(delete=["k", "k"]),
        InvalidOperation,
        "both delete and delete",
    ),
    "rights misspelt": (
        lambda c: private(c).grant("reader", "raed"),
        InvalidOperation,
        "rights are 'read', 'write', 'both', not 'raed'. Did you mean 'read'?",
    ),
    "rights None": (lambda c: private(c).grant("reader", None), InvalidOperation, "not None"),
    "grant to no agent": (lambda c: private(c).grant("", "read"), InvalidName, "an agent"),
    "grant of what is open": (
        lambda c: c.grant("reader", "read"),
        InvalidOperation,
        "'global' is open to everyone",
    ),
    "principal of no name": (lambda c: c.bound_to(" x"), InvalidName, "an agent"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_call_that_cannot_be_meant_says_what_could(context: Context, name: str) -> None:
    call, error, why = BAD_CALLS[name]

    with pytest.raises(error, match=why):
        call(context)

    assert context.keys() in ([], ["k"])
    assert context.versioned("k").version <= 1


async def _async(value: Any) -> Any:
    return value


def private(context: Context) -> Any:
    return context.bound_to("editor").namespace("agent/editor")


async def test_the_awaitable_twin_does_the_same(context: Context, clock: ManualClock) -> None:
    aio = context.bound_to("editor").aio

    assert await aio.set("plan", "a", ttl=60) == 1
    assert await aio.compare_and_set("plan", "b", 1) == 2
    assert await aio.get("plan") == "b"
    assert await aio.get("absent", 3) == 3
    assert await aio.versioned("plan") == Versioned("b", 2, "editor", clock.now())
    assert await aio.update("todo", lambda todo: [*todo, 1], []) == [1]
    assert await aio.increment("n", 2) == 2
    assert list(await aio.commit(increment={"n": 1}, expect={"n": 1})) == ["n"]
    assert await aio.keys("n") == ["n"]
    assert await aio.snapshot() == {"plan": "b", "todo": [1], "n": 3}
    assert [change.version for change in await aio.history("n")] == [1, 2]
    assert (await aio.at("n", 1)).value == 2
    assert await aio.delete("n") is True
    with pytest.raises(VersionConflict):
        await aio.compare_and_set("plan", "c", 1)


async def test_the_awaitable_twin_watches_and_grants(context: Context, watch_thread: Any) -> None:
    mine = context.bound_to("editor").namespace("agent/editor").aio
    theirs = context.namespace("agent/editor").aio
    heard: list[Any] = []

    await mine.grant(None, "both")
    with await mine.watch("k", heard.append):
        await theirs.set("k", 1)
        watch_thread.run()
    await mine.revoke(None)

    assert [change.value for change in heard] == [1]
    with pytest.raises(AccessDenied):
        await theirs.get("k")


def test_the_awaitable_twin_has_every_method() -> None:
    twin = {name for name in dir(AsyncContext) if not name.startswith("_")}

    assert twin == set(ACCESSES)


class SlowStore(MemoryStore):
    """A store whose calls wait for something, as one on a server does."""

    blocks: ClassVar[bool] = True

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.answered = threading.Event()

    def commit(self, namespace: str, commit: Commit) -> tuple[Change, ...]:
        assert self.answered.wait(30)
        return super().commit(namespace, commit)


async def test_a_store_that_waits_never_holds_up_the_event_loop(clock: ManualClock) -> None:
    store = SlowStore(clock)

    writing = asyncio.create_task(context_on(store).aio.set("k", 1))
    asyncio.get_running_loop().call_soon(store.answered.set)  # a loop held up never gets there

    assert await asyncio.wait_for(writing, 30) == 1
