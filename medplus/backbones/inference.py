"""Making a frozen network as fast as it can be, without changing what it computes."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from medplus.backbones.build import Backbone
from medplus.backbones.prepared import DTYPES, prepare
from medplus.backbones.windowed import Windowed, windowed
from medplus.device import compute_precision
from medplus.errors import BackboneError, first_line
from medplus.memory import ran_out
from medplus.preprocess import Preprocessor, padded_window
from medplus.vocabulary import Precision

log = logging.getLogger(__name__)

_COMPILED_TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}

Preparation = Callable[[nn.Module, Precision], nn.Module]
"""Turns a network in eval mode into what is run on the device."""
Forward = Callable[[torch.Tensor], torch.Tensor]


class Embedder:
    """A backbone on a device at a precision: uint8 images in, float32 embeddings out.

    A batch that does not fit into memory is computed in smaller parts, and so are all later ones.

    Parameters
    ----------
    preparation : callable, optional
        Makes of the module what is run on the device, whole. By default `prepare`: the same numbers
        up to rounding, faster.
    window : bool, default True
        Of padded images compute only what they can change, where that saves much; see
        `medplus.backbones.windowed`.

    Attributes
    ----------
    batch_limit : int
        The largest batch that is computed at once.
    window : bool
        Whether padded images are computed through windows, where that saves much.
    is_compiled : bool
        Whether what `compile` has made is used.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        precision: Precision,
        batch_limit: int,
        preparation: Preparation | None = None,
        window: bool = True,
    ) -> None:
        self.backbone = backbone
        self.device = device
        self.precision = precision
        self.batch_limit = batch_limit
        self._module = (preparation or prepare)(backbone.module, precision).to(device)
        self.window = window and preparation is None
        self._forwards: dict[int, Forward] = {}
        self._compiled: tuple[torch.Size, Forward] | None = None
        self.is_compiled = False
        weights = list(self._module.parameters())
        # Images come as the weights are; where those are float32, autocast casts both.
        cast = any(weight.dtype == DTYPES[precision] for weight in weights)
        self._preprocess = Preprocessor(
            backbone.preprocess,
            DTYPES[precision] if cast else torch.float32,
            channels_last=any(w.ndim == 4 and not w.is_contiguous() for w in weights),
        )

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embed a batch.

        Parameters
        ----------
        images : Tensor of uint8, shape (n, size, size) or (n, size, size, 3)

        Returns
        -------
        Tensor of float32, shape (n, dim)
            On the device.

        Raises
        ------
        BackboneError
            If the network does not take such images, or one image alone does not fit into memory.
        """
        parts = []
        start = 0
        while start < len(images):
            part = images[start : start + self.batch_limit]
            try:
                parts.append(self._forward(part.to(self.device, non_blocking=True)))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise self._unsuitable(error) from error
                self._halve(len(part))
                continue
            except (AssertionError, ValueError) as error:
                raise self._unsuitable(error) from error
            start += len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def rounding(self, images: torch.Tensor) -> float:
        """Return how far the precision moves embeddings of some images, as a share of their norm.

        About 0.005 is usual in bf16, 0.02 much; depthwise convolutions may bring 0.1, where batch
        norms multiply what is lost in some channels.

        Parameters
        ----------
        images : Tensor of uint8, shape (n, size, size) or (n, size, size, 3)
        """
        if self.precision == "fp32":
            return 0.0
        exact = Embedder(self.backbone, self.device, "fp32", len(images), self._as_it_is)
        return _difference(exact(images), self(images))

    def _as_it_is(self, module: nn.Module, _: Precision) -> nn.Module:
        # A copy where it is to be moved: the backbone keeps its own weights where they are.
        return module if self.device.type == "cpu" else copy.deepcopy(module)

    @property
    def is_windowed(self) -> bool:
        """Whether some of the images given so far were computed through windows."""
        return any(isinstance(forward, Windowed) for forward in self._forwards.values())

    @torch.inference_mode()
    def compile(self, images: torch.Tensor) -> bool:
        """Compile the network for batches of just as many such images; others are computed as ever.

        Of padded images their windows are. Embeddings move by no more than rounding. Where it
        fails, a warning says so.

        Returns
        -------
        bool
            Whether it was compiled.
        """
        pixels = self._preprocess(images.to(self.device))
        forward = self._forward_for(pixels, images.shape[1])
        try:
            with compute_precision(self.precision, self.device), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.compiler.reset()  # or a process's ninth network of a kind would be eager
                expected = forward(pixels)
                whole = forward.unrolled(pixels) if isinstance(forward, Windowed) else self._module
                compiled = compile_network(whole, frozen=True)
                difference = _difference(expected, compiled(pixels))
        except Exception as error:  # compilers fail in as many ways as there are networks
            reason = first_line(error)
            log.warning("%s runs without being compiled: %s", self.backbone.name, reason)
            return False
        if not difference <= _COMPILED_TOLERANCES[self.precision]:
            log.warning("compiling would move embeddings by %.2g, and is left out", difference)
            return False
        self._compiled, self.is_compiled = (pixels.shape, compiled), True
        return True

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = self._preprocess(images)
        with compute_precision(self.precision, self.device):
            embeddings = self._forward_for(pixels, images.shape[1])(pixels).float()
        if embeddings.ndim != 2:
            raise ValueError(f"its pre-logits have shape {tuple(embeddings.shape)}, not (n, dim)")
        return embeddings

    def _forward_for(self, pixels: torch.Tensor, side: int) -> Forward:
        if self.is_compiled and self._compiled and self._compiled[0] == pixels.shape:
            return self._compiled[1]
        spec = self.backbone.preprocess
        if not self.window or spec.fit != "pad" or spec.canvas is None:
            return self._module
        if side not in self._forwards:
            self._forwards[side] = windowed(self._module, pixels, padded_window(side, spec.canvas))
        return self._forwards[side]

    def _halve(self, batch: int) -> None:
        if batch == 1:
            raise BackboneError(
                f"{self.backbone.name} does not fit into the memory of {self.device} even with "
                "one image; use another --device or a smaller backbone"
            )
        self.batch_limit = max(1, batch // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory with %d images; going on with %d", batch, self.batch_limit)

    def _unsuitable(self, error: Exception) -> BackboneError:
        fit = self.backbone.preprocess.fit
        remedy = "--fit pad or --fit resize" if fit == "native" else "another backbone"
        return BackboneError(
            f"{self.backbone.name} cannot embed these images with --fit {fit}: "
            f"{first_line(error)}; {remedy} may suit it"
        )


def compile_network(module: nn.Module, frozen: bool = False) -> Any:
    """Return a network that is compiled when it is first called, by torch's Inductor.

    Parameters
    ----------
    frozen : bool
        Take weights as constants, which inference gains from and training cannot.
    """
    return torch.compile(module, options={"freezing": True}) if frozen else torch.compile(module)


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).float().norm() / expected.float().norm().clamp_min(1e-12))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory was exhausted, on GPU or CPU."""
    return isinstance(error, torch.OutOfMemoryError) or ran_out(error)
