"""The process of one measurement. Prints its sample as JSON on the last line of stdout."""

from __future__ import annotations

import gc
import json
import sys

from benchmarks import workloads
from benchmarks.machine import pin_to_one_core
from benchmarks.workload import Cores


def main(workload: str, case: str, n: str, warm_up: str, cores: str) -> None:
    if Cores(cores) is Cores.ONE:
        pin_to_one_core()
    run = workloads.load(workload).case(case).run
    if int(warm_up):
        run(int(warm_up))
    gc.collect()
    sample = run(int(n))
    print(json.dumps(sample))


if __name__ == "__main__":
    main(*sys.argv[1:])
