"""`medplus backbones`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.errors import UsageError, pip_install

if TYPE_CHECKING:
    from medplus.backbones.registry import Encoder

NOT_STATED = "not stated"
MOST_DESCRIBED = 32
"""A network is built, without memory, for every row of the table: of more, only names are told."""


@click.command()
@click.argument("names", nargs=-1, type=options.Comma(click.STRING), callback=options.flatten)
@click.option("--medical", is_flag=True, help="List the encoders that medicine uses.")
@click.option("--fetch", is_flag=True, help="Fetch the pretrained weights of those NAMED, or all.")
@click.option(
    "--to",
    type=options.FOLDER,
    metavar="DIR",
    help="With --fetch: also write them to a folder that --weights DIR takes elsewhere.",
)
@options.common
def backbones(
    output: Output, names: tuple[str, ...] | None, medical: bool, fetch: bool, to: Path | None
) -> None:
    """List backbones: the paper's ten and `pixels`, or those NAMED.

    A name is any that timm knows, with wildcards ('vit_*dino*'), or all: the paper's ten. Of more
    than 32 that match, only the names are told. Of one encoder of --medical everything is told: how
    to get it, what it has seen, what it costs.
    """
    given = names or ()
    if to is not None and not fetch:
        raise UsageError("--to goes with --fetch: medplus backbones --fetch NAME --to DIR")
    if fetch:
        _fetch(output, given, to)
    elif medical:
        _list_medical(output, given)
    elif len(given) == 1 and _is_medical(given[0]):
        _tell(output, given[0])
    else:
        _list(output, given)


def _list(output: Output, given: Sequence[str]) -> None:
    from medplus.backbones.catalog import DEMO
    from medplus.backbones.sources import PAPER, describe, expand, is_pattern
    from medplus.spec import PIXELS

    found = expand(given, most=None) or [*PAPER, *DEMO, PIXELS]
    if len(found) > MOST_DESCRIBED and any(is_pattern(name) for name in given):
        document: dict[str, Any] = {"backbones": [{"name": name} for name in found]}
        output.result(document, lambda: click.echo("\n".join(found)))
        output.note(
            f"{len(found)} backbones; where at most {MOST_DESCRIBED} match, the table tells more "
            "of each"
        )
        return
    known = [describe(name) for name in found]
    output.result({"backbones": [asdict(info) for info in known]}, lambda: _show(known))


def _is_medical(name: str) -> bool:
    from medplus.backbones.registry import encoders

    return name in encoders()


def _list_medical(output: Output, given: Sequence[str]) -> None:
    from fnmatch import fnmatchcase

    from medplus.backbones.registry import encoders

    asked = [
        encoder for encoder in encoders().values()
        if not given or any(
            word.casefold() in encoder.of or fnmatchcase(encoder.name, word) for word in given
        )
    ]  # fmt: skip
    if not asked:
        raise UsageError(
            f"no medical encoder is of '{given[0]}'; there are: {', '.join(encoders())}"
        )
    document = {"encoders": [encoder.model_dump(mode="json") for encoder in asked]}
    output.result(document, lambda: _show_medical(asked))


def _show_medical(asked: Sequence[Encoder]) -> None:
    from medplus.cli.tables import Column, make_console, print_rows

    print_rows(
        asked,
        (Column("backbone"), lambda one: one.name),
        (Column("of"), lambda one: one.of),
        (Column("dim", right=True), lambda one: one.dim),
        (Column("parameters", right=True), lambda one: _millions(one.parameters)),
        (Column("px", right=True), lambda one: one.size),
        (Column("licence", rank=1), lambda one: one.licence or NOT_STATED),
        (Column("access", rank=2), _access),
        (Column("has seen", rank=3), lambda one: ", ".join(one.overlap) or "–"),
    )
    make_console().print(
        "'has seen': datasets of MedMNIST whose sources were among its pretraining data, as far as "
        "is known. medplus backbones NAME tells more."
    )


def _millions(n: int | None) -> str:
    return f"{n / 1e6:.1f} M" if n else "–"


def _access(encoder: Encoder) -> str:
    if encoder.source == "code":
        return "own code"
    if encoder.weights.repository is None:
        return "a file"
    return "asked for" if encoder.gated else "open"


def _tell(output: Output, name: str) -> None:
    from medplus.backbones.flops import cost_of
    from medplus.backbones.registry import encoders
    from medplus.backbones.sources import resolve

    encoder = encoders()[name]
    flops = None
    if encoder.source != "code":
        flops = cost_of(resolve(name, "none")).flops
    document = {**encoder.model_dump(mode="json"), "flops": flops}
    output.result(document, lambda: _show_encoder(encoder, flops))


def _show_encoder(encoder: Encoder, flops: float | None) -> None:
    from textwrap import wrap

    from medplus.cli.tables import make_console
    from medplus.naming import in_bytes

    width = max(60, make_console().width - 15)

    def line(word: str, *told: str) -> None:
        lines = [one for text in told for one in wrap(text, width, break_on_hyphens=False,
                                                      break_long_words=False)]  # fmt: skip
        for i, text in enumerate(lines):
            click.echo(f"  {word if i == 0 else '':13}{text}")

    click.echo(f"{encoder.title} ({encoder.of}): --backbone {encoder.name}")
    line("embedding", f"{encoder.dim} dimensions ({encoder.feature}) of {encoder.size} px")
    line("images", f"mean {_numbers(encoder.mean)}, std {_numbers(encoder.std)}")
    if (n := encoder.parameters) is not None:
        line("parameters", f"{n / 1e6:.1f} M, {in_bytes(4 * n)} in memory as fp32")
    if flops:
        line("computation", f"{flops / 1e9:.1f} GFLOP per image")
    line("licence", encoder.licence or NOT_STATED)
    line("access", *_how_to_get(encoder))
    line("pretraining", encoder.pretraining)
    line("has seen", *(f"{of}: {why}" for of, why in encoder.overlap.items()))
    line("paper", encoder.paper)
    line("note", encoder.note)
    line("facts from", *encoder.sources)


def _how_to_get(encoder: Encoder) -> list[str]:
    place = f"{'ask for it at' if encoder.gated else 'open:'} {encoder.page}"
    if encoder.source == "code":
        return [place, "it needs code of its own, in a Python file (docs/backbones.md)"]
    libraries = {"open_clip": "open_clip_torch", "transformers": "transformers"}
    needs = [pip_install(libraries[encoder.source])] if encoder.source in libraries else []
    if encoder.weights.repository is None:
        return [place, *needs, "name the file with --weights FILE"]
    login = ["hf auth login"] if encoder.gated else []
    return [place, *login, *needs, f"medplus backbones --fetch {encoder.name}"]


def _fetch(output: Output, given: Sequence[str], to: Path | None) -> None:
    from medplus.backbones.fetch import fetch_weights
    from medplus.backbones.sources import expand, is_pattern

    if not given:
        raise UsageError("--fetch needs the names of backbones, or all: the paper's ten")
    patterns = [name for name in given if is_pattern(name)]
    if patterns:
        raise UsageError(
            f"--fetch takes names, not '{patterns[0]}', which may mean many gigabytes; "
            f"medplus backbones '{patterns[0]}' lists what matches"
        )
    fetched = fetch_weights(expand(given), to, lambda one: output.note(f"{one.tag} is at hand"))
    document = {"fetched": [asdict(one) for one in fetched]}
    output.result(document, lambda: _show_fetched(fetched, to))


def _show_fetched(fetched: list[Any], to: Path | None) -> None:
    from medplus.cli.tables import Column, print_rows

    carried: list[tuple[Column, Callable[[Any], str]]] = [
        (Column("MB", right=True), lambda one: f"{one.bytes / 1e6:.1f}"),
        (Column("file", rank=2), lambda one: Path(one.path).name),
    ]
    print_rows(
        fetched,
        (Column("backbone"), lambda one: one.name),
        (Column("full tag", least=22), lambda one: one.tag),
        (Column("weights' SHA-256", rank=1), lambda one: one.weights_sha256[:12]),
        *(carried if to is not None else ()),
    )
    if to is not None:
        say(f"Carry {to} over, and say --weights {to} there.")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _show(known: list[Any]) -> None:
    from medplus.cli.tables import Column, make_console, print_rows

    print_rows(
        known,
        (Column("backbone"), lambda info: info.name),
        (Column("full tag", least=22), lambda info: info.tag),
        (Column("dim", right=True), lambda info: info.dim),
        (Column("parameters", right=True), lambda info: _millions(info.n_parameters)),
        (Column("native px", right=True, rank=4), lambda info: info.native_size or "any"),
        (Column("mean", rank=2), lambda info: _numbers(info.mean)),
        (Column("std", rank=1), lambda info: _numbers(info.std)),
        (Column("licence", rank=3), lambda info: info.licence),
    )
    make_console().print(
        "dim is that of the pre-logits; for pixels, per channel of images of 28 px and above. "
        "Any other timm name works too.",
    )
