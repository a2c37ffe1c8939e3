"""The `medplus` group: commands are imported only when they are used."""

from __future__ import annotations

import gc
import importlib
import io
import logging
import os
import re
import sys
from functools import partial

import click

from medplus._version import __version__
from medplus.cli.threads import share_busy_machine
from medplus.errors import MedplusError, UsageError, nearest
from medplus.interrupts import Interrupts
from medplus.memory import ran_out
from medplus.naming import printable

_COMMANDS = {
    "quickstart": "The whole way on synthetic data: extract, knn, probe, finetune; no download.",
    "compare": "From data to a verdict: which backbone, at which size, how sure, at what cost.",
    "download": "Fetch the official files, or list and verify them.",
    "datasets": "List the datasets: task, licence, counts, what is on disk.",
    "backbones": "List backbones: full tag, dimension, parameters, preprocessing.",
    "phantom": "Write synthetic stand-ins for the datasets.",
    "extract": "Run frozen backbones once and fill embedding stores.",
    "knn": "Score k-nearest neighbours on stored embeddings.",
    "probe": "Train and score linear probes on stored embeddings.",
    "curve": "Tell how many labels are enough: heads on few images of each class.",
    "finetune": "Train whole networks end to end; resumable.",
    "sweep": "Run a whole grid, on this machine or a cluster; goes on where it stopped.",
    "evaluate": "Score a saved network or head again, or on other data.",
    "predict": "Predict new images with a saved run: files, folders, npz, DICOM.",
    "run": "The reference code's config file and flags, one run: train and evaluate.",
    "audit": "Leaks, twins, doubtful labels, outliers and shortcuts in the data.",
    "explore": "A map of the images on one page: neighbours, predictions, mistakes; offline.",
    "robust": "Score heads and networks on corrupted test images: what breaks them?",
    "report": "Tables, figures, tests and one page, beside the paper's numbers.",
    "package": "A run as one model that needs medplus no more, with a card.",
    "panel": "What a clinician asks of a run: sensitivity, curves, calibration, groups, mistakes.",
    "store": "Look after stores: ls, info, verify, export, import, rm.",
    "doctor": "Tell what is wrong with an installation, its data, stores and runs.",
}
"""Name and one-line help of every command, in the order of use; `--help` imports none of them."""


_OBJECTS = 20_000
"""New objects after which garbage is looked for, not 700: torch and timm are 400,000, and going
through them again and again, all in vain, took an eighth of the seconds before a first image."""


class LazyGroup(click.Group):
    """A group whose commands live in `medplus.cli.<name>` and are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command's module and return the command."""
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"medplus.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command '{args[0]}'{nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="medplus")
def medplus() -> None:
    """Prototype image models on medical data through an embedding store.

    \b
    medplus extract   runs each frozen backbone once and stores its embeddings;
    medplus knn       and
    medplus probe     score them in seconds;
    medplus finetune  trains whole networks end to end;
    medplus report    tells what came of it.

    New here? `medplus quickstart` shows all of it on synthetic data.
    """  # noqa: D301 - click wants the control character


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    args = [_at_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    debug = "--debug" in args
    fail = partial(_fail, "--json" in args)
    _never_fail_to_print()
    gc.set_threshold(_OBJECTS)
    share_busy_machine()
    try:
        _check_utf8(args)
        # Without its standalone mode, click returns the code of `--help` or `Exit`.
        with Interrupts(wait=False):
            returned = medplus(args, prog_name="medplus", standalone_mode=False)
        code = returned if isinstance(returned, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:  # its text is the help
        click.echo(error.format_message(), err=True)
        code = error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "medplus"
        hint = f"{command} --help explains its options." if error.exit_code == 2 else ""
        code = fail(error.format_message(), error.exit_code, type(error).__name__, hint)
    except (KeyboardInterrupt, click.Abort):
        text = "finished work is kept; the same command goes on"
        code = fail(text, 130, "Interrupted", word="Interrupted")
    except BrokenPipeError:
        # The reader of a pipe has left; there is no one to tell, and Python must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except MedplusError as error:
        if debug:
            logging.getLogger("medplus").error("traceback", exc_info=True)
        code = fail(str(error), error.exit_code, type(error).__name__)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error} (--debug shows what was being done)"
        code = fail(message, 1, type(error).__name__)
    except Exception as error:
        if debug:
            raise
        message = f"{type(error).__name__}: {error} (a bug, or a fault of this machine; "
        if ran_out(error):
            message = "memory ran out; use a machine, container or limit (ulimit) with more ("
        code = fail(f"{message}--debug shows where)", 1, type(error).__name__)
    sys.exit(code)


def _at_home(word: str) -> str:
    """Expand ``~`` where the shell has not: in quotes, after a comma or an equals sign."""
    home = os.path.expanduser("~")  # noqa: PTH111 - which Path.home() refuses where there is none
    return re.sub(r"(^|[=,])~(?=/|$)", lambda match: match[1] + home, word)


def _never_fail_to_print() -> None:
    """Let streams that cannot hold a character, such as ASCII ones, show a stand-in for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_utf8(args: list[str]) -> None:
    """Refuse names that no record could hold: the file system allows any bytes, JSON does not."""
    for text in args:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{text!a} is not valid UTF-8; rename the file or folder") from None


def _fail(
    as_json: bool, message: str, code: int, kind: str, hint: str = "", word: str = "Error"
) -> int:
    """Tell of a failure, on stderr and with ``--json`` as a document on stdout; return the code."""
    click.echo(printable(f"{word}: {message}"), err=True)
    if hint:
        click.echo(hint, err=True)
    if as_json:
        import json

        click.echo(json.dumps({"error": {"type": kind, "message": message}}))
    return code
