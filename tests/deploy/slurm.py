"""Slurm for real: munged, slurmctld and two slurmd on this machine, each in the foreground, in a
folder of their own.

Invariants: nothing of a Slurm that the machine may have is read or touched: configuration, key,
sockets and ports are of our own. There is one at a time on a machine: the ports of a job's Ray, and
its folder, go by the job's number, and every Slurm counts from 1.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.processes import answers, find, folder_of, running, wait_until
from tests.exclusive import exclusive
from tests.ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")

_CONF = """\
ClusterName=raysearch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5,bf_interval=5
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SlurmdTimeout=120
KillWait=5
MinJobAge=3600
JobRequeue=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=8 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=8 Gres=gpu:1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster of two nodes; each has one GPU and eight CPUs, in name."""

    environment: dict[str, str]

    def call(self, *command: str, cwd: Path | None = None, **more: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """The facts of a job."""
        text = self.call("scontrol", "show", "job", number, "--oneliner")
        return dict(word.split("=", 1) for word in text.split() if "=" in word)


@contextmanager
def slurm(logs: Path) -> Iterator[Slurm]:
    """A running cluster; gone when left."""
    user = "root" if os.geteuid() == 0 else os.environ["USER"]
    with exclusive("slurm"), folder_of(None) as folder, ExitStack() as stack:
        folder.chmod(0o755)
        ports = free_ports(3)
        named_ports = dict(zip(("port", "port1", "port2"), ports, strict=True))
        text = _CONF.format(host=socket.gethostname(), folder=folder, user=user, **named_ports)
        conf = folder / "slurm.conf"
        conf.write_text(text)
        (folder / "plugstack.conf").touch()
        (folder / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/zero\n")
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        munge = folder / "munge.socket"
        environment = {**os.environ, "SLURM_CONF": str(conf)}
        named = ["--key-file", "--pid-file", "--log-file", "--seed-file", "--socket"]
        paths = [key, folder / "munge.pid", folder / "munge.log", folder / "munge.seed", munge]
        stack.enter_context(
            running(
                [
                    _program("munged"),
                    "--foreground",
                    "--force",
                    *(f"{n}={p}" for n, p in zip(named, paths, strict=True)),
                ],
                logs / "munged.log",
                munge.exists,
            )
        )
        stack.enter_context(
            running(
                [_program("slurmctld"), "-D", "-f", str(conf)],
                logs / "slurmctld.log",
                lambda: answers(ports[0]),
                env=environment,
            )
        )
        for name, port in zip(("n1", "n2"), ports[1:], strict=True):
            (folder / f"spool-{name}").mkdir()
            stack.enter_context(
                running(
                    [_program("slurmd"), "-D", "-N", name, "-f", str(conf)],
                    logs / f"slurmd-{name}.log",
                    lambda port=port: answers(port),
                    env=environment,
                )
            )
        cluster = Slurm(environment)
        states = ("sinfo", "--noheader", "--Node", "--format=%N %T")
        wait_until(
            lambda: cluster.call(*states).split() == ["n1", "idle", "n2", "idle"],
            300,
            lambda: cluster.call(*states),
        )
        try:
            yield cluster
        finally:  # what steps have started ends with the jobs, not with the daemons
            cluster.call("scancel", "--full", "--partition=main")
            wait_until(
                lambda: not cluster.call("squeue", "--noheader"),
                300,
                lambda: cluster.call("squeue"),
            )


def _program(name: str) -> str:
    path = find(name)
    assert path is not None
    return path
