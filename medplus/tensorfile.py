"""Named tensors and a sealed document in one safetensors file, whole and undamaged, or refused.

Any reader of the format takes the tensors. The document lies in the file's metadata under
``medplus``, with the seal of every JSON document of medplus (`medplus.seal`), and holds the digest
of the tensors beside it. The library reads; its writer names its temporary files itself (nothing
would clean up after a kill) and makes every file private to its owner.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open

from medplus import atomic
from medplus.errors import MedplusError
from medplus.seal import seal, unseal

_DOCUMENT, _DIGEST = "medplus", "tensors"
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class DamagedFileError(MedplusError):
    """A tensor file is missing, unreadable, damaged or foreign; the caller knows the remedy."""


def is_compressed(path: Path) -> bool:
    """Tell a torch file that inflates: torch stores tensors plain, and a bomb does not."""
    if not zipfile.is_zipfile(path):
        return False  # torch's older format, or no torch file
    with zipfile.ZipFile(path) as archive:
        return any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())


def is_plain(tensor: torch.Tensor) -> bool:
    """Tell a dense tensor whose elements are all there from one that would grow when copied."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Write tensors and a document atomically; equal content gives equal bytes.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        On any device, of any shape and strides; they may share memory.
    document : mapping
        Anything that `json` can write, NaN and infinity included; floats come back exactly.

    Raises
    ------
    TypeError, KeyError
        If a value of the document, or a tensor's dtype, cannot be written.
    OSError
        If the file cannot be written; what was there before is untouched.
    """
    # Widest first, so that every tensor is aligned to its own element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    plain = {name: tensors[name].detach().to("cpu").contiguous() for name in names}
    sealed = seal({_DOCUMENT: dict(document), _DIGEST: _digest(plain)})
    text = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
    entries: dict[str, Any] = {"__metadata__": {_DOCUMENT: text}}
    end = 0
    for name, tensor in plain.items():
        begin, end = end, end + tensor.nbytes
        code = _CODES[tensor.dtype]
        entries[name] = {"dtype": code, "shape": [*tensor.shape], "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    parts = [_raw(tensor) for tensor in plain.values() if tensor.nbytes]
    atomic.write_bytes(path, len(header).to_bytes(8, "little"), header, *parts)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read and verify a whole file.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU, contiguous, by name in sorted order.
    document : dict

    Raises
    ------
    DamagedFileError
        If what it says is not what was written, or `write_tensors` has not written it.
    """
    with _reading(path) as (file, document, digest):
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if _digest(tensors) != digest:
            raise ValueError("the tensors are not those that were written")
        return tensors, document


def read_document(path: Path) -> dict[str, Any]:
    """Read and verify only the document; the tensors may be damaged all the same.

    Raises
    ------
    DamagedFileError
        If the document is damaged, or `write_tensors` has not written it.
    """
    with _reading(path) as (_, document, _):
        return document


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    hasher = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
        hasher.update(_raw(tensor))
    return hasher.hexdigest()


def _raw(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


@contextmanager
def _reading(path: Path) -> Iterator[tuple[Any, dict[str, Any], str]]:
    """Open a file, with its document and the digest that its tensors should have."""
    try:
        with safe_open(path, "pt") as file:
            sealed, intact = unseal(json.loads(file.metadata()[_DOCUMENT]))
            if not intact:
                raise ValueError("the document is not the one that was written")
            yield file, sealed[_DOCUMENT], sealed[_DIGEST]
    except FileNotFoundError:
        raise DamagedFileError(f"{path} does not exist") from None
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise DamagedFileError(
            f"{path} is damaged, cut short, or was not written by medplus"
        ) from None
