"""Backbones that a Python file defines: code of the user's own, run only when they name it.

The file has a function that returns the network and what its input is to be::

    def backbone():
        return MyNetwork(), (0.5,), (0.25,), 96   # module, mean, std, input size in pixels

It is named as ``my_backbone.py``, or ``my_backbone.py:function`` where it has several. What the
file says is part of the name in full, as a digest; so it has to stand alone, apart from installed
packages. Names are found without running anything.
"""

from __future__ import annotations

import ast
import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import BackboneInfo
from medplus.backbones.finetuned import backbone_state
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.backbones.weights_folder import is_weights_folder
from medplus.errors import BackboneError, UsageError, first_line, nearest
from medplus.preprocess import PreprocessSpec
from medplus.spec import NONE, PRETRAINED
from medplus.vocabulary import Fit

DEFAULT_FUNCTION = "backbone"
_SUFFIX = ".py"
_DIGITS = 16
_RETURNS = "(module, mean, std, input size in pixels)"


@dataclass(frozen=True)
class PythonFile:
    """A function of a Python file, as it reads now.

    Attributes
    ----------
    path : Path
    source : bytes
        The file's content.
    function : str
    is_default : bool
        Whether the function is meant where only the file is named.
    """

    path: Path
    source: bytes
    function: str
    is_default: bool

    @property
    def name(self) -> str:
        """The short name: the file's, with the function where it has to be said."""
        return self.path.name if self.is_default else f"{self.path.name}:{self.function}"

    @property
    def tag(self) -> str:
        """The full name, with the start of the SHA-256 of the file's content."""
        return f"{self.name}@{hashlib.sha256(self.source).hexdigest()[:_DIGITS]}"


def claims(name: str) -> bool:
    """Tell a Python file, with or without a function, from other names; it need not exist."""
    return _parts(name)[0].endswith(_SUFFIX)


def exists(name: str) -> bool:
    """Tell a Python file that is there from the mere name of one."""
    return claims(name) and Path(_parts(name)[0]).is_file()


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the file is: called after its name, in full after its digest; it is not run.

    Raises
    ------
    UsageError
        If there is no such file or function, or it is to have weights that are no file.
    BackboneError
        If the file is no Python.
    """
    file = find(name)
    if weights == NONE or is_weights_folder(weights):
        raise UsageError(
            f"--weights {weights} cannot go with {name}, which makes its own network; leave "
            "--weights out, or name a file of weights for it"
        )
    function = "" if file.is_default else f":{file.function}"
    spelling = f"{file.path.resolve()}{function}"
    return BackboneRef("python", spelling, file.name, file.tag, weights)


def describe(ref: BackboneRef) -> BackboneInfo:
    """Run the file, as only it knows what it makes, and return the facts of its network."""
    import torch

    file = find(ref.spelling)
    made = run(file)
    spec, side = made.preprocess, made.preprocess.canvas or 1
    try:
        with torch.no_grad():
            dim = made.module.eval()(torch.zeros(1, len(spec.mean), side, side)).shape[1]
    except Exception as error:
        raise BackboneError(
            f"the network of {file.path} does not take images of {side} px: {first_line(error)}"
        ) from error
    return BackboneInfo.of(ref, made.module, int(dim), side, spec.mean, spec.std)


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Run the file that the user named, and give its network the weights that are asked for."""
    made = run(find(ref.spelling))
    if ref.weights_from != PRETRAINED:
        state = weights_io.read_weights_file(Path(ref.weights_from))
        state = backbone_state(state) or state  # of a fine-tuned run, without its head
        expected = made.module.state_dict()
        state = weights_io.fitted_to(state, expected, ref.name, Path(ref.weights_from))
        weights_io.fill(made.module, state, ref.name, ref.weights_from)
    spec = made.preprocess
    canvas = None if fit == "native" else spec.canvas
    return replace(made, preprocess=replace(spec, fit=fit or "pad", canvas=canvas))


def find(name: str) -> PythonFile:
    """Read a file and find the function that is meant in it, without running it.

    Raises
    ------
    UsageError
        If there is no such file or function, or several could be meant.
    BackboneError
        If the file is no Python.
    """
    file, function = _parts(name)
    path = Path(file)
    try:
        source = path.read_bytes()
        tree = ast.parse(source, str(path))
    except OSError as error:
        raise UsageError(
            f"the Python file {path} cannot be read ({error.strerror}); --backbone takes "
            "FILE.py or FILE.py:FUNCTION"
        ) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise BackboneError(f"{path}{line} is no valid Python: {error}") from None
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    public = [name for name in functions if not name.startswith("_")]
    default = DEFAULT_FUNCTION if DEFAULT_FUNCTION in functions or len(public) != 1 else public[0]
    if function is None and default not in functions:
        raise UsageError(_undecided(path, public))
    chosen = function or default
    if chosen not in functions:
        raise UsageError(
            f"{path} defines no function '{chosen}'{nearest(chosen, functions)} "
            f"(there: {', '.join(functions) or 'none'})"
        )
    return PythonFile(path, source, chosen, chosen == default)


def run(file: PythonFile) -> Built:
    """Run a file and its function: what it draws is always the same, what it prints goes to stderr.

    Raises
    ------
    BackboneError
        If the file or the function fails, or returns something else.
    """
    module = ModuleType(file.tag)
    module.__file__ = str(file.path)
    sys.modules[file.tag] = module  # dataclasses and pickle look up the module of a class
    code = compile(file.source, str(file.path), "exec")
    with redirect_stdout(sys.stderr), weights_io.same_chance():
        # The user named this file to have it run; what was read is what the digest is of.
        _guarded(file, lambda: exec(code, vars(module)))  # noqa: S102 - asked for
        returned = _guarded(file, getattr(module, file.function))
    return _checked(file, returned)


def _parts(name: str) -> tuple[str, str | None]:
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(_SUFFIX) and function.isidentifier():
        return file, function
    return name, None


def _undecided(path: Path, public: Sequence[str]) -> str:
    if public:
        return (
            f"{path} defines several functions ({', '.join(public)}); say which makes the "
            f"backbone: --backbone {path}:{public[0]}"
        )
    return f"{path} defines no function; it needs one that returns {_RETURNS}"


def _guarded(file: PythonFile, call: Callable[[], Any]) -> Any:
    """Call what the user wrote, and say where it failed."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        line, trace = "", error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(file.path):
                line = f", line {trace.tb_lineno}"
            trace = trace.tb_next
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = "; the file has to stand alone, apart from installed packages"
        raise BackboneError(
            f"{file.path}{line} fails: {type(error).__name__}: {error}{hint}"
        ) from error


def _checked(file: PythonFile, returned: Any) -> Built:
    from torch import nn

    def wrong(what: str) -> BackboneError:
        return BackboneError(f"{file.function}() in {file.path} must return {_RETURNS}, but {what}")

    if not isinstance(returned, tuple | list) or len(returned) != 4:
        raise wrong(f"it returns {_kind(returned)}")
    module, mean, std, size = returned
    if not isinstance(module, nn.Module):
        raise wrong(f"the module is {_kind(module)}, not an nn.Module")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise wrong(f"the input size is {size!r}")
    mean, std = (_numbers(values) for values in (mean, std))
    if mean is None or std is None or len(mean) != len(std) or len(mean) not in (1, 3):
        raise wrong("mean and std are not one number each, or three (per channel)")
    if min(std) <= 0:
        raise wrong(f"a std is {min(std):g}")
    return Built(module, PreprocessSpec(mean, std, "pad", size, rgb=len(mean) == 3))


def _numbers(values: Any) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
