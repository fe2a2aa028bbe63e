from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.errors import (
    BusClosed,
    InvalidArgument,
    InvalidName,
    NameTaken,
    NoProvider,
    TransportUnavailable,
)
from actorbus.registry.directories.memory import MemoryDirectory
from actorbus.registry.directory import ChangeKind
from actorbus.registry.entry import AgentStatus
from actorbus.registry.registry import Registry
from actorbus.registry.watch import NodeInfo, RegistryChange, RegistryLagged
from actorbus.settings import Settings
from actorbus.telemetry import Event, MemberChanged, Telemetry
from actorbus.testing.clock import ManualClock
from actorbus.testing.directory_contract import ListedAgent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SETTINGS = Settings(beat=2, suspect_after=5, dead_after=10)


class World:
    """Nodes that share a directory, a clock that is turned, and all that was heard of them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.directory = MemoryDirectory(self.clock, dead_after=SETTINGS.dead_after)
        self.events: list[Event] = []
        self.telemetry = Telemetry()
        self.telemetry.listen(self.events.append)

    def node(self, name: str, clock: ManualClock | None = None) -> Registry:
        registry = self.unstarted(name, clock)
        registry.start()
        return registry

    def unstarted(self, name: str, clock: ManualClock | None = None) -> Registry:
        return Registry(
            self.directory,
            node=name,
            clock=clock or self.clock,
            telemetry=self.telemetry,
            settings=SETTINGS,
            post=lambda call: call(),
            seed=1,
        )

    def frozen_node(self, name: str) -> tuple[Registry, ManualClock]:
        """A node whose timers run only when its own clock is turned: a stopped process."""
        clock = ManualClock()
        return self.node(name, clock), clock


@pytest.fixture
def world() -> World:
    return World()


def status_of(registry: Registry, name: str) -> AgentStatus:
    info = registry.get(name)
    assert info is not None
    assert registry.standing(name) is info.status
    return info.status


def heard_by(registry: Registry) -> list[tuple[str, str]]:
    heard: list[tuple[str, str]] = []

    def hear(change: RegistryChange | RegistryLagged) -> None:
        assert isinstance(change, RegistryChange)
        heard.append((change.kind, change.info.name))

    registry.watch(hear)
    return heard


def test_an_agent_is_shown_as_it_stands_when_it_is_looked_up(world: World) -> None:
    registry = world.node("a")
    member = ListedAgent("counter", ("count",))
    registry.register(member)

    idle = registry.get("counter")
    member.status, member.load, member.message_count = AgentStatus.BUSY, 4, 9
    busy = registry.get("counter")

    assert idle is not None
    assert busy is not None
    assert (idle.status, idle.load, idle.message_count) == (AgentStatus.IDLE, 0, 0)
    assert (busy.status, busy.load, busy.message_count) == (AgentStatus.BUSY, 4, 9)
    assert busy.node == "a"


def test_an_unknown_agent_is_none(world: World) -> None:
    registry = world.node("a")

    assert registry.get("counter") is None
    assert registry.standing("counter") is None


def test_an_unregistered_agent_is_unknown_and_may_be_unregistered_again(world: World) -> None:
    registry = world.node("a")
    registry.register(ListedAgent("counter", ("count",)))

    registry.unregister("counter")
    registry.unregister("counter")

    assert registry.get("counter") is None
    assert registry.find("count") == []


@pytest.mark.parametrize(
    ("capability", "status", "names"),
    [
        (None, None, ["busy", "idle", "parked", "starting"]),
        ("count", None, ["busy", "idle", "parked"]),
        (None, "active", ["busy", "idle"]),
        ("count", "idle", ["idle"]),
        ("count", AgentStatus.PARKED, ["parked"]),
        ("sort", "active", []),
        ("nothing", None, []),
    ],
)
def test_agents_are_found_by_capability_and_status(
    world: World, capability: str | None, status: str | None, names: list[str]
) -> None:
    registry = world.node("a")
    for name in ("busy", "idle", "parked"):
        registry.register(ListedAgent(name, ("count",), status=AgentStatus(name)))
    registry.register(ListedAgent("starting", ("sort",), status=AgentStatus.STARTING))

    assert [info.name for info in registry.find(capability, status)] == names


def test_a_name_is_taken_over_all_nodes_that_share_a_directory(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.register(ListedAgent("counter"))

    with pytest.raises(NameTaken, match="running agent on node 'a'"):
        b.register(ListedAgent("counter"))


def test_nodes_that_share_a_directory_see_each_others_agents(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.register(ListedAgent("here", ("count",)))
    b.register(ListedAgent("there", ("count",)))

    assert [(info.name, info.node) for info in a.find("count")] == [("here", "a"), ("there", "b")]
    assert a.find("count") == b.find("count")


def test_a_node_that_stops_takes_its_own_agents_with_it(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.register(ListedAgent("here"))
    b.register(ListedAgent("there"))

    a.stop()

    assert [info.name for info in b.find()] == ["there"]


BAD_NAMES: list[Any] = ["", "x" * 10_240, "a\nb", "a\x00b", " a", "*", ">", 7, b"counter", ["a"]]


@pytest.mark.parametrize("bad", [*BAD_NAMES, None])
@pytest.mark.parametrize(
    "use",
    [
        lambda registry, bad: registry.get(bad),
        lambda registry, bad: registry.least_busy(bad),
        lambda registry, bad: registry.pick(bad),
        lambda registry, bad: registry.providers(bad),
        lambda registry, bad: registry.register(ListedAgent(bad)),
        lambda registry, bad: registry.register(ListedAgent("counter", (bad,))),
    ],
    ids=["get", "least_busy", "pick", "providers", "register name", "register capability"],
)
def test_a_bad_name_is_an_invalid_name(
    world: World, use: Callable[[Registry, Any], object], bad: Any
) -> None:
    registry = world.node("a")
    registry.register(ListedAgent("editor", ("edit",)))

    with pytest.raises(InvalidName):
        use(registry, bad)

    assert [info.name for info in registry.find()] == ["editor"]


@pytest.mark.parametrize("bad", BAD_NAMES)
def test_a_bad_capability_cannot_be_searched_for(world: World, bad: Any) -> None:
    with pytest.raises(InvalidName):
        world.node("a").find(bad)


@pytest.mark.parametrize("bad", ["actve", "", 7, "x" * 10_240])
def test_an_unknown_status_cannot_be_searched_for(world: World, bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="known are active"):
        world.node("a").find(status=bad)


@pytest.mark.parametrize("bad", [*BAD_NAMES, None])
def test_a_node_must_have_a_proper_name(world: World, bad: Any) -> None:
    with pytest.raises(InvalidName):
        world.unstarted(bad)


def test_least_busy_prefers_those_with_less_to_do(world: World) -> None:
    registry = world.node("a")
    for name, load in (("light", 1), ("heavy", 50)):
        registry.register(ListedAgent(name, ("count",), load=load))

    assert {registry.least_busy("count").name for _ in range(20)} == {"light"}
    assert registry.pick("count").name == "light"


def test_work_spreads_evenly_over_equal_providers(world: World) -> None:
    registry = world.node("a")
    members = [ListedAgent(f"agent-{number}", ("count",)) for number in range(100)]
    for member in members:
        registry.register(member)

    for _ in range(10_000):
        picked = registry.pick("count")
        assert isinstance(picked, ListedAgent)
        picked.load += 1

    assert max(member.load for member in members) <= 103


def test_idle_providers_share_the_work(world: World) -> None:
    registry = world.node("a")
    for number in range(10):
        registry.register(ListedAgent(f"agent-{number}", ("count",)))

    picked = Counter(registry.pick("count").name for _ in range(2_000))

    assert len(picked) == 10
    assert max(picked.values()) / 200 < 1.3


def test_without_a_provider_the_error_says_what_is_offered(world: World) -> None:
    registry = world.node("a")
    registry.register(ListedAgent("counter", ("count-words",)))
    registry.register(ListedAgent("sorter", ("sort",)))
    registry.register(ListedAgent("gone", ("draw",), status=AgentStatus.STOPPED))

    for ask in (registry.least_busy, registry.pick):
        with pytest.raises(NoProvider) as caught:
            ask("count-word")
        assert str(caught.value) == (
            "no agent offers 'count-word'. Did you mean 'count-words'? Offered: count-words, sort."
        )
    assert registry.providers("count-word") == ()


def test_where_all_providers_are_gone_the_error_names_them(world: World) -> None:
    a, b = world.node("a"), world.frozen_node("b")[0]
    a.register(ListedAgent("sorter", ("sort",)))
    a.register(ListedAgent("stopped", ("count",), status=AgentStatus.STOPPED))
    b.register(ListedAgent("lost", ("count",)))
    world.clock.advance(10)

    with pytest.raises(NoProvider, match=r"Offered: sort\. Stopped or dead: lost, stopped\.") as e:
        a.pick("count")

    assert e.value.lost == ("lost", "stopped")


@pytest.mark.parametrize("status", ["parked", "stopped", "suspect", "dead"])
def test_who_cannot_work_now_is_not_picked_while_anybody_can(world: World, status: str) -> None:
    registry = world.node("a")
    for number in range(9):
        member = ListedAgent(f"out-{number}", ("count",), status=AgentStatus(status))
        registry.register(member)
    registry.register(ListedAgent("busy", ("count",), status=AgentStatus.BUSY, load=1_000))

    assert {registry.pick("count").name for _ in range(50)} == {"busy"}


def test_a_parked_provider_is_picked_where_there_is_no_other(world: World) -> None:
    registry = world.node("a")
    registry.register(ListedAgent("parked", ("count",), status=AgentStatus.PARKED))

    assert registry.pick("count").name == "parked"


def test_a_silent_node_is_suspect_then_dead_exactly_at_the_limits(world: World) -> None:
    a, (b, _) = world.node("a"), world.frozen_node("b")
    b.register(ListedAgent("far", ("count",)))
    heard = heard_by(a)
    seen = []

    for seconds in (4.99, 0.01, 4.99, 0.01):
        world.clock.advance(seconds)
        seen.append(status_of(a, "far"))

    assert seen == ["idle", "suspect", "suspect", "dead"]
    assert heard == [("suspect", "b"), ("dead", "b")]
    assert [event for event in world.events if isinstance(event, MemberChanged)] == [
        MemberChanged("b", "suspect", "b"),
        MemberChanged("b", "dead", "b"),
    ]


def test_a_node_that_beats_again_is_back_with_its_agents(world: World) -> None:
    a, (b, b_clock) = world.node("a"), world.frozen_node("b")
    b.register(ListedAgent("far", ("count",)))
    world.clock.advance(20)
    heard = heard_by(a)

    b_clock.advance(2)
    world.clock.advance(2)

    assert status_of(a, "far") == AgentStatus.IDLE
    assert heard == [("back", "b")]
    assert a.pick("count").name == "far"


def test_live_nodes_never_look_suspect_to_each_other(world: World) -> None:
    registries = [world.node(name) for name in "abc"]
    heard = [heard_by(registry) for registry in registries]

    world.clock.advance(600)

    assert heard == [[], [], []]


def test_after_a_pause_of_the_whole_process_nobody_is_dead() -> None:
    world = World()
    a, a_clock = world.frozen_node("a")
    b, _ = world.frozen_node("b")
    b.register(ListedAgent("far", ("count",)))
    heard = heard_by(a)

    world.clock.advance(3_600)
    a_clock.advance(2)

    assert status_of(a, "far") == AgentStatus.IDLE
    assert heard == []


def test_after_such_a_pause_a_node_that_stays_silent_dies_after_all() -> None:
    world = World()
    a, a_clock = world.frozen_node("a")
    world.frozen_node("b")
    heard = heard_by(a)
    world.clock.advance(3_600)
    a_clock.advance(2)

    for _ in range(5):
        world.clock.advance(2)
        a_clock.advance(2)

    assert heard == [("suspect", "b"), ("dead", "b")]


def test_the_agents_of_suspect_and_dead_nodes_are_found_as_such(world: World) -> None:
    a, (b, _) = world.node("a"), world.frozen_node("b")
    a.register(ListedAgent("near", ("count",)))
    b.register(ListedAgent("far", ("count",)))

    world.clock.advance(5)
    suspects = [info.name for info in a.find(status="suspect")]
    world.clock.advance(5)

    assert suspects == ["far"]
    assert [info.name for info in a.find(status="dead")] == ["far"]
    assert [info.name for info in a.find("count", "active")] == ["near"]


def test_a_suspect_provider_is_picked_where_there_is_no_other_and_a_dead_one_never(
    world: World,
) -> None:
    a, (b, _) = world.node("a"), world.frozen_node("b")
    b.register(ListedAgent("far", ("count",)))

    world.clock.advance(5)
    picked = a.pick("count").name
    told = [member.name for member in a.providers("count")]
    world.clock.advance(5)

    assert picked == "far"
    assert told == ["far"]
    assert a.providers("count") == ()
    with pytest.raises(NoProvider):
        a.least_busy("count")


def test_the_name_of_a_dead_nodes_agent_may_be_taken(world: World) -> None:
    a, (b, b_clock) = world.node("a"), world.frozen_node("b")
    b.register(ListedAgent("counter"))
    world.clock.advance(12)

    a.register(ListedAgent("counter"))
    b_clock.advance(2)
    b.unregister("counter")

    info = a.get("counter")
    assert info is not None
    assert info.node == "a"


def test_the_last_heartbeat_is_told_in_node_time(world: World) -> None:
    a, (b, _) = world.node("a"), world.frozen_node("b")
    a.register(ListedAgent("near"))
    b.register(ListedAgent("far"))
    started = world.clock.now()

    world.clock.advance(4)

    near, far = a.get("near"), a.get("far")
    assert near is not None
    assert far is not None
    assert near.last_heartbeat == pytest.approx(started + 4, abs=0.001)
    assert far.last_heartbeat == pytest.approx(started, abs=0.001)


def test_a_watcher_hears_who_joins_and_leaves_on_any_node_in_order(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.register(ListedAgent("before"))
    heard = heard_by(a)

    a.register(ListedAgent("one"))
    b.register(ListedAgent("two"))
    a.unregister("one")
    b.stop()

    assert heard == [("joined", "one"), ("joined", "two"), ("left", "one"), ("left", "two")]


def test_a_change_tells_of_the_agent_or_of_the_node(world: World) -> None:
    a, (b, _) = world.node("a"), world.frozen_node("b")
    changes: list[Any] = []
    a.watch(changes.append)

    b.register(ListedAgent("far", ("count",)))
    started = world.clock.now()
    world.clock.advance(5)

    joined, suspect = changes
    assert (joined.kind, joined.info.node, joined.info.status) == ("joined", "b", "idle")
    assert suspect.kind == ChangeKind.SUSPECT
    assert suspect.info == NodeInfo("b", started)


def test_a_cancelled_watch_hears_nothing_and_others_go_on(world: World) -> None:
    registry = world.node("a")
    first: list[object] = []
    with registry.watch(first.append) as watch:
        second = heard_by(registry)
    watch.cancel()

    registry.register(ListedAgent("counter"))

    assert first == []
    assert second == [("joined", "counter")]


async def hear_later(_: object) -> None: ...


@pytest.mark.parametrize("watcher", [5, None, hear_later])
def test_a_watcher_that_cannot_be_called_back_is_refused(world: World, watcher: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=r"a watcher cannot be .*: it must be a plain function"
    ):
        world.node("a").watch(watcher)


def test_a_registry_that_nobody_watches_listens_to_nothing(world: World) -> None:
    registry = world.node("a")

    for _ in range(3):
        with registry.watch(print), registry.watch(print):
            pass

    assert world.directory._listeners == ()


def test_a_callback_may_use_the_registry(world: World) -> None:
    registry = world.node("a")
    heard: list[str] = []

    def replace(change: RegistryChange | RegistryLagged) -> None:
        assert isinstance(change, RegistryChange)
        heard.append(f"{change.kind} {change.info.name}")
        if change.kind == ChangeKind.LEFT and change.info.name == "first":
            registry.register(ListedAgent("second"))
            heard.append(f"found {len(registry.find())}")

    registry.watch(replace)
    registry.register(ListedAgent("first"))
    registry.unregister("first")

    assert heard == ["joined first", "left first", "found 1", "joined second"]


def test_two_nodes_cannot_have_one_name(world: World) -> None:
    world.node("a")
    second = world.unstarted("a")

    with pytest.raises(NameTaken, match="running node"):
        second.start()
    second.stop()

    assert world.directory.beat("a") == {"a": 0.0}


def test_agents_join_only_a_registry_that_has_started(world: World) -> None:
    registry = world.unstarted("a")

    with pytest.raises(BusClosed, match="node 'a' has not started"):
        registry.register(ListedAgent("counter"))


def test_it_may_be_started_and_stopped_any_number_of_times(world: World) -> None:
    registry = world.unstarted("a")

    registry.stop()
    registry.start()
    registry.start()
    registry.register(ListedAgent("counter"))
    registry.stop()
    registry.stop()
    registry.start()

    assert registry.find() == []
    registry.register(ListedAgent("counter"))
    assert registry.get("counter") is not None


def test_a_stopped_registry_beats_no_more_and_tells_watchers_nothing(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.register(ListedAgent("counter"))
    heard = heard_by(a)

    a.stop()
    b.register(ListedAgent("later"))
    world.clock.advance(60)

    assert heard == [("left", "counter")]
    assert world.directory.beat("b") == {"b": 0.0}
    b.stop()
    assert world.clock.next_due() is None
    assert world.directory._listeners == ()


class FailingDirectory(MemoryDirectory):
    """A directory that is away for one beat."""

    fails = False

    def beat(self, node: str) -> Mapping[str, float]:
        if self.fails:
            self.fails = False
            raise ConnectionError
        return super().beat(node)


def test_a_beat_that_fails_is_followed_by_the_next_one(world: World) -> None:
    world.directory = directory = FailingDirectory(world.clock)
    registry = world.node("a")
    registry.register(ListedAgent("counter"))
    directory.fails = True

    with pytest.raises(ConnectionError):
        world.clock.advance(2)
    world.clock.advance(2)

    info = registry.get("counter")
    assert info is not None
    assert info.last_heartbeat == pytest.approx(world.clock.now(), abs=0.001)


class ReportedDirectory(MemoryDirectory):
    """A directory whose loads are a second old."""

    load_age = 1.0


def test_on_old_loads_a_burst_is_not_sent_to_one_provider(world: World) -> None:
    world.directory = ReportedDirectory(world.clock)
    registry = world.node("a")
    for name, load in (("light", 0), ("heavy", 10)):
        registry.register(ListedAgent(name, ("count",), load=load))

    picked = Counter(registry.pick("count").name for _ in range(30))

    assert picked == {"light": 20, "heavy": 10}


def test_the_searches_can_be_awaited(world: World) -> None:
    registry = world.node("a")
    registry.register(ListedAgent("counter", ("count",)))

    async def search() -> None:
        assert await registry.aio.get("counter") == registry.get("counter")
        assert await registry.aio.find("count", "active") == registry.find("count")
        assert (await registry.aio.least_busy("count")).name == "counter"
        with pytest.raises(NoProvider):
            await registry.aio.least_busy("sort")

    asyncio.run(search())


def test_while_the_directorys_server_is_away_nobody_is_judged_and_beats_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = world.node("a"), world.node("b")
    there.register(ListedAgent("counter"))
    beats: list[str] = []

    def away(node: str) -> Mapping[str, float]:
        beats.append(node)
        raise TransportUnavailable("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(world.directory, "beat", away)
        world.clock.advance(20)

    assert beats.count("a") == 10
    assert status_of(here, "counter") is AgentStatus.IDLE
    world.clock.advance(2)
    assert status_of(here, "counter") is AgentStatus.IDLE
