"""Several parts of a program at once, each on a core of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor


def side_by_side(parts: Iterable[list[str]], jobs: int) -> None:
    """Run this program with further arguments, several times at once.

    A step of a small network keeps one core busy and most of the others waiting: two
    trainings of one core each take little longer than one that has both.

    Args:
        parts: The arguments that come after the program's own, in this order.
        jobs: How many at a time.

    Raises:
        subprocess.CalledProcessError: If one of them fails; those that run are waited
            for, and further ones do not start.
    """
    alone = {"TF_NUM_INTRAOP_THREADS": "1"}

    def run(part: list[str]) -> None:
        command = [sys.executable, *sys.argv, *part]
        subprocess.run(command, env=os.environ | alone, check=True)

    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run, part) for part in parts]
        try:
            for one in running:
                one.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
