"""What options make of their values: commas, repeats, `all`, sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from medplus.cli import options
from medplus.cli.options import Comma, several
from medplus.cli.output import Output
from medplus.errors import UsageError


def parse(*arguments: str, of: click.ParamType = click.INT, **settings: object) -> object:
    """Return the value of ``--n`` after parsing."""
    command = click.Command("c", params=[], callback=lambda n: n)
    command = click.command()(several("--n", of=of, **settings)(lambda n: n))
    return command.main(list(arguments), standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--n", "1"], (1,)),
        (["--n", "1,5,11"], (1, 5, 11)),
        (["--n", "1, 5"], (1, 5)),
        (["--n", "1", "--n", "5"], (1, 5)),
        (["--n", "1,5", "--n", "5,2"], (1, 5, 2)),
        ([], None),
    ],
)
def test_several(arguments: list[str], value: tuple[int, ...] | None) -> None:
    assert parse(*arguments) == value


def test_several_with_a_default() -> None:
    assert parse(default=["3,4"]) == (3, 4)
    assert parse("--n", "5", default=["3"]) == (5,)


@pytest.mark.parametrize("text", ["", ",", "1,", ",1", "1,,2", " "])
def test_empty_parts_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="empty part"):
        parse("--n", text)


def test_each_part_is_checked() -> None:
    with pytest.raises(click.BadParameter, match="'x'"):
        parse("--n", "1,x")
    with pytest.raises(click.BadParameter, match=r"^0 "):
        parse("--n", "1,0", of=click.IntRange(min=1))


def test_the_name_of_a_file_may_have_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b.npz").touch()

    assert parse("--n", "a,b.npz", of=click.STRING) == ("a,b.npz",)
    assert parse("--n", "a,c.npz", of=click.STRING) == ("a", "c.npz")


def test_help_shows_that_commas_are_taken() -> None:
    assert Comma(click.STRING).name == "text[,…]"
    assert Comma(click.IntRange(min=1)).name == "integer[,…]"


def sizes(*arguments: str) -> object:
    command = click.command()(options.pixel_sizes(lambda sizes: sizes))
    return command.main(list(arguments), standalone_mode=False)


def test_sizes() -> None:
    assert sizes() == (28,)
    assert sizes("--size", "all") == (28, 64, 128, 224)
    assert sizes("--size", "64,all") == (64, 28, 128, 224)
    assert sizes("--size", "17") == (17,)


@pytest.mark.parametrize("text", ["0", "-1", "x", "28px", "²", "1.5"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        sizes(f"--size={text}")


def test_result_is_shown_or_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    Output(as_json=False, quiet=False).result({"a": 1}, lambda: shown.append("table"))
    Output(as_json=True, quiet=False).result({"a": "★"}, lambda: shown.append("again"))

    assert shown == ["table"]
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": "★"}
    assert printed.isascii()  # whatever a pipe's encoding, it is JSON's


def test_notes_are_for_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False, quiet=False).note("hello")
    Output(as_json=False, quiet=True).note("silence")

    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


@pytest.mark.parametrize(
    ("variable", "command", "says"),
    [
        (
            "MEDPLUS_DATA_ROOT",
            "extract --dataset breastmnist --backbone pixels",
            "here/breastmnist.npz does not exist",
        ),
        ("MEDPLUS_STORE", "knn --dataset breastmnist --backbone pixels", "no folder here"),
    ],
)
def test_folders_from_the_environment(
    variable: str, command: str, says: str, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "here")

    assert says in cli(*command.split()).err
    flag = "--data-root" if variable.endswith("ROOT") else "--store"
    assert "there" in cli(*command.split(), flag, "there").err
    assert variable in cli(command.partition(" ")[0], "--help").out
