"""Choosing the engine of a sweep: its options, and what they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from medplus.cli.options import AT_LEAST_1, together
from medplus.errors import UsageError

if TYPE_CHECKING:
    from medplus.sweep.engines import Engine


def _sbatch(text: str) -> tuple[str, str]:
    """Return the name and the value of an option of sbatch, with or without its dashes."""
    key, equals, value = text.lstrip("-").partition("=")
    if not (key and equals):
        raise click.BadParameter(f"'{text}': an option for sbatch is written as KEY=VALUE")
    return key, value


_RESOURCES: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "cpus": (("ray", "slurm"), "cores per worker.  [default: 1]", {"type": AT_LEAST_1}),
    "gpus": (("ray",), "GPUs per worker.", {"type": click.FloatRange(min=0)}),
    "memory": (
        ("ray", "slurm"), "memory per worker in GB.",
        {"type": click.FloatRange(min=0, min_open=True)},
    ),
    "address": (("ray",), "an existing cluster (host:port, or auto); else a local one.", {}),
    "partition": (("slurm",), "where to submit to.", {}),
    "time": (
        ("slurm",), "limit of an array element in minutes; it is requeued after that.",
        {"type": AT_LEAST_1},
    ),
    "gres": (("slurm",), "generic resources, for example gpu:1.", {}),
    "account": (("slurm",), "who pays.", {}),
    "slurm": (
        ("slurm",), "any other option of sbatch; may be repeated.",
        {"multiple": True, "type": _sbatch, "metavar": "KEY=VALUE"},
    ),
    "detach": (
        ("slurm",), "submit and return; --status tells how it stands.", {"is_flag": True}
    ),
}  # fmt: skip
"""Per flag: the engines that take it (any other refuses it), what it does, its option."""

engine_options = together(
    click.option(
        "--engine",
        type=click.Choice(["local", "ray", "slurm"]),
        default="local",
        help="Processes on this machine, a Ray cluster, or SLURM.",
    ),
    click.option(
        "--workers",
        type=AT_LEAST_1,
        help="How many.  [default: one per GPU, else 1; ray, slurm: as many as fit]",
    ),
    *(
        click.option(f"--{flag}", help=f"{', '.join(engines)}: {text}", **settings)
        for flag, (engines, text, settings) in _RESOURCES.items()
    ),
)
"""The options that say where the workers run."""


_SPELLED = {
    "time": "timeout_min",
    "cpus": "cpus_per_task",
    "memory": "mem_gb",
    **{name: f"slurm_{name}" for name in ("partition", "gres", "account")},
}
"""Flags that submitit calls otherwise."""


def make_engine(name: str, workers: int | None, device: str, resources: dict[str, Any]) -> Engine:
    """Return the engine that the options describe.

    Raises
    ------
    UsageError
        If an option means nothing to this engine.
    """
    absent = (None, (), False)
    given = {key: value for key, value in resources.items() if not any(value is a for a in absent)}
    for flag in given:
        engines, *_ = _RESOURCES[flag]
        if name not in engines:
            raise UsageError(
                f"--{flag} means nothing to --engine {name}; it is for {' and '.join(engines)}"
            )
    if name == "ray":
        from medplus.sweep.engines.ray import RayEngine

        return RayEngine(
            workers=workers, address=given.get("address"), cpus=given.get("cpus", 1),
            gpus=given.get("gpus"), memory_gb=given.get("memory"),
        )  # fmt: skip
    if name == "slurm":
        from medplus.sweep.engines.slurm import SlurmEngine

        extras = dict(given.pop("slurm", ()))
        asked = {_SPELLED.get(flag, flag): value for flag, value in given.items()}
        return SlurmEngine(workers, extras=extras, **asked)
    from medplus.sweep.engines.local import LocalEngine

    return LocalEngine(workers, device)
