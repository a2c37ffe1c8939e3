"""The network of a fine-tuned run: its file, what the file says of itself, and its name.

A run is named by its folder, finished or still under way, or by the network file itself. Imports
nothing heavy before a file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medplus.backbones.weights import state_sha256
from medplus.errors import BackboneError, UsageError
from medplus.naming import leads_to
from medplus.preprocess import PreprocessSpec
from medplus.vocabulary import Precision, Task

if TYPE_CHECKING:
    import torch

Content = TypeVar("Content")

NETWORK_FILE = "network.safetensors"
FORMAT: Final = 1
_PARTIAL = ".partial"
_BACKBONE = "backbone."
_DESCRIPTION = "network"
_TAKES = "--backbone takes the folder of a run of medplus finetune, or its network.safetensors"


class NetworkDescription(BaseModel):
    """What a network file says of itself: enough to build the network again and to use it.

    Attributes
    ----------
    backbone, tag : str
        Canonical name and full tag of the network that was built, as
        `medplus.backbones.build.Backbone.architecture` gives them: without runs, even where the
        weights at the start were a run's.
    weights_sha256 : str
        Digest of the backbone's weights before training.
    preprocess : dict
        The fields of `medplus.preprocess.PreprocessSpec`.
    feature : str
        Definition of the embedding, for example ``prelogits``.
    dim : int
        Number of embedding dimensions.
    dataset, size, task, classes
        What it was trained on; the head's outputs are in the order of `classes`.
    epoch : int
        The epoch whose weights these are, counted from 1.
    val_loss : float
        The mean val loss after it.
    precision : {"fp32", "bf16", "fp16"}
        Precision of the training.
    card : dict or None
        What another library than timm builds the network by, so that no hub is asked for it.
    trained_sha256 : str
        Digest of the backbone's weights in the file; `write_network` fills it in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = FORMAT
    run_id: str
    backbone: str
    tag: str
    weights_sha256: str
    preprocess: dict[str, Any]
    feature: str
    dim: int
    dataset: str
    size: int
    task: Task
    classes: tuple[str, ...]
    epoch: int
    val_loss: float
    precision: Precision
    card: dict[str, Any] | None = None
    trained_sha256: str = ""

    @property
    def name(self) -> str:
        """The short name of the run as a backbone, in paths, tables and selections."""
        return f"{self.backbone}@{self.run_id}"

    @property
    def full_tag(self) -> str:
        """The full name, with the tag of the weights that the training may have begun with."""
        return f"{self.tag}@{self.run_id}"

    @property
    def spec(self) -> PreprocessSpec:
        """How images become the network's input, as it was trained."""
        return PreprocessSpec.read(self.preprocess)

    @property
    def canvas(self) -> int:
        """Height and width in pixels of what the network was trained on."""
        return self.spec.canvas or self.size


def write_network(
    path: Path, state: Mapping[str, torch.Tensor], description: NetworkDescription
) -> None:
    """Write a network's state, ``backbone.…`` and ``head.…``, with its description, atomically."""
    from medplus.tensorfile import write_tensors

    digest = state_sha256(backbone_state(state))
    described = description.model_copy(update={"trained_sha256": digest})
    write_tensors(path, state, {_DESCRIPTION: described.model_dump(mode="json")})


def read_network(path: Path) -> tuple[NetworkDescription, dict[str, torch.Tensor]]:
    """Read and verify the network of a run.

    Parameters
    ----------
    path : Path
        The folder of a run, finished or under way, or the network file.

    Returns
    -------
    NetworkDescription
    state : dict of str to Tensor
        ``backbone.…``, ``head.weight`` (n_classes, dim), ``head.bias`` (n_classes,); on the CPU.

    Raises
    ------
    UsageError
        If the path names no fine-tuned network.
    BackboneError
        If the file is damaged, or something else than a network.
    """
    from medplus.tensorfile import read_tensors

    file = network_file(path)
    state, document = _read(file, read_tensors)
    return _described(file, document), state


def read_description(path: Path) -> NetworkDescription:
    """Read what a network says of itself, without its tensors; otherwise as `read_network`."""
    from medplus.tensorfile import read_document

    file = network_file(path)
    return _described(file, _read(file, read_document))


def backbone_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the backbone's part of a network's state, named as the backbone names it."""
    return {
        name.removeprefix(_BACKBONE): value
        for name, value in state.items()
        if name.startswith(_BACKBONE)
    }


def is_finetuned(name: str) -> bool:
    """Tell a fine-tuned run from other backbones: a folder with a network, or a network file."""
    is_file = name.endswith(".safetensors") and leads_to(name, Path.is_file)
    return is_file or leads_to(Path(name) / NETWORK_FILE, Path.is_file)


def is_path(name: str) -> bool:
    """Tell a path from the name of a network: it has a separator, or exists."""
    return "/" in name or "\\" in name or leads_to(name)


def network_file(path: Path) -> Path:
    """Return the network file that a path names.

    Raises
    ------
    UsageError
        If it names none.
    """
    if not is_finetuned(str(path)):
        raise no_network(path)
    return path / NETWORK_FILE if path.is_dir() else path


def no_network(path: Path) -> UsageError:
    """Return the error for a path that names no fine-tuned network: it says what it names."""
    if not path.exists():
        return UsageError(f"there is no fine-tuned run at {path}{_moved(path)}; {_TAKES}")
    if not path.is_dir():
        return UsageError(f"{path} is no network of a fine-tuned run; {_TAKES}")
    inside = sorted(file.parent for file in path.glob(f"*/{NETWORK_FILE}"))
    where = f" (there is one in it: {inside[0]})" if inside else ""
    return UsageError(
        f"{path} is no fine-tuned run that has trained an epoch{where}: it has no {NETWORK_FILE}; "
        f"{_TAKES}"
    )


def _described(file: Path, document: dict[str, Any]) -> NetworkDescription:
    description = document.get(_DESCRIPTION)
    if not isinstance(description, dict):
        raise BackboneError(f"{file} is not the network of a fine-tuned run; {_TAKES}")
    if description.get("format") != FORMAT:
        raise BackboneError(
            f"{file} has format {description.get('format')}, this medplus reads {FORMAT}; use the "
            "version that wrote it, or make the run again"
        )
    try:
        return NetworkDescription.model_validate(description)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BackboneError(
            f"{file} is damaged: '{place}' is invalid; make the run again"
        ) from None


def _read(file: Path, read: Callable[[Path], Content]) -> Content:
    from medplus.tensorfile import DamagedFileError

    try:
        return read(file)
    except DamagedFileError as error:
        raise BackboneError(f"{error}; name another --backbone, or make the run again") from None


def _moved(path: Path) -> str:
    """Say where a run lies that has been finished, or is not finished yet."""
    folder = path.parent if path.name == NETWORK_FILE else path
    unfinished = folder.suffix == _PARTIAL
    other = folder.with_suffix("" if unfinished else f"{folder.suffix}{_PARTIAL}")
    return f" (but at {other})" if is_finetuned(str(other)) else ""
