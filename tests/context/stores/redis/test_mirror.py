"""A reader that keeps a copy by what it is told, while the log is short and it comes and goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from actorbus.codec import Codec, TypeBook
from actorbus.context.store import Commit, Delete, Set
from actorbus.context.stores.redis import RedisStore
from actorbus.errors import TransportUnavailable
from actorbus.testing.clock import ManualClock

from .conftest import LIMIT, fake_server

keys = st.sampled_from(["a", "b", "c"])
operations = st.one_of(
    st.builds(Set, keys, st.integers(0, 9), st.none() | st.integers(1, 3)),
    st.builds(Delete, keys),
    st.builds(Delete, keys),
)
batches = st.lists(operations, min_size=1, max_size=3, unique_by=lambda one: one.key)


class Mirror(RuleBasedStateMachine):
    """Watch, compaction, delete, expiry and reconnect, in any order."""

    @initialize()
    def open(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.clock = ManualClock(start=1_000_000.0)
        self.patch.setattr(server_mixin, "time", SimpleNamespace(time=self.clock.now))
        self.fake = fakeredis.FakeServer()
        self.writer = self.store()
        self.reader = self.store()
        self.cursor = 0
        self.copy: dict[str, tuple[int, Any]] = {}
        self.versions: dict[str, int] = {}

    def teardown(self) -> None:
        self.patch.undo()

    def store(self) -> RedisStore:
        store = RedisStore(fake_server(self.fake), Codec(TypeBook(), limit=LIMIT), log=4, history=2)
        store.close()  # no thread: the test says when something is read
        return store

    @rule(batch=batches)
    def write(self, batch: list[Set | Delete]) -> None:
        self.writer.commit("global", Commit(None, tuple(batch)))

    @rule(seconds=st.integers(1, 3))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def reconnect(self) -> None:
        self.reader = self.store()

    @rule()
    def read_in_vain(self) -> None:
        self.fake.connected = False
        with pytest.raises(TransportUnavailable):
            self.reader.changes("global", "", self.cursor, 100, None)
        self.fake.connected = True

    @rule()
    def catch_up(self) -> None:
        news = self.reader.changes("global", "", self.cursor, 100, None)
        gap = news.revision - self.cursor
        self.cursor = news.revision
        if not news.complete:
            self.start_over()
        else:
            assert len(news.changes) == gap
            for change in news.changes:
                assert change.version == self.versions.get(change.key, 0) + 1
                self.versions[change.key] = change.version
                if change.deleted:
                    del self.copy[change.key]
                else:
                    self.copy[change.key] = (change.version, change.value)

        present = self.writer.scan("global", "", None)
        assert self.copy == {one.key: (one.version, one.value) for one in present}

    def start_over(self) -> None:
        """As one who lagged does: from a snapshot, which is at the revision that was told."""
        present = self.reader.scan("global", "", None)
        self.copy = {one.key: (one.version, one.value) for one in present}
        for key in "abc":
            last = self.writer.history("global", key, None)[-1:]
            self.versions[key] = last[0].version if last else self.retired(key)

    def retired(self, key: str) -> int:
        found: Any = self.writer._server.client.hget("{actorbus.p0}:x:global:keys", key)
        return int(found.split()[1]) if found else 0


TestMirror = Mirror.TestCase
TestMirror.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
