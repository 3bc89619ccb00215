"""What Ray adds to a stage, and how much sooner eight small runs are done on two workers.

    python benchmarks/sweeps.py --runs 8 --problems 24

Each run is stages 00 and 01 of the bundled model. One after the other in this process, then on Ray
with two processors; starting Ray itself is timed apart. The floor of the second is half the first,
since two processors do the same work. What Ray adds is measured where there is nothing to do: a
task for each of the same runs once they have been made.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from tempfile import mkdtemp

import ray

from r2a_utils.runs.on_ray import run_on_ray
from r2a_utils.runs.sweep import Request, plan

STAGES = ["00", "01"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--problems", type=int, default=24)
    options = parser.parse_args()
    place = Path(mkdtemp(prefix="r2a-sweeps-"))

    def requests(name: str) -> list[Request]:
        return [
            Request(
                f"{name}{seed}",
                STAGES,
                {"seed": seed, "n_problems": options.problems},
                folder=place / f"{name}{seed}",
            )
            for seed in range(options.runs)
        ]

    try:
        clock = time.perf_counter()
        for request in requests("alone"):
            request.go_on()
        alone = time.perf_counter() - clock

        clock = time.perf_counter()
        ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
        begun = time.perf_counter() - clock

        clock = time.perf_counter()
        run_on_ray([plan(request) for request in requests("ray")])
        together = time.perf_counter() - clock

        clock = time.perf_counter()
        for request in requests("ray"):
            request.go_on()
        nothing = time.perf_counter() - clock
        clock = time.perf_counter()
        run_on_ray([plan(request) for request in requests("ray")])
        nothing_on_ray = time.perf_counter() - clock
    finally:
        ray.shutdown()
        shutil.rmtree(place, ignore_errors=True)

    stages = options.runs * len(STAGES)
    print(f"| {options.runs} runs of {len(STAGES)} stages | seconds | × alone |")
    print("|---|---:|---:|")
    print(f"| one after the other | {alone:.1f} | 1.00 |")
    print(f"| on Ray, two workers | {together:.1f} | {together / alone:.2f} |")
    print(f"| floor: two at a time | {alone / 2:.1f} | 0.50 |")
    print(f"\nRay starts in {begun:.1f} s.")
    print(
        f"Nothing to do: {nothing / options.runs:.2f} s a run here, "
        f"{nothing_on_ray / options.runs:.2f} s on Ray ({stages} stages unchanged)."
    )


if __name__ == "__main__":
    main()
