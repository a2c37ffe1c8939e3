"""`medplus run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from medplus.cli import options
from medplus.cli.output import Command, Output, reporting
from medplus.reference import TrainingProcedure, run_reference
from medplus.vocabulary import PAPER_K, PAPER_SEEDS

_COUNT, _FOLDER = options.AT_LEAST_1, options.FOLDER
_KEYS: dict[str, dict[str, Any]] = {
    "data_path": {"type": _FOLDER, "default": "data",
                  "help": "Folder of the datasets' npz files."},
    "output_path": {"type": _FOLDER, "default": "runs", "help": "Root of the runs."},
    "epochs": {"type": _COUNT, "default": 100, "help": "Passes over train, at most."},
    "learning_rate": {"type": click.FloatRange(min=0, min_open=True), "default": 1e-4,
                      "help": "AdamW's learning rate."},
    "batch_size": {"type": _COUNT, "default": 64, "help": "Images per step of the training."},
    "batch_size_eval": {"type": _COUNT, "help": "Images per forward of the extraction; automatic "
                                                "if not given."},
    "device": {"default": "auto", "help": "auto, cpu, cuda or cuda:i."},
    "dataset": {"required": True, "help": "MedMNIST flag, or path of an npz file."},
    "img_size": {"type": _COUNT, "help": "28, 64, 128 or 224; an npz file of yours has its own."},
    "training_procedure": {"type": click.Choice(get_args(TrainingProcedure)), "required": True,
                           "help": "What is trained."},
    "architecture": {"required": True, "callback": options.named_code,
                     "help": "One of the paper's ten, or any timm name."},
    "k": {"type": _COUNT, "default": PAPER_K, "help": "Neighbours for kNN."},
    "seed": {"type": click.IntRange(0, 2**63 - 1), "default": PAPER_SEEDS[0],
             "help": "Seed of the training; kNN has none."},
}  # fmt: skip
"""The keys of the reference's config file, and the options that they are."""


def _with_keys(command: Command) -> Command:
    """Add a flag for every key, spelled as there or with hyphens."""
    for key, settings in reversed(_KEYS.items()):
        spellings = dict.fromkeys((f"--{key}", f"--{key.replace('_', '-')}"))
        command = click.option(*spellings, key, **settings)(command)
    return command


@click.command()
@options.config_file(
    "--config",
    "--config_file",
    "--config-file",
    text="The reference's config.yaml; flags win over it.",
    keys=_KEYS,
)
@_with_keys
@click.option(
    "--weights",
    default="pretrained",
    help="pretrained, none (random), a .safetensors or .pth file, or a folder that medplus "
    "backbones --fetch … --to wrote.",
)
@options.store_root
@options.overwrite
@reporting
def run(output: Output, store_root: Path, **given: Any) -> None:
    """Train and evaluate one run, as the paper's reference code is told to.

    Takes the reference's config file and flags unchanged, and the paper's recipe; embeddings are
    extracted where they are needed. What its numbers differ in, and why, says
    docs/coming-from-the-reference.md.
    """
    record = run_reference(store=store_root, progress=output.progress, watch=output.watch, **given)
    output.records([record])
