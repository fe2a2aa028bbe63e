from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

import pytest

from benchmarks.scaling import Curve, Point, svg
from benchmarks.simulation import main, queues, waits

if TYPE_CHECKING:
    import random


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_waits_at_an_exponential_server_are_those_of_the_formula(load: float) -> None:
    def exponential(chance: random.Random) -> float:
        return chance.expovariate(1.0)

    found = waits(load, exponential, 200_000)

    assert found.mean == pytest.approx(load / (1 - load), rel=0.1)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_a_steady_server_makes_wait_half_as_long(load: float) -> None:
    found = waits(load, lambda _: 1.0, 200_000)

    assert found.mean == pytest.approx(load / (1 - load) / 2, rel=0.1)


def test_the_better_of_two_waits_far_less_than_chance() -> None:
    by_chance = queues(1, refreshed=1, n=20_000)
    of_two = queues(2, refreshed=1, n=20_000)

    assert of_two.mean < by_chance.mean / 3


def test_the_same_seed_gives_the_same_figures() -> None:
    assert queues(2, refreshed=100, n=1_000) == queues(2, refreshed=100, n=1_000)


def test_a_curve_is_drawn_with_a_bar_for_each_point() -> None:
    curve = Curve("size", "bytes", [Point(1, 1.0, 2.0), Point(10, 1, 4)])

    drawn = Xml.fromstring(svg(curve))  # noqa: S314 - made a line above

    tall = [float(bar.attrib["height"]) for bar in drawn if bar.tag.endswith("rect")]
    assert tall[1] == pytest.approx(2 * tall[0])


@pytest.mark.parametrize("service", ["0", "-1", "nan", "inf", "soon"])
def test_what_is_no_time_of_a_message_is_refused(
    service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--service", service])

    assert ended.value.code == 2
    assert "no time of a message" in capsys.readouterr().err
