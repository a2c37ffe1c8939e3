"""The group itself: help, version, unknown commands, and how every kind of failure ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from medplus import __version__
from medplus.cli.main import medplus
from medplus.errors import StoreError, UsageError

COMMANDS = medplus.list_commands(click.Context(medplus))
STORE_COMMANDS = ("ls", "info", "verify", "export", "rm")
EVERY_COMMAND = [(name,) for name in COMMANDS] + [("store", name) for name in STORE_COMMANDS]


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...], flag: str, cli: Callable) -> None:
    ran = cli(*command, flag)

    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith(f"Usage: medplus {' '.join(command)}")


def commands() -> dict[str, click.Command]:
    context = click.Context(medplus)
    found = {name: medplus.get_command(context, name) for name in COMMANDS}
    store = found.pop("store")
    assert isinstance(store, click.Group)
    return {**found, **{f"store {name}": store.commands[name] for name in STORE_COMMANDS}}  # type: ignore[dict-item]


@pytest.mark.parametrize(("name", "command"), commands().items())
def test_every_option_has_a_help_text(name: str, command: click.Command) -> None:
    bare = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]

    assert bare == []


@pytest.mark.parametrize(("name", "command"), commands().items())
def test_every_command_has_the_common_options(name: str, command: click.Command) -> None:
    options = {option for p in command.params for option in p.opts}

    config = set() if name == "sweep" else {"--config"}  # a sweep's argument is its config
    assert options >= {"--json", "-v", "-q", "--debug"} | config


def test_help_lists_every_command_and_nothing_raw(cli: Callable) -> None:
    ran = cli("--help")

    assert ran.code == 0
    assert [name for name in COMMANDS if f"\n  {name} " not in ran.out] == []
    assert "\\b" not in ran.out
    assert "\b" not in ran.out


@pytest.mark.parametrize("arguments", [["--version"], ["--version", "knn"]])
def test_version(arguments: list[str], cli: Callable) -> None:
    ran = cli(*arguments)

    assert (ran.code, ran.out) == (0, f"medplus, version {__version__}\n")


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medplus", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout == f"medplus, version {__version__}\n"


def test_nothing_asked_for_is_answered_with_help(cli: Callable) -> None:
    ran = cli()

    assert ran.code == 2
    assert ran.err.startswith("Usage: medplus ")
    assert "Error" not in ran.err


@pytest.mark.parametrize(
    ("typed", "meant"), [("xtract", "extract"), ("prob", "probe"), ("quikstart", "quickstart")]
)
def test_unknown_command_names_the_nearest(typed: str, meant: str, cli: Callable) -> None:
    ran = cli(typed, "--dataset", "x")

    assert ran.code == 2
    assert ran.err.startswith(f"Error: no command '{typed}'; did you mean '{meant}'?\n")
    assert "medplus --help" in ran.err


def test_unknown_store_command_names_the_nearest(cli: Callable) -> None:
    ran = cli("store", "verfy")

    assert ran.code == 2
    assert ran.err.startswith("Error: ")
    assert "'verify'" in ran.err
    assert "medplus store --help" in ran.err


def test_unknown_option_names_the_nearest(cli: Callable) -> None:
    ran = cli("knn", "--datset", "x")

    assert ran.code == 2
    assert "--dataset" in ran.err
    assert "medplus knn --help" in ran.err


# --- how failures end ----------------------------------------------------------------------------


@pytest.fixture
def failing(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs `medplus datasets`, which fails with the given error."""

    def run(error: BaseException, *arguments: str) -> Any:
        def fail(flag: str) -> None:
            raise error

        monkeypatch.setattr("medplus.datasets.catalog.info", fail)
        return cli("datasets", *arguments)

    return run


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (StoreError("it is gone; make it again"), 1, "Error: it is gone; make it again\n"),
        (UsageError("no such thing"), 2, "Error: no such thing\n"),
        (OSError(28, "No space left", "/data/x"), 1, "Error: /data/x: No space left"),
        (ValueError("odd"), 1, "Error: ValueError: odd (a bug, or a fault of this machine; "),
        (MemoryError(), 1, "Error: memory ran out; use a machine, container or limit"),
        (ImportError("_C.so: failed to map segment from shared object"), 1, "memory ran out; "),
        (ImportError("libx.so: cannot map zero-fill pages"), 1, "memory ran out; "),
        (RuntimeError("can't start new thread"), 1, "memory ran out; "),
        (KeyboardInterrupt(), 130, "Interrupted: finished work is kept"),
        (click.Abort(), 130, "Interrupted: "),
        (click.ClickException("odd"), 1, "Error: odd\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_code_and_message(error: Exception, code: int, says: str, failing: Callable) -> None:
    ran = failing(error)

    assert ran.code == code
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_sigterm_is_ctrl_c_and_only_while_a_command_runs(
    cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "medplus.datasets.catalog.info", lambda flag: signal.raise_signal(signal.SIGTERM)
    )
    ran = cli("datasets")

    assert (ran.code, ran.out) == (130, "")
    assert ran.err.strip().startswith("Interrupted: finished work is kept")
    assert signal.getsignal(signal.SIGTERM) is before


def test_failure_as_json_is_one_document(failing: Callable) -> None:
    ran = failing(StoreError("it is gone"), "--json")

    assert ran.document == {"error": {"type": "StoreError", "message": "it is gone"}}
    assert ran.err == "Error: it is gone\n"


def test_debug_shows_the_traceback_of_an_expected_failure(failing: Callable) -> None:
    ran = failing(StoreError("it is gone"), "--debug")

    assert "Traceback" in ran.err
    assert ran.err.endswith("Error: it is gone\n")


def test_debug_lets_a_bug_through(failing: Callable) -> None:
    with pytest.raises(ValueError, match="odd"):
        failing(ValueError("odd"), "--debug")


# --- help texts state what is so -----------------------------------------------------------------


def defaults_in_help(text: str) -> dict[str, str]:
    """Return the default that a command's help states for every option."""
    options = re.split(r"\n  (?=-)", text.partition("Options:")[2])
    stated = {}
    for option in options:
        flat = " ".join(option.split())
        name = re.search(r"--([a-z-]+)", flat)
        default = re.search(r"default: ([^\];]+?)[\];]", flat)
        if name and default:
            stated[name.group(1)] = default.group(1)
    return stated


def test_probe_states_the_recipes_defaults(cli: Callable) -> None:
    from medplus.config import PROBE_RECIPES, ProbeRecipe

    stated = defaults_in_help(cli("probe", "--help").out)
    recipe = ProbeRecipe()

    assert stated["epochs"] == str(recipe.epochs)
    assert stated["batch-size"] == str(recipe.batch_size)
    assert stated["patience"] == str(recipe.patience)
    assert (float(stated["weight-decay"]),) == recipe.weight_decay
    text = cli("probe", "--help").out
    assert f"{len(PROBE_RECIPES['grid']['lr'])} learning rates" in " ".join(text.split())


def test_knn_states_the_papers_defaults(cli: Callable) -> None:
    from medplus.config import KnnRecipe

    stated = defaults_in_help(cli("knn", "--help").out)
    recipe = KnnRecipe()

    assert (int(stated["k"]),) == recipe.k
    assert (stated["metric"], stated["vote"]) == (recipe.metric, recipe.vote)


def test_extract_states_the_python_defaults(cli: Callable) -> None:
    import inspect

    from medplus import extract

    stated = defaults_in_help(cli("extract", "--help").out)
    python = {name: p.default for name, p in inspect.signature(extract).parameters.items()}

    for name in ("device", "store"):
        assert stated[name] == python[name]
    assert stated["data-root"] == python["data_root"]


def test_quickstart_states_the_python_defaults(cli: Callable) -> None:
    from medplus.quickstart import SAMPLES

    stated = defaults_in_help(cli("quickstart", "--help").out)

    assert stated["samples"] == str(SAMPLES)
