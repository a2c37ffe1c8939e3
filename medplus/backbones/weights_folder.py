"""A folder of pretrained weights to carry to machines without internet: files and a manifest.

Each backbone's weights are a safetensors file with the tensors of the whole network, at the input
size and with the classifier that it was trained with. ``manifest.json`` says by full tag which file
is whose, with its SHA-256 and its size in bytes:

``{"format": 1, "weights": {"resnet18.a1_in1k": {"file": "…", "sha256": "…", "bytes": 46807446}}}``

A model of the hub that timm does not know (``hf-hub:org/name``) is built after the ``config.json``
that lies with it. That is carried, too, in a folder beside its weights, as timm reads it from
folders; the entry then has its SHA-256 as ``config_sha256``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medplus import atomic
from medplus.errors import BackboneError, explained
from medplus.jsonfile import parse_json
from medplus.lock import hold
from medplus.naming import leads_to, safe_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

MANIFEST = "manifest.json"
CONFIG = "config.json"
FORMAT: Final = 1
_LOCK_WAIT_S = 60.0


class WeightsFile(BaseModel):
    """One file of a folder.

    Attributes
    ----------
    file : str
        Its name; always in the folder itself.
    sha256 : str
        Of its bytes, in hex.
    bytes : int
        Its size.
    config_sha256 : str or None
        Of the model's configuration, where timm has none of its own.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    # Whoever writes a manifest must not choose what else of the disk is read.
    file: Annotated[str, Field(pattern=r"^[^/\\\x00]+\.safetensors$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    config_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def config_in(self, folder: Path) -> Path:
        """Return where the model's configuration lies, if it has one."""
        return folder / f"{self.file.removesuffix('.safetensors')}-config" / CONFIG

    def files_in(self, folder: Path) -> list[Path]:
        """Return its files: the weights, and the configuration if it has one."""
        return [folder / self.file, *[self.config_in(folder)] * (self.config_sha256 is not None)]


class Manifest(BaseModel):
    """What a folder holds, by the full tags of the backbones."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = FORMAT
    weights: dict[str, WeightsFile] = {}


def is_weights_folder(weights: str) -> bool:
    """Tell a folder of weights from a file and from the words that weights may be."""
    return leads_to(Path(weights) / MANIFEST, Path.is_file)


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder holds.

    Raises
    ------
    BackboneError
        If there is no manifest, or it is damaged or of another format.
    """
    path = folder / MANIFEST
    remedy = f"write it again with: medplus backbones --fetch … --to {folder}"
    try:
        return Manifest.model_validate(parse_json(path.read_bytes()))
    except FileNotFoundError:
        raise BackboneError(
            f"the folder {folder} has no {MANIFEST}, so it is no folder of weights; {remedy}"
        ) from None
    except OSError as error:
        raise BackboneError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "document"
        raise BackboneError(f"{path} is damaged: '{place}' is invalid; {remedy}") from None
    except ValueError:
        raise BackboneError(f"{path} is damaged: it is not JSON; {remedy}") from None


def find_weights(folder: Path, tag: str) -> WeightsFile:
    """Return the entry of a backbone, whose files are there.

    Raises
    ------
    BackboneError
        If the folder has no weights for it, or a file is missing.
    """
    manifest = read_manifest(folder)
    entry = manifest.weights.get(tag)
    again = f"medplus backbones --fetch {tag} --to {folder}"
    if entry is None:
        held = ", ".join(list(manifest.weights)[:6]) or "nothing"
        more = ", …" if len(manifest.weights) > 6 else ""
        raise BackboneError(
            f"the folder {folder} has no weights of {tag} (there: {held}{more}); "
            f"add them on a machine with internet: {again}"
        )
    for path in entry.files_in(folder):
        if not path.is_file():
            raise BackboneError(
                f"{path}, which {MANIFEST} names for {tag}, is missing; carry it over, or write it "
                f"again with: {again}"
            )
    return entry


def read_folder_weights(folder: Path, tag: str) -> dict[str, torch.Tensor]:
    """Read and verify the weights of a backbone.

    Raises
    ------
    BackboneError
        As `find_weights`, or if the file is not the one that the manifest names.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    entry = find_weights(folder, tag)
    path = folder / entry.file
    _verify(path, entry.sha256, folder, tag)
    try:
        state: dict[str, torch.Tensor] = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"the weights file {path} cannot be read: {error}") from None
    return state


def find_config(weights: str, tag: str) -> Path | None:
    """Return the folder with the verified ``config.json`` of a backbone, if weights carry one.

    Raises
    ------
    BackboneError
        As `read_folder_weights`.
    """
    folder = Path(weights)
    entry = find_weights(folder, tag) if is_weights_folder(weights) else None
    if entry is None or entry.config_sha256 is None:
        return None
    path = entry.config_in(folder)
    _verify(path, entry.config_sha256, folder, tag)
    return path.parent


def _verify(path: Path, sha256: str, folder: Path, tag: str) -> None:
    with explained(BackboneError, f"{path} cannot be read"):
        found = _sha256(path)
    if found != sha256:
        raise BackboneError(
            f"{path} is not the file that {MANIFEST} names for {tag}: its SHA-256 is "
            f"{found[:12]}…, not {sha256[:12]}…; copy it again, or write it again with: "
            f"medplus backbones --fetch {tag} --to {folder}"
        )


def write_folder_weights(
    folder: Path, tag: str, state: Mapping[str, torch.Tensor], config: bytes | None = None
) -> tuple[Path, WeightsFile]:
    """Add the weights of a backbone to a folder, or replace them; return the file and its entry.

    Parameters
    ----------
    config : bytes, optional
        The ``config.json`` that the network is built after, where timm has none of its own.

    Raises
    ------
    BackboneError
        If the folder cannot be written, or its manifest is damaged.
    """
    from medplus.tensorfile import write_tensors

    path = folder / f"{safe_name(tag)}.safetensors"
    remedy = "make room there, or name another folder with --to"
    with explained(BackboneError, f"the weights of {tag} cannot be written to {folder}", remedy):
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder / ".manifest.lock", f"the folder {folder} of weights", _LOCK_WAIT_S):
            known = read_manifest(folder) if (folder / MANIFEST).exists() else Manifest()
            write_tensors(path, state, {"tag": tag})
            digest = None if config is None else hashlib.sha256(config).hexdigest()
            entry = WeightsFile(
                file=path.name, sha256=_sha256(path), bytes=path.stat().st_size,
                config_sha256=digest,
            )  # fmt: skip
            if config is not None:
                entry.config_in(folder).parent.mkdir(exist_ok=True)
                atomic.write_bytes(entry.config_in(folder), config)
            weights = dict(sorted({**known.weights, tag: entry}.items()))
            # Last: a manifest names only files that are whole.
            manifest = Manifest(weights=weights)
            atomic.write_json(
                folder / MANIFEST, manifest.model_dump(mode="json", exclude_none=True)
            )
    return path, entry


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
