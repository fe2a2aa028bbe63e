"""How far agents are with the log: single decisions, and any order of them against a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorbus.bus.gap import Gap
from actorbus.bus.transports.redis.topics import following as module
from actorbus.bus.transports.redis.topics.following import AHEAD, LINE, Following, Missed
from actorbus.bus.transports.redis.topics.log import START, Entry, Found, Point, Rewound, Save

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

AGENTS: Final = ("a", "b", "c")


def entry(number: int, to: Iterable[str] = ("a",), name: str | None = None) -> Entry:
    """One that says in its blob who gets it."""
    word = (name or str(number)).encode().rjust(16, b"0")
    return Entry(Point(number, 10 * number), 2, word, 0, "t", None, ",".join(to).encode())


class Named:
    """Everybody whom the entry names."""

    def names(self, entry: Entry, everybody: Collection[str]) -> Iterable[str]:
        return [name for name in entry.blob.decode().split(",") if name in everybody]

    def wants(self, agent: str, entry: Entry) -> bool:
        return agent in entry.blob.decode().split(",")


NAMED: Final = Named()


def found(entries: Sequence[Entry], last: Point | None = None) -> Found:
    return Found(tuple(entries), 0, last or (entries[-1].point if entries else START))


def following(*agents: str, at: Point = START) -> Following:
    one = Following(at, at)
    for agent in agents:
        one.add(agent, at, has_point=False)
    return one


def numbers(one: Following) -> dict[str, list[int]]:
    """What is handed out now, by agent."""
    given: dict[str, list[int]] = {}
    for what, agents in one.hand_out():
        for agent in agents:
            given.setdefault(agent, []).append(what.point.number)
    return given


def done(one: Following, agent: str, *many: int) -> None:
    for number in many:
        assert one.done(agent, str(number).encode().rjust(16, b"0"))


class TestNewAgents:
    def test_one_gets_what_was_read_for_others_since_it_began(self) -> None:
        one = following("b")
        one.came(found([entry(1), entry(2)]), NAMED)

        assert one.add_new("a", START, one.rewinds)
        assert one.lags(9) == {START: ["a"]}
        one.came_alone(["a"], START, found([entry(1), entry(2)]), NAMED)

        assert numbers(one) == {"a": [1, 2]}

    def test_one_holds_the_watermark_where_it_began(self) -> None:
        one = following()
        assert one.add_new("a", START, one.rewinds)

        one.came(found([entry(1)]), NAMED)

        save = one.to_save()
        assert save is not None
        assert save.watermark == entry(1).before

    def test_the_server_must_be_told_of_one_that_is_not_at_the_watermark(self) -> None:
        one = following("b")
        one.came(found([entry(1, ["b"])]), NAMED)
        numbers(one)
        done(one, "b", 1)

        assert not one.add_new("a", entry(1).point, one.rewinds)  # it is not there yet
        one.to_save()
        assert not one.add_new("a", START, one.rewinds)  # it may be gone from there by now
        one.saved()
        assert not one.add_new("a", START, one.rewinds)

        assert one.add_new("a", entry(1).point, one.rewinds)
        assert set(one.agents) == {"a", "b"}

    def test_the_server_must_be_told_of_one_that_began_in_another_log(self) -> None:
        one = following("b")
        before = one.rewinds
        one.rewound(Rewound(START, None))

        assert not one.add_new("a", START, before)
        assert "a" not in one.agents


class TestHandingOut:
    def test_events_go_to_those_they_name_each_once(self) -> None:
        one = following("a", "b")

        one.came(found([entry(1, ["a", "b"]), entry(2, ["b"]), entry(3, ["a"])]), NAMED)

        assert numbers(one) == {"a": [1, 3], "b": [1, 2]}
        assert numbers(one) == {}

    def test_no_more_than_the_bound_are_with_an_agent_beyond_what_is_saved(self) -> None:
        one = following("a")
        one.came(found([entry(at) for at in range(1, 41)]), NAMED)

        assert numbers(one) == {"a": list(range(1, AHEAD + 1))}
        done(one, "a", *range(1, AHEAD + 1))
        assert numbers(one) == {}

        one.to_save()
        one.saved()
        assert numbers(one) == {"a": list(range(AHEAD + 1, 2 * AHEAD + 1))}

    def test_what_is_not_in_hand_is_not_done(self) -> None:
        one = following("a")
        one.came(found([entry(1)]), NAMED)

        assert not one.done("a", entry(1).id)
        assert not one.done("nobody", entry(1).id)
        numbers(one)
        assert one.done("a", entry(1).id)
        assert not one.done("a", entry(1).id)

    def test_one_that_has_not_begun_gets_all_that_came_once_it_begins(self) -> None:
        one = following("b")
        one.add("a", START, has_point=False, begins=False)
        one.came(found([entry(1), entry(2)]), NAMED)

        assert numbers(one) == {}
        assert one.lags(9) == {}
        one.begin("a")

        assert one.lags(9) == {START: ["a"]}
        one.came_alone(["a"], START, found([entry(1), entry(2)]), NAMED)
        assert numbers(one) == {"a": [1, 2]}
        assert one.lagging == frozenset()


class TestPoints:
    def test_the_point_is_before_the_first_that_is_not_done(self) -> None:
        one = following("a")
        one.came(found([entry(at) for at in (1, 2, 3)]), NAMED)
        numbers(one)

        done(one, "a", 3, 1)
        assert one.point("a") == entry(2).before
        done(one, "a", 2)
        assert one.point("a") == entry(3).point

    def test_the_watermark_waits_for_the_last_as_long_as_nobody_waits_for_it(self) -> None:
        one = following("a", "b")
        one.came(found([entry(1, ["a", "b"]), entry(2, ["b"])]), NAMED)
        numbers(one)
        done(one, "b", 1, 2)

        save = one.to_save()

        assert save == Save(entry(2).point, entry(2).id, entry(1).before, (), ())

    def test_who_holds_others_back_gets_a_point_of_its_own_until_it_has_caught_up(self) -> None:
        one = following("a", "b")
        many = [entry(at, ["a", "b"]) for at in range(1, AHEAD + 5)]
        one.came(found(many), NAMED)
        numbers(one)
        done(one, "b", *range(1, AHEAD + 1))
        assert one.hurries

        save = one.to_save()
        assert save is not None
        assert dict(save.points)["a"] == many[0].before
        assert save.watermark > many[0].before
        one.saved()

        assert numbers(one) == {"b": list(range(AHEAD + 1, AHEAD + 5))}
        done(one, "a", *range(1, AHEAD + 1))
        one.to_save()
        one.saved()
        numbers(one)
        for agent in ("a", "b"):
            done(one, agent, *range(AHEAD + 1, AHEAD + 5))
        last = one.to_save()
        assert last is not None
        assert last.watermark == many[-1].point
        one.saved()
        assert one.points == {}
        assert one.to_save() is None

    def test_the_same_is_saved_again_until_it_is_known_to_be(self) -> None:
        one = following("a")
        one.came(found([entry(1, ["x"])]), NAMED)
        save = one.to_save()
        one.came(found([entry(2, ["x"])]), NAMED)

        assert one.to_save() is save
        one.saved()
        assert one.to_save() != save

    def test_nobody_is_saved_after_it_has_gone(self) -> None:
        one = following("a", "b")
        one.came(found([entry(at, ["a", "b"]) for at in range(1, AHEAD + 2)]), NAMED)
        numbers(one)
        done(one, "b", *range(1, AHEAD + 1))
        one.to_save()

        one.remove("a")

        save = one.to_save()
        assert save is not None
        assert "a" not in dict(save.points)

    def test_one_that_began_after_the_watermark_keeps_its_point_until_that_is_there(self) -> None:
        one = following("a")
        one.add("late", entry(2).point, has_point=True)
        one.came(found([entry(1, ["a", "late"])]), NAMED)
        assert numbers(one) == {"a": [1]}
        done(one, "a", 1)

        first = one.to_save()
        one.saved()
        one.came(found([entry(2, ["late"]), entry(3, ["late"])]), NAMED)
        assert numbers(one) == {"late": [3]}
        done(one, "late", 3)
        second = one.to_save()

        assert first is not None
        assert first.cleared == ()
        assert second is not None
        assert second.watermark == entry(3).point
        assert second.cleared == ("late",)


class TestLagging:
    def test_a_full_line_is_cut_and_read_for_alone_and_others_go_on(self) -> None:
        one = following("a", "b")
        many = [entry(at, ["a", "b"] if at % 2 else ["a"]) for at in range(1, 2 * LINE + 1)]
        for start in range(0, len(many), AHEAD):
            one.came(found(many[start : start + AHEAD]), NAMED)
            done(one, "b", *numbers(one).get("b", []))
            one.to_save()
            one.saved()

        assert one.lagging == {"a"}
        assert one.point("b") == many[-1].point
        assert one.lags(9) == {}
        for at in range(1, LINE + 1):
            done(one, "a", at)
            one.to_save()
            one.saved()
            numbers(one)
        ((after, agents),) = one.lags(9).items()
        assert after == many[LINE].before
        one.came_alone(agents, after, found(many[LINE:]), NAMED)
        assert one.lagging == frozenset()
        assert numbers(one) == {"a": list(range(LINE + 1, LINE + AHEAD + 1))}

    def test_what_is_gone_stands_in_line_as_one_gap_of_the_right_count(self) -> None:
        one = following("a", "b")
        one.came(found([entry(1, ["a"])]), NAMED)

        one.came(found([entry(8, ["a"])]), NAMED)

        given = [(what, agents) for what, agents in one.hand_out()]
        assert [agents for _, agents in given] == [["a"], ["a", "b"], ["a"]]
        missed = given[1][0]
        assert isinstance(missed, Missed)
        assert missed.gap == Gap(2, 7)
        assert missed.gap.count == 6
        assert one.point("b") == entry(1).point
        assert one.done("b", missed.id)
        assert one.point("b") == entry(8).point

    def test_one_that_began_within_what_is_gone_missed_only_the_rest(self) -> None:
        one = following("a")
        one.add("late", Point(5, 50), has_point=True)
        one.add("later", Point(7, 70), has_point=True)

        one.came(found([entry(8, [])]), NAMED)

        gaps = {agents[0]: what.gap for what, agents in one.hand_out() if isinstance(what, Missed)}
        assert gaps["late"] == Gap(6, 7)
        assert "later" not in gaps

    def test_a_log_that_was_emptied_is_a_gap_too(self) -> None:
        one = following("a")

        one.came(found([], last=Point(4, 40)), NAMED)

        ((what, _),) = one.hand_out()
        assert isinstance(what, Missed)
        assert what.gap == Gap(1, 4)
        assert one.read == Point(4, 40)


class TestRewinding:
    def test_what_is_known_is_not_given_again_and_what_is_new_there_is(self) -> None:
        one = following("a")
        old = [entry(at) for at in (1, 2, 3)]
        one.came(found(old), NAMED)
        numbers(one)
        done(one, "a", 1)

        back = one.rewound(Rewound(Point(2, 25), Point(1, 10)))
        new = entry(2, name="new")._replace(point=Point(2, 25))
        again = old[1]._replace(point=Point(3, 35))
        one.came(found([old[0], new, again]), NAMED)

        assert back == START
        given = [what.id for what, _ in one.hand_out()]
        assert given == [new.id]
        assert one.point("a") == START
        assert one.done("a", old[2].id)
        assert one.point("a") == new.before
        assert one.done("a", new.id)
        assert one.point("a") == again.before
        assert one.done("a", old[1].id)
        assert one.point("a") == again.point

    def test_past_its_bound_what_was_read_first_is_no_longer_known(self) -> None:
        one = following("a")
        old = [entry(at) for at in (1, 2, 3)]
        with patch.object(module, "_REMEMBERED", 2):
            one.came(found(old), NAMED)
        numbers(one)
        done(one, "a", 1, 2, 3)

        one.rewound(Rewound(Point(3, 35), None))
        one.came(found([what._replace(point=Point(what.point.number, 99)) for what in old]), NAMED)

        assert numbers(one) == {"a": [1]}

    def test_it_goes_further_back_where_the_log_is_not_the_same_either(self) -> None:
        one = following("a")
        with patch.object(module, "_STEP", 2):
            one.came(found([entry(at) for at in range(1, 8)]), NAMED)
        told = Rewound(Point(7, 75), Point(1, 10))

        assert [one.rewound(told).number for _ in range(5)] == [6, 4, 2, 0, 0]

    def test_nobody_is_blocked_by_events_that_come_again_in_another_order(self) -> None:
        one = following("a")
        old = [entry(at) for at in range(1, LINE)]
        one.came(found(old), NAMED)
        one.rewound(Rewound(Point(2, 20), Point(1, 10)))
        new = entry(3, name="new")
        moved = [some._replace(point=Point(at + 1, 9_000 + at)) for at, some in enumerate(old, 1)]
        one.came(found([*old[:2], new, *moved[2:]]), NAMED)

        given: list[bytes] = []
        for _ in range(2 * LINE):
            for what, _agents in one.hand_out():
                given.append(what.id)
                one.done("a", what.id)
            one.to_save()
            one.saved()

        assert sorted(given) == sorted(some.id for some in (*old, new))

    def test_what_is_in_hand_is_not_given_once_more(self) -> None:
        one = Following(Point(1, 10), Point(1, 10))
        one.add("a", START, has_point=True)
        one.came_alone(["a"], START, found([entry(1)]), NAMED)
        assert numbers(one) == {"a": [1]}
        one.rewound(Rewound(START, None))
        one.rewound(Rewound(START, None))

        again = entry(1)._replace(point=Point(1, 15))
        one.came(found([again]), NAMED)
        one.came_alone(["a"], START, found([again]), NAMED)

        assert numbers(one) == {}
        assert one.done("a", again.id)
        assert one.point("a") == again.point

    def test_what_retention_took_before_is_no_gap(self) -> None:
        one = following("a")
        one.came(found([entry(at, []) for at in range(1, 8)]), NAMED)

        back = one.rewound(Rewound(Point(6, 60), Point(5, 50)))
        one.came(found([entry(5, []), entry(6, [])]), NAMED)

        assert back.number == 4
        assert numbers(one) == {}


class _Server(NamedTuple):
    """What a server knows; it may go back to what it knew before."""

    log: tuple[Entry, ...] = ()
    last: Point = START
    watermark: Point = START
    points: tuple[tuple[str, Point], ...] = ()

    def point(self, agent: str) -> Point:
        return dict(self.points).get(agent, self.watermark)

    def has(self, point: Point, message_id: bytes) -> bool:
        if point.number > self.last.number:
            return False
        for one in self.log:
            if one.point.number == point.number:
                return one.point == point and message_id in (b"", one.id)
        return not self.log or point.number < self.log[0].point.number

    def after(self, point: Point, count: int) -> Found:
        behind = [one for one in self.log if one.point.number > point.number]
        return Found(tuple(behind[:count]), 0, self.last)

    def took(self, save: Save) -> _Server:
        points = {} if save.anew else dict(self.points)
        points.update(save.points)
        for name in save.cleared:
            points.pop(name, None)
        return self._replace(watermark=save.watermark, points=tuple(points.items()))


class FollowingAgainstModel(RuleBasedStateMachine):
    """Three agents; a server that trims, loses its tail and answers; nodes that die.

    Each event is published with what it is for. Whatever happens, each agent gets each of its
    events or a gap that counts it, in order, and once but for what it was given beyond the point
    that the server knew when the node died.
    """

    AHEAD, LINE = 4, 6

    def __init__(self) -> None:
        super().__init__()
        self.patches = patch.multiple(
            module, AHEAD=self.AHEAD, ENOUGH=2, LINE=self.LINE, _POINTS=1, _STEP=3
        )
        self.patches.start()
        self.server = _Server()
        self.before: list[_Server] = []
        self.published: list[Entry] = []
        self.time = 0
        self.is_trimmed = self.is_rewound = False
        self.got: dict[str, list[bytes]] = {name: [] for name in AGENTS}
        self.gaps: dict[str, list[Gap]] = {name: [] for name in AGENTS}
        self.repeats: dict[str, int] = dict.fromkeys(AGENTS, 0)
        self.deaths = 0
        self.in_hand: dict[str, list[Entry | Missed]] = {name: [] for name in AGENTS}
        self.node = following(*AGENTS)

    def teardown(self) -> None:
        try:
            self.quiesce()
            self.check_all_came()
        finally:
            self.patches.stop()

    # -- the world

    @rule(to=st.lists(st.sets(st.sampled_from(AGENTS)), min_size=1, max_size=9))
    def publish(self, to: list[set[str]]) -> None:
        self.before.append(self.server)
        for some in to:
            name = f"e{len(self.published)}"
            one = entry(1, sorted(some), name)
            self.published.append(one)
            self.append(one)

    def append(self, one: Entry) -> None:
        self.time += 1
        point = Point(self.server.last.number + 1, self.time)
        log = (*self.server.log, one._replace(point=point))
        self.server = self.server._replace(log=log, last=point)

    @precondition(lambda self: not self.is_rewound)
    @rule(keep=st.integers(0, 8))
    def trim(self, keep: int) -> None:
        self.is_trimmed = True
        log = self.server.log[max(0, len(self.server.log) - keep) :]
        self.server = self.server._replace(log=log)

    @precondition(lambda self: self.before and not self.is_trimmed)
    @rule(data=st.data())
    def lose_tail(self, data: st.DataObject) -> None:
        """The server forgets; producers that live send again what it does not have."""
        self.is_rewound = True
        at = data.draw(st.integers(0, len(self.before) - 1))
        self.server = self.before[at]
        self.time += 1
        del self.before[at:]
        kept = {one.id for one in self.server.log}
        lost = [one for one in self.published if one.id not in kept]
        for one in data.draw(st.permutations(lost)) if len(lost) < 4 else lost:
            self.append(one)

    @rule()
    def node_dies(self) -> None:
        self.deaths += 1
        last = self.server.last
        self.node = Following(last, last)
        points = {name: self.server.point(name) for name in AGENTS}
        self.server = self.server._replace(watermark=last, points=tuple(points.items()))
        for name, at in points.items():
            self.node.add(name, at, has_point=True)
            self.in_hand[name] = []

    # -- the node

    @rule(count=st.integers(1, 12))
    def look(self, count: int) -> None:
        lags = self.node.lags(2)
        if not self.server.has(self.node.read, self.node.read_id):
            first = self.server.log[0].point if self.server.log else None
            self.node.rewound(Rewound(self.server.last, first))
            return
        self.node.came(self.server.after(self.node.read, count), NAMED)
        for point, agents in lags.items():
            self.node.came_alone(agents, point, self.server.after(point, count), NAMED)
        self.hand_out()

    def hand_out(self) -> None:
        for what, agents in self.node.hand_out():
            for agent in agents:
                self.in_hand[agent].append(what)
                if isinstance(what, Missed):
                    self.gaps[agent].append(what.gap)
                else:
                    self.repeats[agent] += what.id in self.got[agent]
                    self.got[agent].append(what.id)

    @rule(agent=st.sampled_from(AGENTS), at=st.integers(0, 20), count=st.integers(1, 4))
    def handle(self, agent: str, at: int, count: int) -> None:
        for _ in range(min(count, len(self.in_hand[agent]))):
            what = self.in_hand[agent].pop(at % len(self.in_hand[agent]))
            assert self.node.done(agent, what.id)

    @rule(arrives=st.booleans(), answered=st.booleans())
    def save(self, arrives: bool, answered: bool) -> None:
        save = self.node.to_save()
        if save is None:
            return
        if not self.server.has(save.read, save.read_id):
            self.node.not_saved()
        elif arrives or answered:
            self.server = self.server.took(save)
            self.before.append(self.server)
            if answered:
                self.node.saved()
                self.hand_out()

    @invariant()
    def nobody_is_saved_beyond_what_it_has_done(self) -> None:
        if self.is_rewound:
            return
        for agent in AGENTS:
            saved = self.server.point(agent).number
            for what in self.in_hand[agent]:
                assert what.point.number > saved

    @invariant()
    def nothing_comes_twice_but_what_was_ahead(self) -> None:
        if not self.is_rewound:
            assert all(repeats <= self.AHEAD * self.deaths for repeats in self.repeats.values()), (
                self.repeats
            )
        elif not self.deaths:
            assert not any(self.repeats.values())

    # -- the end

    def quiesce(self) -> None:
        idle = 0
        for _ in range(len(self.published) * 4 + 50):
            before = (self.server, self.node.read, str(self.got), self.node.lagging)
            self.look(12)
            for agent in AGENTS:
                while self.in_hand[agent]:
                    self.handle(agent, 0, 1)
            self.save(arrives=True, answered=True)
            is_same = before == (self.server, self.node.read, str(self.got), self.node.lagging)
            idle = idle + 1 if is_same else 0
            if idle == 5:
                break
        assert self.node.lagging == frozenset()
        assert self.server.points == ()
        assert self.server.watermark.number == self.server.last.number

    def check_all_came(self) -> None:
        for agent in AGENTS:
            expected = [one.id for one in self.published if NAMED.wants(agent, one)]
            if self.is_rewound:
                assert set(expected) <= set(self.got[agent])
                continue
            missed = {
                number for gap in self.gaps[agent] for number in range(gap.first, gap.last + 1)
            }
            for number, one in enumerate(self.published, 1):
                if NAMED.wants(agent, one):
                    assert one.id in self.got[agent] or number in missed
            if not self.deaths:
                assert self.got[agent] == [one for one in expected if one in set(self.got[agent])]
                assert len(missed) == sum(gap.count for gap in self.gaps[agent])
                assert not missed & {
                    number
                    for number, one in enumerate(self.published, 1)
                    if one.id in self.got[agent]
                }


TestFollowingAgainstModel = FollowingAgainstModel.TestCase
TestFollowingAgainstModel.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
