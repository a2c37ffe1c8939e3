"""A SLURM cluster of one node on this machine, for the duration of one command.

Run as root, with Debian's slurmctld, slurmd, slurm-client and munge installed::

    python tests/slurm/cluster.py python -m pytest -m slurm tests/slurm

All of the cluster's files are in a folder of its own, which is removed at the end; nothing in /etc
is read or changed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
PATIENCE_S = 30.0

CONFIGURATION = """
ClusterName=medplus-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=3000
SchedulerParameters=sched_interval=2,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
ReturnToService=2
KillWait=5
MinJobAge=10
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=NO
"""


def missing() -> list[str]:
    """Return the programs that are not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run a cluster whose files are in `folder`; yield the environment that its commands need."""
    environment = dict(os.environ, SLURM_CONF=str(folder / "slurm.conf"))
    environment["PATH"] += ":/usr/sbin:/sbin"
    _configure(folder)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (_munged(folder / "munge"), ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("wb") as out:
                daemons.append(
                    subprocess.Popen(
                        command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                        start_new_session=True,
                    )
                )  # fmt: skip
            if command[0] == "munged":
                _wait_for((folder / "munge" / "socket").exists, folder)
        _wait_for(lambda: _node_is_ready(environment), folder)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _configure(folder: Path) -> None:
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    text = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        controller_port=_free_port(),
        node_port=_free_port(),
    )
    (folder / "slurm.conf").write_text(text)


def _munged(folder: Path) -> list[str]:
    # --force, since the folder lies in one that others may write to.
    files = {
        "socket": "socket",
        "key-file": "key",
        "pid-file": "pid",
        "log-file": "log",
        "seed-file": "seed",
    }
    options = [f"--{option}={folder / name}" for option, name in files.items()]
    return ["munged", "--foreground", "--force", *options]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _node_is_ready(environment: dict[str, str]) -> bool:
    command = ["sinfo", "--noheader", "--format=%T"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return answer.stdout.strip() == "idle"


def _wait_for(ready: object, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():  # type: ignore[operator]
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"--- {path}\n{path.read_text(errors='replace')[-2000:]}"
                for path in [*folder.glob("*.out"), *folder.glob("*.log")]
            )
            raise SystemExit(f"SLURM did not start in {PATIENCE_S:.0f} s\n{logs}")
        time.sleep(0.2)


def main() -> int:
    """Run the command that is given with a cluster around it; return its exit code."""
    if absent := missing():
        print(f"{', '.join(absent)} not found; try: apt-get install slurmctld slurmd munge")
        return 1
    with tempfile.TemporaryDirectory(prefix="medplus-slurm-") as folder:
        Path(folder).chmod(0o755)
        with cluster(Path(folder)) as environment:
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
