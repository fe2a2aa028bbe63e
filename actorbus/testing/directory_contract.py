"""What every directory promises, as tests. A subclass says how to open one::

class TestMyDirectory(DirectoryContract):
    def open(self) -> Directory:
        self.clock = ManualClock()
        return MyDirectory(self.clock, dead_after=self.dead_after)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
"""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from actorbus.errors import BusClosed, NameTaken
from actorbus.registry.directory import ChangeKind, DirectoryChange
from actorbus.registry.entry import AgentStatus, Capability, Entry, capability_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from actorbus.registry.directory import Directory
    from actorbus.registry.entry import Member


@dataclass(eq=False)
class ListedAgent:
    """A ``Member`` whose figures a test sets."""

    name: str
    capabilities: tuple[str | Capability, ...] = ()
    agent_type: str = "tests.ListedAgent"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: AgentStatus = AgentStatus.IDLE
    message_count: int = 0
    load: int = 0

    def when_stirred(self, tell: Callable[[Member], object]) -> bool:
        return False


def entry(member: ListedAgent, node: str) -> Entry:
    """The registration of `member` on `node`."""
    return Entry(member, node, capability_names(member.capabilities))


class DirectoryContract:
    """What every directory promises. A subclass says how to open one, and how time passes."""

    dead_after: ClassVar[float] = 10.0
    """Seconds after which the opened directory must take a silent node for dead."""
    tolerance: ClassVar[float] = 0.01
    """Seconds that may pass besides those that ``pass_time`` lets pass."""
    holds_names: ClassVar[bool] = True
    """False where others see to it that names are had once, and who registers last has one."""

    def open(self) -> Directory:
        """A new directory that nobody has joined."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass on the clock of the opened directory."""
        raise NotImplementedError

    def outlive(self, directory: Directory, living: Iterable[str]) -> None:
        """Let the `living` nodes beat, and no others, until those others are dead."""
        for _ in range(10):
            self.pass_time(self.dead_after / 10)
            for node in living:
                directory.beat(node)

    def check_taken(self, directory: Directory, late: Entry) -> None:
        """The name of `late` is another's, on a node that is not dead."""
        if self.holds_names:
            with pytest.raises(NameTaken):
                directory.register(late)
        else:
            directory.register(late)
            assert directory.get(late.member.name) is late

    def test_an_agent_is_found_by_its_name(self) -> None:
        directory = self.open()
        directory.join("a")
        counter = ListedAgent("counter")

        directory.register(entry(counter, "a"))

        found = directory.get("counter")
        assert found is not None
        assert (found.member.name, found.node) == ("counter", "a")

    def test_nobody_is_found_by_a_name_that_nobody_has(self) -> None:
        directory = self.open()
        directory.join("a")

        assert directory.get("counter") is None

    def test_agents_are_found_by_each_of_their_capabilities_in_the_order_they_joined(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")

        directory.register(entry(ListedAgent("zoe", ("count", "sort")), "a"))
        directory.register(entry(ListedAgent("adam", ("count",)), "b"))
        directory.register(entry(ListedAgent("idler"), "b"))

        assert _names(directory.members("count")) == ["zoe", "adam"]
        assert _names(directory.members("sort")) == ["zoe"]
        assert _names(directory.members()) == ["zoe", "adam", "idler"]

    def test_nobody_offers_a_capability_that_was_never_offered(self) -> None:
        directory = self.open()
        directory.join("a")

        assert list(directory.members("count")) == []

    def test_a_capability_that_is_named_twice_counts_once(self) -> None:
        directory = self.open()
        directory.join("a")

        directory.register(entry(ListedAgent("counter", ("count", "count")), "a"))
        listed = _names(directory.members("count"))
        directory.unregister("counter", "a")

        assert listed == ["counter"]
        assert list(directory.members("count")) == []

    def test_a_list_of_members_does_not_change_when_others_join_or_leave(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.register(entry(ListedAgent("first", ("count",)), "a"))

        before = directory.members("count")
        directory.register(entry(ListedAgent("second", ("count",)), "a"))
        directory.unregister("first", "a")

        assert _names(before) == ["first"]
        assert _names(directory.members("count")) == ["second"]

    def test_an_agent_that_left_is_found_no_more(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.register(entry(ListedAgent("counter", ("count",)), "a"))

        directory.unregister("counter", "a")
        directory.unregister("counter", "a")

        assert directory.get("counter") is None
        assert list(directory.members("count")) == []
        assert list(directory.members()) == []

    def test_a_node_cannot_remove_the_agent_of_another(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter"), "a"))

        directory.unregister("counter", "b")

        assert directory.get("counter") is not None

    def test_a_name_belongs_to_one_agent_over_all_nodes(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter", ("count",)), "a"))

        for node in ("a", "b") if self.holds_names else ("a",):
            with pytest.raises(NameTaken, match="running agent on node 'a'"):
                directory.register(entry(ListedAgent("counter", ("sort",)), node))

        assert list(directory.members("sort")) == []
        assert len(directory.members("count")) == 1

    def test_a_name_is_free_again_once_its_owner_has_left(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter"), "a"))

        directory.unregister("counter", "a")
        directory.register(entry(ListedAgent("counter"), "b"))

        found = directory.get("counter")
        assert found is not None
        assert found.node == "b"

    def test_registering_the_same_member_again_changes_nothing(self) -> None:
        directory = self.open()
        directory.join("a")
        counter = ListedAgent("counter", ("count",))
        directory.register(entry(counter, "a"))

        directory.register(entry(counter, "a"))

        assert _names(directory.members("count")) == ["counter"]

    def test_nobody_can_join_a_node_that_has_not_joined(self) -> None:
        directory = self.open()

        with pytest.raises(BusClosed, match="node 'a' has not started"):
            directory.register(entry(ListedAgent("counter"), "a"))

    def test_a_node_leaves_with_its_agents_and_no_others(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("one", ("count",)), "a"))
        directory.register(entry(ListedAgent("two", ("count",)), "b"))

        directory.leave("a")
        directory.leave("a")

        assert _names(directory.members("count")) == ["two"]
        assert set(directory.beat("b")) == {"b"}

    def test_a_beat_tells_how_long_each_node_has_been_silent(self) -> None:
        directory = self.open()
        directory.join("a")
        self.pass_time(1.0)
        at_join = directory.join("b")

        self.pass_time(2.0)
        at_beat = directory.beat("b")

        assert at_join == pytest.approx({"a": 1.0, "b": 0.0}, abs=self.tolerance)
        assert at_beat == pytest.approx({"a": 3.0, "b": 0.0}, abs=self.tolerance)

    def test_the_name_of_a_live_node_is_taken(self) -> None:
        directory = self.open()
        directory.join("a")

        with pytest.raises(NameTaken, match="running node"):
            directory.join("a")

    def test_a_node_may_join_again_once_it_has_left(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.leave("a")

        assert set(directory.join("a")) == {"a"}

    def test_a_node_replaces_a_dead_one_of_its_name_and_that_ones_agents_are_gone(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.register(entry(ListedAgent("counter"), "a"))
        self.pass_time(self.dead_after)

        directory.join("a")

        assert directory.get("counter") is None

    def test_a_suspect_node_keeps_the_names_of_its_agents(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter"), "a"))
        for _ in range(8):
            self.pass_time(self.dead_after / 10)
            directory.beat("b")

        self.check_taken(directory, entry(ListedAgent("counter"), "b"))

    def test_the_names_of_a_dead_nodes_agents_are_free(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter", ("count",)), "a"))
        self.outlive(directory, living=["b"])

        directory.register(entry(ListedAgent("counter", ("count",)), "b"))
        directory.unregister("counter", "a")

        found = directory.get("counter")
        assert found is not None
        assert found.node == "b"
        assert len(directory.members("count")) == 1

    def test_the_agents_of_a_dead_node_stay_known(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter"), "a"))

        self.outlive(directory, living=["b"])

        assert directory.get("counter") is not None

    def test_a_dead_node_that_beats_again_is_alive_again(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter"), "a"))
        self.outlive(directory, living=["b"])

        directory.beat("a")

        assert directory.beat("b")["a"] == pytest.approx(0.0, abs=self.tolerance)
        self.check_taken(directory, entry(ListedAgent("counter"), "b"))

    def test_where_nobody_has_beaten_for_long_nobody_is_dead(self) -> None:
        directory = self.open()
        for node in ("a", "b", "c"):
            directory.join(node)
        directory.register(entry(ListedAgent("counter"), "a"))
        self.pass_time(3 * self.dead_after)

        silences = directory.beat("b")

        assert silences == pytest.approx({"a": 0.0, "b": 0.0, "c": 0.0}, abs=self.tolerance)
        self.check_taken(directory, entry(ListedAgent("counter"), "b"))

    def test_a_name_stays_taken_while_nobody_can_tell_whether_its_node_is_dead(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter"), "a"))
        self.pass_time(3 * self.dead_after)

        self.check_taken(directory, entry(ListedAgent("counter"), "b"))

    def test_a_pause_that_is_no_gap_excuses_nobody(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")

        self.pass_time(self.dead_after * 0.4)
        silences = directory.beat("b")

        assert silences["a"] == pytest.approx(self.dead_after * 0.4, abs=self.tolerance)

    def test_a_listener_hears_each_change_in_order(self) -> None:
        directory = self.open()
        directory.join("a")
        heard: list[DirectoryChange] = []
        directory.listen(heard.append)

        directory.register(entry(ListedAgent("one"), "a"))
        directory.register(entry(ListedAgent("two"), "a"))
        directory.unregister("one", "a")
        directory.leave("a")

        assert _told(heard) == [
            (ChangeKind.JOINED, "one"),
            (ChangeKind.JOINED, "two"),
            (ChangeKind.LEFT, "one"),
            (ChangeKind.LEFT, "two"),
        ]

    def test_a_listener_hears_that_a_dead_nodes_agent_made_room_for_another(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.join("b")
        directory.register(entry(ListedAgent("counter"), "a"))
        self.outlive(directory, living=["b"])
        heard: list[DirectoryChange] = []
        directory.listen(heard.append)

        directory.register(entry(ListedAgent("counter"), "b"))

        assert [(change.kind, change.entry.node) for change in heard] == [
            (ChangeKind.LEFT, "a"),
            (ChangeKind.JOINED, "b"),
        ]

    def test_what_was_refused_is_no_change(self) -> None:
        directory = self.open()
        directory.join("a")
        directory.register(entry(ListedAgent("counter"), "a"))
        heard: list[DirectoryChange] = []
        directory.listen(heard.append)

        with pytest.raises(NameTaken):
            directory.register(entry(ListedAgent("counter"), "a"))
        directory.unregister("nobody", "a")
        directory.leave("b")

        assert heard == []

    def test_a_listener_that_went_hears_nothing_more(self) -> None:
        directory = self.open()
        directory.join("a")
        heard: list[DirectoryChange] = []
        stop_listening = directory.listen(heard.append)

        stop_listening()
        stop_listening()
        directory.register(entry(ListedAgent("counter"), "a"))

        assert heard == []


def _names(entries: Iterable[Entry]) -> list[str]:
    return [one.member.name for one in entries]


def _told(changes: Iterable[DirectoryChange]) -> list[tuple[ChangeKind, str]]:
    return [(change.kind, change.entry.member.name) for change in changes]
