"""Files of torch: tensors, and nothing that is more than those."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medplus.errors import UsageError, first_line

TORCH = (".pt", ".pth")


def load_torch(path: Path) -> Any:
    """Return what a file of torch holds, mapped where that can be; never more than tensors.

    Raises
    ------
    UsageError
        If it cannot be read, or is a pickle of something else.
    """
    import torch

    from medplus.tensorfile import is_compressed

    if is_compressed(path):
        raise UsageError(f"{path} is compressed, as torch's files are not; save it again")
    for mapped in (True, False):  # files of old versions cannot be mapped
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            return _plain_tensors(path, found)
        except UsageError:
            raise
        except pickle.UnpicklingError:
            raise UsageError(
                f"{path} holds more than tensors (a pickle), which medplus never loads; save the "
                "plain tensors, or a dict of them"
            ) from None
        except Exception as error:
            if not mapped:
                raise UsageError(
                    f"{path} is no file of torch that can be read: {first_line(error)}"
                ) from None
    raise AssertionError  # pragma: no cover


def _plain_tensors(path: Path, found: Any) -> Any:
    """Refuse tensors that are sparse, quantised, or larger than their own bytes."""
    from medplus.tensorfile import is_plain

    values = found.values() if isinstance(found, dict) else found
    if not isinstance(values, Iterable) or hasattr(values, "ndim"):
        values = [found]
    for value in values:
        for tensor in value if isinstance(value, list | tuple) else [value]:
            if hasattr(tensor, "untyped_storage") and not is_plain(tensor):
                raise UsageError(f"{path} holds a tensor that is not plain; save it with .clone()")
    return found
