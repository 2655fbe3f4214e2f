"""Dask workers as Slurm jobs of their own, each of which begins when there is room for it: for a busy cluster.

    pip install '.[slurm]'
    python infra/slurm/dask_workers.py --jobs 16            # on a login node; prints the scheduler's address, and stays
    ingest build-shards ... --scheduler ADDRESS             # in another shell of that node, as often as you like

Ctrl-C ends the workers. They may come and go while a build runs; `ingest.sbatch` is simpler where nodes are free.
"""

import argparse
import contextlib
import signal
import sys

from dask_jobqueue import SLURMCluster

MEMORY = "DASK_DISTRIBUTED__WORKER__MEMORY__"
SETTINGS = [f"export {MEMORY}{{TARGET,SPILL,PAUSE}}=False {MEMORY}TERMINATE=0.95", "export OMP_NUM_THREADS=1"]
"""What `ingest --workers` sets by itself: a worker has nothing to spill, and one that pauses would wait for ever."""


def main() -> int:
    """Start the scheduler, queue the workers, and wait to be interrupted."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--jobs", type=int, required=True, help="how many")
    flags.add_argument("--cores", type=int, default=8, help="of a job, each with a worker (8)")
    flags.add_argument("--memory", default="32GB", help="of a job (32GB)")
    flags.add_argument("--hours", type=int, default=4, help="of a job; its units are then given to others (4)")
    flags.add_argument("--interface", help="network that nodes reach each other by, such as ib0 (the default route's)")
    flags.add_argument("--logs", default="runs", help="folder of what workers print (runs)")
    flags.add_argument("--sbatch", action="append", default=[], metavar="FLAG", help="--sbatch=--account=me, and again")
    asked = flags.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # closes the cluster, as Ctrl-C does
    with (
        contextlib.suppress(KeyboardInterrupt),
        SLURMCluster(
            cores=asked.cores,
            processes=asked.cores,
            memory=asked.memory,
            walltime=f"{asked.hours}:00:00",
            interface=asked.interface,
            log_directory=asked.logs,
            job_extra_directives=asked.sbatch,
            job_script_prologue=SETTINGS,
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            python=sys.executable,
        ) as cluster,
    ):
        cluster.scale(jobs=asked.jobs)
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
