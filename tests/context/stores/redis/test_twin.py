"""The store in Redis beside the one in memory: the same calls, the same answers.

Each script arrives twice at the fake server, as it may when an answer was lost.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorbus.codec import Codec, TypeBook
from actorbus.context.store import Change, Commit, Delete, Increment, Set
from actorbus.context.stores.memory import MemoryStore
from actorbus.context.stores.redis import RedisStore
from actorbus.errors import ContextError
from actorbus.redis_client import RedisServer
from actorbus.testing.clock import ManualClock

from .conftest import LIMIT

if TYPE_CHECKING:
    from actorbus.context.store import Operation, Rights

KEYS = ("a", "b", "b\u00e9")
NAMESPACES = ("global", "agent/editor")
PRINCIPALS = ("editor", "reader", None)

keys = st.sampled_from(KEYS)
namespaces = st.sampled_from(NAMESPACES)
principals = st.sampled_from(PRINCIPALS)
ttls = st.none() | st.integers(1, 5)
amounts = st.integers(-3, 3) | st.sampled_from([0.5, 2**53 - 1, 2**53, -(2**70), 1e308])
values = (
    st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=2)
    | st.binary(max_size=3)
    | st.sampled_from([True, None, [1], {"a": 1}, 2**53 - 1])
)
operations = st.one_of(
    st.builds(Set, keys, values, ttls, st.booleans()),
    st.builds(Delete, keys),
    st.builds(Increment, keys, amounts, ttls),
)
batches = st.lists(operations, max_size=3, unique_by=lambda operation: operation.key)
plain = st.builds(Set, keys, st.integers(0, 3), ttls, st.booleans()) | st.builds(Delete, keys)


class Twice(fakeredis.FakeRedis):
    """Sends every script again, as if the first answer had been lost."""

    def evalsha(self, *args: Any, **options: Any) -> Any:
        super().evalsha(*args, **options)
        return super().evalsha(*args, **options)


class Twins(RuleBasedStateMachine):
    history = 3
    log = 3

    @initialize()
    def open(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.clock = ManualClock(start=1_000_000.0)
        self.patch.setattr(server_mixin, "time", SimpleNamespace(time=self.clock.now))
        fake = fakeredis.FakeServer()
        server = RedisServer("redis://fake", make=lambda **_: Twice(server=fake, protocol=2))
        self.memory = MemoryStore(self.clock, history=self.history, log=self.log)
        self.redis = RedisStore(
            server, Codec(TypeBook(), limit=LIMIT), history=self.history, log=self.log
        )
        self.redis.close()  # so that no thread sweeps: time is what the test makes it
        self.cursor = dict.fromkeys(NAMESPACES, 0)

    def teardown(self) -> None:
        self.patch.undo()

    def same(self, call: str, *args: Any) -> None:
        """Both answer the same, or raise the same."""
        answers = []
        for store in (self.memory, self.redis):
            try:
                answers.append(shown(getattr(store, call)(*args)))
            except ContextError as error:
                answers.append((type(error), str(error)))
        assert answers[0] == answers[1]

    @rule(one_by_one=st.lists(plain, min_size=1, max_size=5), seconds=st.integers(0, 3))
    def write(self, one_by_one: list[Operation], seconds: int) -> None:
        for operation in one_by_one:
            commit = Commit(None, (operation,))
            self.same("commit", "global", commit)
        self.clock.advance(seconds)

    @rule(batch=batches)
    def write_several(self, batch: list[Operation]) -> None:
        self.same("commit", "global", Commit("reader", tuple(batch)))

    @rule(batch=batches, guess=st.integers(0, 4), guessed=keys)
    def write_as_expected(self, batch: list[Operation], guess: int, guessed: str) -> None:
        commit = Commit(None, tuple(batch), ((guessed, guess),))
        self.same("commit", "global", commit)

    @rule(author=principals, operation=plain)
    def write_privately(self, author: str | None, operation: Operation) -> None:
        self.same("commit", "agent/editor", Commit(author, (operation,)))

    @rule(seconds=st.integers(1, 6))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(grantee=principals, rights=st.sampled_from([None, "read", "write", "both"]))
    def grant(self, grantee: str | None, rights: Rights | None) -> None:
        self.same("grant", "agent/editor", grantee, rights, "editor")

    @rule(
        namespace=namespaces,
        prefix=st.sampled_from(["", "b", "b/", "x"]),
        limit=st.integers(1, 8),
        principal=principals,
    )
    def catch_up(self, namespace: str, prefix: str, limit: int, principal: str | None) -> None:
        after = self.cursor[namespace]
        self.same("changes", namespace, prefix, after, limit, principal)
        news = self.memory.changes(namespace, "", after, 1, "editor")
        self.cursor[namespace] = news.revision

    @rule(namespace=namespaces, prefix=st.sampled_from(["", "b", "x"]), principal=principals)
    def scan(self, namespace: str, prefix: str, principal: str | None) -> None:
        self.same("scan", namespace, prefix, principal)

    @invariant()
    def present_and_past_are_the_same(self) -> None:
        for key in KEYS:
            self.same("read", "global", key, None)
            self.same("history", "global", key, None)


def shown(answer: Any) -> Any:
    """With the classes of values, for True equals 1."""
    if isinstance(answer, tuple):
        return tuple(map(shown, answer))
    return (answer, type(answer.value)) if isinstance(answer, Change) else answer


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
