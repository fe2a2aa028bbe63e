from __future__ import annotations

import pytest

from benchmarks.harness import Job, Measurement
from benchmarks.results import Judged, Key, Summary, Verdict, judge, summarize
from benchmarks.workload import RATE, Bound, Case, Cores, Goal, Sample, Workload, everywhere


def measured(case: str, figure: float | None, cores: Cores = Cores.FREE) -> Measurement:
    job = Job("some", case, cores, 0, 1, 1)
    sample = None if figure is None else {"rate": figure}
    return Measurement(job, sample, None if sample else "broken", 1.0, 0.0)


def verdict_of(goal: Goal, *measurements: Measurement) -> Judged:
    [judged] = judge([workload(goal)], measurements, [Cores.FREE])
    return judged


def workload(*goals: Goal) -> Workload:
    def no_work(n: int) -> Sample:
        return {}

    cases = [Case("ours", no_work, 1), Case("plain", no_work, 1)]
    return Workload("some", "", (RATE,), cases, "plain", goals)


def test_the_median_is_shown_with_the_lowest_and_the_highest() -> None:
    summaries = summarize(measured("ours", figure) for figure in (30.0, 10.0, 20.0))

    assert summaries == {Key("some", "ours", Cores.FREE, "rate"): Summary(20.0, 10.0, 30.0, 3)}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (2.9, Verdict.NOT_MET),
        (3.0, Verdict.MUST_MET),
        (4.9, Verdict.MUST_MET),
        (5.0, Verdict.AIM_MET),
    ],
)
def test_a_ratio_is_held_to_what_it_must_reach_and_what_it_aims_for(
    ours: float, verdict: Verdict
) -> None:
    goal = Goal("ours", RATE, must=everywhere(3.0), aim=everywhere(5.0), over="plain")

    judged = verdict_of(goal, measured("ours", ours * 7), measured("plain", 7.0))

    assert judged.verdict is verdict


@pytest.mark.parametrize(("ours", "verdict"), [(13.0, Verdict.MUST_MET), (13.1, Verdict.NOT_MET)])
def test_a_difference_may_be_bounded_from_above(ours: float, verdict: Verdict) -> None:
    goal = Goal("ours", RATE, must=everywhere(3.0), minus="plain", at_most=True)

    judged = verdict_of(goal, measured("ours", ours), measured("plain", 10.0))

    assert judged.verdict is verdict


def test_an_aim_alone_can_be_missed_but_not_failed() -> None:
    judged = verdict_of(Goal("ours", RATE, aim=everywhere(3.0)), measured("ours", 2.0))

    assert judged.verdict is Verdict.AIM_MISSED


@pytest.mark.parametrize(("ours", "plain"), [(None, 1.0), (1.0, None)])
def test_a_goal_is_not_judged_on_what_could_not_be_measured(
    ours: float | None, plain: float | None
) -> None:
    goal = Goal("ours", RATE, must=everywhere(3.0), over="plain")

    judged = verdict_of(goal, measured("ours", ours), measured("plain", plain))

    assert judged.verdict is Verdict.NOT_MEASURED


def test_a_goal_is_judged_only_where_it_names_a_bound() -> None:
    goal = Goal("ours", RATE, must=Bound(free=3.0))
    measurements = [measured("ours", 4.0, cores) for cores in Cores]

    judged = judge([workload(goal)], measurements, list(Cores))

    assert [one.cores for one in judged] == [Cores.FREE]


def test_a_goal_whose_case_was_left_out_is_left_out_too() -> None:
    judged = judge([workload(Goal("ours", RATE, must=everywhere(3.0)))], [], [Cores.FREE])

    assert judged == []
