"""`medplus run`."""

from __future__ import annotations

from pathlib import Path

import click

from medplus.cli import options
from medplus.cli.options import Command, Output
from medplus.reference import ReferenceConfig, read_reference, run_reference


def _reference_options(command: Command) -> Command:
    """Add a flag for every key of the reference's config file, spelled as there or with hyphens."""
    for name, field in reversed(ReferenceConfig.model_fields.items()):
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        default = "" if field.is_required() or field.default is None else field.default
        shown = f"  [default: {default}]" if default else ""
        # Values are checked with the file's, by the same rules and in the same words.
        command = click.option(
            *spellings, name, metavar="VALUE", help=f"{field.description}{shown}"
        )(command)
    return command


@click.command()
@click.option(
    "--config",
    "--config_file",
    "--config-file",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The reference's config.yaml; flags win over it.",
)
@_reference_options
@click.option(
    "--weights",
    default="pretrained",
    show_default=True,
    help="pretrained, none (random), a .safetensors or .pth file, or a folder that medplus "
    "backbones --fetch … --to wrote.",
)
@options.store_root
@click.option("--overwrite", is_flag=True, help="Do the run again if it exists.")
@options.reporting
def run(
    output: Output,
    config_file: Path | None,
    weights: str,
    store_root: Path,
    overwrite: bool,
    **flags: str | None,
) -> None:
    """Train and evaluate one run, as the paper's reference code is told to.

    Takes the reference's config file and flags unchanged, and the paper's recipe; embeddings are
    extracted where they are needed. What its numbers differ in, and why, says
    docs/coming-from-the-reference.md.
    """
    config = read_reference(config_file, **flags)
    record = run_reference(
        config,
        store=store_root,
        weights=weights,
        overwrite=overwrite,
        progress=output.progress,
        watch=output.watch,
    )
    output.records([record])
