from __future__ import annotations

import random
from collections import Counter
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from actorbus.registry.entry import AgentStatus
from actorbus.registry.selection import PowerOfTwo, gone, weight
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable


def live(weigh: Callable[[str], int], seed: int = 1) -> PowerOfTwo[str]:
    return PowerOfTwo(weigh, random.Random(seed), load_age=0.0, now=ManualClock().now)


def test_statuses_weigh_more_than_any_load_in_this_order() -> None:
    best_first = [
        weight(AgentStatus.IDLE, 10**12),
        weight(AgentStatus.SUSPECT, 0),
        weight(AgentStatus.PARKED, 0),
        weight(AgentStatus.DEAD, 0),
    ]

    assert all(lighter < heavier for lighter, heavier in pairwise(best_first))
    assert weight(AgentStatus.STARTING, 3) == weight(AgentStatus.BUSY, 3) == 3


@pytest.mark.parametrize("status", AgentStatus)
def test_only_the_stopped_and_the_dead_are_gone(status: AgentStatus) -> None:
    assert gone(status) is (status in {AgentStatus.STOPPED, AgentStatus.DEAD})


def test_a_status_of_a_newer_node_is_a_second_choice_but_not_gone() -> None:
    hibernating = AgentStatus("hibernating")

    assert weight(AgentStatus.BUSY, 99) < weight(hibernating, 0) < weight(AgentStatus.PARKED, 0)
    assert not gone(hibernating)


def test_nobody_is_chosen_from_nobody() -> None:
    assert live(lambda _: 0).choose([]) is None


def test_the_only_candidate_is_chosen_whatever_its_load() -> None:
    assert live(lambda _: 99).choose(["one"]) == "one"


def test_of_two_the_lighter_one_is_chosen_always() -> None:
    loads = {"light": 1, "heavy": 2}
    selection = live(loads.__getitem__)

    assert {selection.choose(["heavy", "light"]) for _ in range(100)} == {"light"}


def test_candidates_of_equal_load_share_the_work() -> None:
    selection = live(lambda _: 0)

    chosen = Counter(selection.choose(list("abcde")) for _ in range(5_000))

    assert set(chosen) == set("abcde")
    assert max(chosen.values()) < 1_150


def test_the_heaviest_is_never_chosen_while_there_is_another() -> None:
    loads = {"a": 0, "b": 1, "c": 2, "heaviest": 3}
    selection = live(loads.__getitem__)

    chosen = {selection.choose(list(loads)) for _ in range(500)}

    assert chosen == {"a", "b", "c"}


def test_the_same_seed_makes_the_same_choices() -> None:
    def choices() -> list[str | None]:
        selection = live(lambda _: 0, seed=7)
        return [selection.choose(list("abcdefgh")) for _ in range(50)]

    assert choices() == choices()


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({"a": "idle", "b": "suspect", "c": "parked", "d": "dead", "e": "stopped"}, {"a"}),
        ({"b": "suspect", "c": "parked", "d": "dead", "e": "stopped"}, {"b"}),
        ({"b": "suspect", "f": "suspect", "c": "parked"}, {"b", "f"}),
        ({"c": "parked", "d": "dead", "e": "stopped"}, {"c"}),
        ({"d": "dead", "e": "stopped"}, {None}),
    ],
)
def test_a_lower_tier_is_chosen_only_where_no_better_one_is_left(
    statuses: dict[str, str], expected: set[str | None]
) -> None:
    selection = live(lambda name: weight(AgentStatus(statuses[name]), 0))

    assert {selection.choose(list(statuses)) for _ in range(100)} == expected


def test_one_usable_candidate_among_a_thousand_is_found() -> None:
    selection = live(lambda name: weight(AgentStatus("idle" if name == "777" else "parked"), 5))

    assert selection.choose([str(number) for number in range(1_000)]) == "777"


def test_what_was_sent_counts_until_a_report_must_include_it() -> None:
    clock = ManualClock()
    reported = {"light": 0, "heavy": 5}
    selection: PowerOfTwo[str] = PowerOfTwo(
        reported.__getitem__, random.Random(1), load_age=1.0, now=clock.now
    )

    first_second = Counter(selection.choose(list(reported)) for _ in range(21))
    clock.advance(1.0)
    next_second = Counter(selection.choose(list(reported)) for _ in range(5))

    assert first_second == {"light": 13, "heavy": 8}
    assert next_second == {"light": 5}


def test_live_loads_stay_even_where_chance_alone_does_not() -> None:
    agents = [str(number) for number in range(1_000)]
    loads = dict.fromkeys(agents, 0)
    chance = Counter(random.Random(3).choices(agents, k=10_000))
    selection = live(loads.__getitem__, seed=3)

    for _ in range(10_000):
        chosen = selection.choose(agents)
        assert chosen is not None
        loads[chosen] += 1

    assert max(loads.values()) / 10 < 1.3
    assert max(chance.values()) / 10 > 1.8


def test_on_loads_a_tenth_of_a_second_old_the_wait_is_half_of_what_chance_makes_it() -> None:
    by_chance = mean_wait(0.1, lambda draw, load, now: draw.choice)
    power_of_two = mean_wait(
        0.1, lambda draw, load, now: PowerOfTwo(load, draw, load_age=0.1, now=now).choose
    )

    assert power_of_two < 0.55 * by_chance


def test_on_loads_a_second_old_it_does_not_herd_as_the_literal_minimum_does() -> None:
    literal = mean_wait(1.0, lambda draw, load, now: partial(min, key=load))
    without_increments = mean_wait(
        1.0, lambda draw, load, now: PowerOfTwo(load, draw, load_age=0.0, now=now).choose
    )
    power_of_two = mean_wait(
        1.0, lambda draw, load, now: PowerOfTwo(load, draw, load_age=1.0, now=now).choose
    )

    assert power_of_two < without_increments
    assert literal > 100 * power_of_two


def mean_wait(
    every: float,
    policy: Callable[
        [random.Random, Callable[[int], int], Callable[[], float]], Callable[..., int | None]
    ],
) -> float:
    """Mean seconds to an answer: 100 agents of 50 ms a message at 80 % load, ten senders.

    What the senders know of the loads is reported `every` so many seconds.
    """
    draw = random.Random(11)
    now = 0.0
    free_at = [0.0] * 100
    reported = [0] * 100
    senders = [policy(draw, reported.__getitem__, lambda: now) for _ in range(10)]
    total, sent, next_report = 0.0, 32_000, every
    for _ in range(sent):
        now += draw.expovariate(1_600)
        if now >= next_report:
            next_report += every
            reported[:] = [max(0, round((free - now) / 0.05)) for free in free_at]
        chosen = draw.choice(senders)(range(100))
        assert chosen is not None
        free_at[chosen] = max(free_at[chosen], now) + draw.expovariate(20)
        total += free_at[chosen] - now
    return total / sent
