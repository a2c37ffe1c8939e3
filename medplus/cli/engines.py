"""Choosing the engine of a sweep: its options, and what they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medplus.errors import UsageError

if TYPE_CHECKING:
    from medplus.sweep.engines import Engine

Command = TypeVar("Command", bound=Callable[..., Any])


def engine_options(command: Command) -> Command:
    """Add what says where the jobs run."""
    for option in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice(["local", "ray", "slurm"]),
                default="local",
                show_default=True,
                help="Processes on this machine, a Ray cluster, or SLURM.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(min=1),
                help="Jobs at once.  [default: one per GPU, else 1; ray, slurm: as many as fit]",
            ),
            click.option(
                "--cpus",
                type=click.IntRange(min=1),
                help="ray, slurm: cores per job.  [default: 1]",
            ),
            click.option("--gpus", type=click.FloatRange(min=0), help="ray: GPUs per job."),
            click.option(
                "--memory", type=click.FloatRange(min=0, min_open=True),
                help="ray, slurm: memory per job in GB.",
            ),
            click.option(
                "--address", help="ray: an existing cluster (host:port, or auto); else a local one."
            ),
            click.option("--partition", help="slurm: where to submit to."),
            click.option(
                "--time", "minutes", type=click.IntRange(min=1),
                help="slurm: limit of an array element in minutes; it is requeued after that.",
            ),
            click.option("--gres", help="slurm: generic resources, for example gpu:1."),
            click.option("--account", help="slurm: who pays."),
            click.option(
                "--slurm", "extra", multiple=True, metavar="KEY=VALUE",
                help="slurm: any other option of sbatch; may be repeated.",
            ),
            click.option(
                "--detach", is_flag=True,
                help="slurm: submit and return; --status tells how it stands.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


_ONLY = {
    "address": ("ray",),
    "gpus": ("ray",),
    "cpus": ("ray", "slurm"),
    "memory": ("ray", "slurm"),
    "partition": ("slurm",),
    "minutes": ("slurm",),
    "gres": ("slurm",),
    "account": ("slurm",),
    "extra": ("slurm",),
    "detach": ("slurm",),
}
"""Which engines take which flags: one that would do nothing is refused."""


def make_engine(name: str, workers: int | None, device: str, resources: dict[str, Any]) -> Engine:
    """Return the engine that the options describe.

    Raises
    ------
    UsageError
        If an option means nothing to this engine.
    """
    absent = (None, (), False)
    given = {key: value for key, value in resources.items() if not any(value is a for a in absent)}
    for key in given:
        if name not in _ONLY[key]:
            flag = {"minutes": "time", "extra": "slurm"}.get(key, key)
            raise UsageError(
                f"--{flag} means nothing to --engine {name}; it is for {' and '.join(_ONLY[key])}"
            )
    if name == "ray":
        from medplus.sweep.engines.ray import RayEngine

        return RayEngine(
            workers=workers, address=given.get("address"), cpus=given.get("cpus", 1),
            gpus=given.get("gpus"), memory_gb=given.get("memory"),
        )  # fmt: skip
    if name == "slurm":
        from medplus.sweep.engines.slurm import SlurmEngine, SlurmSettings, read_extras

        names = ("partition", "minutes", "gres", "cpus", "account")
        asked = {key: given[key] for key in names if key in given}
        settings = SlurmSettings(
            **asked, memory_gb=given.get("memory"), extras=read_extras(given.get("extra", ()))
        )
        return SlurmEngine(workers, settings, detach="detach" in given)
    from medplus.sweep.engines.local import LocalEngine

    return LocalEngine(workers, device)
