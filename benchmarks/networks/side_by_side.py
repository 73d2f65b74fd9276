"""Several networks trained at once, each on a core of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# A method and a seed.
Task = tuple[str, int]


def side_by_side(
    tasks: Iterable[Task],
    file_of: Callable[[str, int], Path],
    jobs: int,
    rung: str,
) -> None:
    """Run this program for every network that is not there, to train it.

    A step of a small network keeps one core busy and most of the others waiting: two
    trainings of one core each take little longer than one that has both.

    Args:
        tasks: What to train, in this order.
        file_of: Names the file of a trained network.
        jobs: How many at a time.
        rung: Whose networks they are: the program is given its own arguments and
            `--rung RUNG --train METHOD SEED`.

    Raises:
        subprocess.CalledProcessError: If one of them fails; those that run are waited
            for, and further ones do not start.
    """
    alone = {"TF_NUM_INTRAOP_THREADS": "1"}

    def run(task: Task) -> None:
        method, seed = task
        own = ["--rung", rung, "--train", method, str(seed)]
        command = [sys.executable, *sys.argv, *own]
        subprocess.run(command, env=os.environ | alone, check=True)

    with ThreadPoolExecutor(jobs) as pool:
        missing = [task for task in tasks if not file_of(*task).exists()]
        running = [pool.submit(run, task) for task in missing]
        try:
            for one in running:
                one.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
