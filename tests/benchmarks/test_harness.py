from __future__ import annotations

from benchmarks import workloads
from benchmarks.harness import measure, plan
from benchmarks.workload import RATE, Case, Cores, Sample, Workload


def no_work(n: int) -> Sample:
    return {"rate": float(n)}


WORKLOAD = Workload(
    name="some",
    clock="none",
    metrics=(RATE,),
    cases=(
        Case("plain", no_work, 400),
        Case("ours", no_work, 400, quick_n=10),
        Case("large", no_work, 40_000, quick_n=0),
    ),
    baseline="plain",
)


def test_every_second_repeat_runs_backwards() -> None:
    jobs = list(plan([WORKLOAD], 3, [Cores.FREE], quick=False))

    order = [[job.case for job in jobs if job.repeat == repeat] for repeat in range(3)]
    assert order == [
        ["plain", "ours", "large"],
        ["large", "ours", "plain"],
        ["plain", "ours", "large"],
    ]


def test_free_cores_and_one_core_are_measured_within_the_same_repeat() -> None:
    jobs = list(plan([WORKLOAD], 2, list(Cores), quick=False))

    halves = [(job.repeat, job.cores) for job in jobs if job.case == "plain"]
    assert halves == [(0, Cores.FREE), (0, Cores.ONE), (1, Cores.FREE), (1, Cores.ONE)]


def test_a_quick_run_is_smaller_and_leaves_out_what_is_too_large() -> None:
    jobs = list(plan([WORKLOAD], 1, [Cores.FREE], quick=True))

    assert [(job.case, job.n) for job in jobs] == [("plain", 100), ("ours", 10)]


def test_every_warm_up_is_at_least_one() -> None:
    jobs = list(plan([WORKLOAD], 1, [Cores.FREE], quick=True))

    assert [job.warm_up for job in jobs] == [10, 1]


def test_a_measurement_runs_in_a_process_of_its_own() -> None:
    [job] = [
        job
        for job in plan([workloads.load("spawn")], 1, [Cores.FREE], quick=True)
        if job.case == "object + deque"
    ]

    measurement = measure(job)

    assert measurement.error is None
    assert measurement.sample is not None
    assert measurement.sample["time"] > 0


def test_a_measurement_that_fails_says_why_and_has_no_sample() -> None:
    [job] = plan(
        [Workload("ring", "", (), [Case("square", no_work, 1)], "square")],
        1,
        [Cores.FREE],
        quick=False,
    )

    measurement = measure(job)

    assert measurement.sample is None
    assert "StopIteration" in (measurement.error or "")


def test_the_workloads_name_cases_that_exist() -> None:
    for name in workloads.NAMES:
        workload = workloads.load(name)
        cases = {case.name for case in workload.cases}

        named = {workload.baseline}
        for goal in workload.goals:
            named |= {goal.case, goal.over or goal.case, goal.minus or goal.case}

        assert workload.name == name
        assert named <= cases
        assert {goal.metric for goal in workload.goals} <= set(workload.metrics)
