"""How a benchmark starts a command in several processes that share its work."""

import os
import sys

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""That this process may use: `taskset` leaves the others to something else."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""What the environment of such processes has besides: threads that share a core wait for each other."""


def torchrun(count: int = CORES) -> list[str]:
    """The beginning of a command line, up to the script or `-m MODULE`."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
