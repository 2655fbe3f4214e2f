"""A Slurm of one's own: a controller and two nodes, each a machine of `namespaces`.

    PYTHONPATH=tests python tests/cluster/slurm.py     # prints how to enter it, and runs until it is interrupted

Two traps of Slurm 22 are kept out of the way here: slurmd wants the host's /sys, and a requeued job waits for as long
as credentials live, two minutes if nothing is said.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cluster import namespaces
from cluster.namespaces import Machine, joined

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
"""Of Debian; `.ci/install-packages` installs them."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol")
ROOT = Path(__file__).parents[2]
HEAD, NODES = "ctl", ("n1", "n2")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={head}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={nodes} CPUs=2 RealMemory=4000
PartitionName=low Nodes={nodes} Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes={nodes} PriorityTier=9 PreemptMode=OFF
"""
"""`cred_expire`: seconds that a requeued job waits. `high` takes the nodes of `low`, which has `GraceTime` seconds."""


def require() -> None:
    """Skip the test where Slurm cannot be had; fail it where it must be real."""
    namespaces.require()
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    reason = f"{', '.join(absent)} not installed: run .ci/install-packages ({' '.join(PACKAGES)})"
    if absent and os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"{reason}; REQUIRE_REAL=1 asks for it")
    if absent:
        pytest.skip(reason)


class Slurm:
    """A cluster that runs."""

    def __init__(self, folder: Path, network: Mapping[str, Machine]) -> None:
        """`folder` holds its files; clients run on the controller's machine."""
        self.folder, self.network, self.head = folder, network, network[HEAD]
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> str:
        """What a command prints; it has to succeed."""
        done = subprocess.run(
            self.head.command(*command),
            cwd=ROOT,
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """Queue a job; its number. It inherits `env`."""
        return self.run("sbatch", "--parsable", *command, env=env).strip()

    def state(self, job: str) -> dict[str, str]:
        """What the controller says of a job; of an array, of its last task."""
        return dict(
            word.split("=", 1) for word in self.run("scontrol", "-o", "show", "job", job).split() if "=" in word
        )

    def wait(self, job: str, *states: str, timeout_s: float = 120) -> dict[str, str]:
        """Until a job is in one of `states`; what the controller says of it. A job that ends otherwise is a failure."""
        end_s = time.monotonic() + timeout_s
        while (known := self.state(job))["JobState"] not in states:
            told = f"job {job} is {known['JobState']} ({known['Reason']}), not {states}:\n{self.told()}"
            assert known["JobState"] not in {"FAILED", "CANCELLED", "TIMEOUT", "COMPLETED"}, told
            assert time.monotonic() < end_s, told
            time.sleep(0.2)
        return known

    def wait_for_all(self, *jobs: str, timeout_s: float = 120) -> None:
        """Until the queue is empty; none of `jobs`, and no task of an array, may have failed."""
        end_s = time.monotonic() + timeout_s
        while self.run("squeue", "-h"):
            assert time.monotonic() < end_s, self.told()
            time.sleep(0.2)
        for job in jobs:
            states = [line.split() for line in self.run("scontrol", "-o", "show", "job", job).splitlines()]
            assert all("JobState=COMPLETED" in words for words in states), self.told()

    def told(self) -> str:
        """The end of whatever jobs and servers have written."""
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in logs)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """A cluster of two idle nodes with two cores each, which keeps its files in `folder` and is gone afterwards."""
    configure(folder)
    with joined((HEAD, *NODES)) as network:
        cluster = Slurm(folder, network)
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        vouching = [f"--{flag}={folder / file}" for flag, file in files.items()]
        # `--force`: a test's folder is closed to others, which munged would stop for.
        serve(cluster, network[HEAD], "munged", "--foreground", "--force", *vouching)
        serve(cluster, network[HEAD], "slurmctld", "-D")
        for node in NODES:
            serve(cluster, network[node], "slurmd", "-D", "-N", node)
        wait_for_nodes(cluster, [server for machine in network.values() for server in machine.started])
        yield cluster


def configure(folder: Path) -> None:
    """Everything that the servers must find before they start."""
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, head=HEAD, nodes=",".join(NODES)))


def serve(cluster: Slurm, machine: Machine, *command: str) -> None:
    """Start a server, which stays in the foreground and ends with its machine."""
    with (cluster.folder / f"{machine.name}-{command[0]}.out").open("wb") as out:
        machine.start(*command, env=cluster.environment, cwd=cluster.folder, stdout=out, stderr=out)


def wait_for_nodes(cluster: Slurm, servers: list["subprocess.Popen[Any]"]) -> None:
    """Until both nodes are idle."""
    end_s = time.monotonic() + 60
    while True:
        ended = [server.args for server in servers if server.poll() is not None]
        assert not ended, f"{ended}: {cluster.told()}"
        with contextlib.suppress(AssertionError):
            if cluster.run("sinfo", "-h", "-p", "low", "-o", "%t %D").split() == ["idle", str(len(NODES))]:
                return
        assert time.monotonic() < end_s, cluster.told()
        time.sleep(0.1)


def main() -> None:
    """Run until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, running(Path(folder)) as cluster:
        print(f"SLURM_CONF={folder}/slurm.conf", shlex.join(cluster.head.command("bash")), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
