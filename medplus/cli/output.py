"""What a command says and where: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medplus.naming import printable
from medplus.progress import SAID

if TYPE_CHECKING:
    from medplus.run.record import RunRecord

_LIBRARIES = r"(torch|torchvision|timm|huggingface_hub|safetensors|zarr|medmnist)(\.|$)"
Command = TypeVar("Command", bound=Callable[..., Any])


def reporting(command: Command) -> Command:
    """Add the common options without ``--config``, for a command that has one of its own."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-v", "--verbose", count=True, show_default=False, help="Say more (-vv: most).")
    @click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @wraps(command)
    def wrapped(
        *args: Any, verbose: int, quiet: bool, debug: bool, as_json: bool, **kwargs: Any
    ) -> Any:
        _set_up_logging(verbose, quiet, debug)
        return command(*args, output=Output(as_json, quiet), **kwargs)

    return wrapped  # type: ignore[return-value]


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Once(logging.Filter):
    """Passes each message once: a command opens a dataset several times."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        known = message in self._seen
        self._seen.add(message)
        return not known


def _set_up_logging(verbose: int, quiet: bool, debug: bool) -> None:
    level = logging.ERROR if quiet else SAID
    level = {0: level, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(
        level=logging.DEBUG if debug and verbose else logging.ERROR,
        format="%(levelname)s: %(message)s",
        force=True,
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_PrintableFormatter("%(levelname)s: %(message)s"))
        handler.addFilter(_Once())
    logging.getLogger("medplus").setLevel(level)
    if not (verbose or debug):  # our own messages say what matters
        warnings.filterwarnings("ignore", module=_LIBRARIES)
    # The hub's client sets its level itself, when imported.
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")
    for chatty in ("huggingface_hub", "timm"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


class Output:
    """Where a command's output goes: results to stdout, all else to stderr.

    Attributes
    ----------
    as_json : bool
        Whether stdout is to hold one JSON document.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self._quiet = quiet

    def result(self, document: dict[str, Any], show: Callable[[], None]) -> None:
        """Print a result: the document with ``--json``, else whatever `show` prints."""
        if self.as_json:
            import json

            click.echo(json.dumps(document, indent=2))
        else:
            show()

    def records(self, records: Sequence[RunRecord]) -> None:
        """Print runs as a result: their records with ``--json``, else a table of their scores."""

        def show() -> None:
            from medplus.cli.tables import print_records

            print_records(records)

        document: dict[str, Any] = {"runs": [record.to_dict() for record in records]}
        if any(record.folds for record in records):
            from medplus.run.foldmeans import summaries

            document["folds"] = summaries(records)
        self.result(document, show)

    def note(self, text: str) -> None:
        """Say something on stderr."""
        if not self._quiet:
            click.echo(printable(text), err=True)

    @property
    def console(self) -> Any:
        """The console for what is told while work goes on, or None to tell nothing."""
        from medplus.progress import stderr_console

        return None if self._quiet else stderr_console()

    @property
    def progress(self) -> Any:
        """The progress reporter for long work."""
        from medplus.progress import on_console, silent, stderr_console

        return silent if self._quiet else on_console(stderr_console())

    @property
    def watch(self) -> Any:
        """The reporter for training."""
        from medplus.training.watch import OnConsole, Watch

        return Watch() if self._quiet else OnConsole()


def say(*lines: str) -> None:
    """Print lines of a result, in which names cannot steer the terminal."""
    for line in lines:
        click.echo(printable(line))
