"""timm and torchvision, imported without what of them only compilers and loggers need.

Both import torch's compiler, and timm wandb: more than half of the seconds before a first image.
timm wants them to mark functions as not to be compiled, torchvision to ask for one fact, and
neither before those functions are called; torch's compiler is imported when they are.

``from medplus.backbones.lean import timm`` imports it so wherever it comes first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_NAMES = ("timm", "torchvision")
_COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def __getattr__(name: str) -> ModuleType:
    if name not in _NAMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    if name not in sys.modules:
        try:
            with _deferred():
                import_module(name)
        except (ImportError, AttributeError):  # a version that wants more of them than we know
            pass
    return import_module(name)


@contextmanager
def _deferred() -> Iterator[None]:
    """Let modules that are imported within find stand-ins; what is imported already stays."""
    import torch

    if _COMPILER[0] in sys.modules:
        with _in_place({"wandb": None}):
            yield
        return
    disable = torch.compiler.disable
    with _in_place({"wandb": None, **{name: _StandIn(name) for name in _COMPILER}}):
        import_module("torchvision.ops.roi_align")
    torch.compiler.disable = _disable_later
    try:
        with _in_place({"wandb": None}):
            yield
    finally:
        torch.compiler.disable = disable


@contextmanager
def _in_place(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Give importers these modules, or for None the error that there is none such."""
    new = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(new)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in new:
            sys.modules.pop(name, None)


class _StandIn(ModuleType):
    """A module whose functions import the real one when they are called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def function(*arguments: Any, **options: Any) -> Any:
            module = import_module(self.__name__)
            if module is self:
                raise ImportError(f"{self.__name__} is wanted at once")
            return getattr(module, name)(*arguments, **options)

        return function


def _disable_later(fn: Any = None, recursive: bool = True, **_: Any) -> Any:
    """Do as `torch.compiler.disable`, by the way that torch itself takes to import nothing."""
    from torch._compile import _disable_dynamo

    return _disable_dynamo(fn, recursive)
