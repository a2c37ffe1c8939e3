"""How a network embeds fastest: its batch size, and whether to compile it, found by measuring.

The first batches of the work itself are what is measured, so no image is computed twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from medplus.backbones.inference import Embedder
from medplus.device import describe_device
from medplus.progress import SAID
from medplus.remembered import recall, remember

log = logging.getLogger(__name__)

_CPU_BATCHES = (8, 16, 32, 64)
_CUDA_BATCHES = (64, 128, 256, 512, 1024)
_BLOCK_NBYTES = 64 * 2**20
_NO_NETWORK = 32
_TIMED, _TIMED_IMAGES = 2, 64
"""Least batches and images of a size that count, after one batch that does not: it is slow. Sizes
are timed over as many images, or other work would spare short batches and disturb long ones."""
_AS_GOOD = 0.97
_GAIN, _WINDOWED_GAIN, _COMPILE_S = 1.2, 1.05, 60.0
"""What compiling is taken to bring and cost where it was never measured."""
_SAFETY = 1.5

_SUBJECT = "extraction-rates"

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rate:
    """What was measured on this machine of one network, and is remembered.

    Attributes
    ----------
    batch_size : int
        The batch size with the best rate.
    images_per_second : float
        At that batch size, not compiled.
    compiled : float or None
        Images per second of the compiled network; None where it was never compiled.
    compile_seconds : float or None
        What compiling took at the last time.
    """

    batch_size: int
    images_per_second: float
    compiled: float | None = None
    compile_seconds: float | None = None


class BatchSearch:
    """The batch size with the best rate, tried from small to large.

    Parameters
    ----------
    sizes : sequence of int
        Candidates, ascending.
    go_on : float
        The next size is tried where one reaches this share of the best rate so far: 1.05 where each
        has to gain 5 %, below 1 where rates are noisy and large batches may turn out slower.

    Attributes
    ----------
    size : int
        The size to compute next.
    rate : float or None
        Images per second at the size that was taken; None until then.

    Examples
    --------
    >>> search = BatchSearch((32, 64, 128), 0.95)
    >>> for seconds in (9, 2, 2, 9, 2, 2, 9, 5, 5):
    ...     rate = search.took(seconds)
    >>> search.size, search.rate
    (64, 32.0)
    """

    def __init__(self, sizes: Sequence[int], go_on: float) -> None:
        self.size = sizes[0]
        self.rate: float | None = None
        self._next, self._go_on = [*sizes[1:]], go_on
        self._rates: dict[int, float] = {}
        self._seconds: list[float] = []

    def took(self, seconds: float) -> float | None:
        """Note the time of one batch of `size`, and return the rate once the size is settled."""
        self._seconds.append(seconds)
        counted = max(_TIMED, _TIMED_IMAGES // self.size)
        if len(self._seconds) <= counted:
            return None
        highest = max(self._rates.values(), default=0.0)
        rate = self.size * counted / max(sum(self._seconds[1:]), 1e-9)
        self._rates[self.size], self._seconds = rate, []
        if rate >= self._go_on * highest and self._next:
            self.size = self._next.pop(0)
        else:
            self._settle()
        return self.rate

    def failed(self, fits: int) -> None:
        """Note that `size` does not fit into memory, and what does."""
        self._rates = {size: rate for size, rate in self._rates.items() if size <= fits}
        self._next, self._seconds = [], []
        if self._rates:
            self._settle()
        else:
            self.size = fits

    def _settle(self) -> None:
        highest = max(self._rates.values())
        self.size, self.rate = next(
            (size, rate) for size, rate in self._rates.items() if rate >= _AS_GOOD * highest
        )


class Tuned:
    """An embedder that finds out, on the images that it is given, how it is fastest.

    Parameters
    ----------
    embedder : Embedder
    n_images : int
        How many images it will be given.
    image_nbytes : int
        Size of one of them.
    batch_size : int, optional
        Images per forward; measured by default.
    compiled : bool, optional
        Whether to compile the network; by default where so many images are left that it pays.
    clock : callable, optional
        Returns seconds, once the device has done what it was given.
    folder : Path, optional
        Where measurements are kept; by default the user's cache folder.

    Attributes
    ----------
    block : int
        How many images to give at once.
    compile_seconds : float
        What compiling has taken.
    """

    def __init__(
        self,
        embedder: Embedder,
        n_images: int,
        image_nbytes: int,
        batch_size: int | None = None,
        compiled: bool | None = None,
        *,
        clock: Clock | None = None,
        folder: Path | None = None,
    ) -> None:
        self._embedder, self._folder = embedder, folder
        self._clock = clock or _clock_of(embedder.device)
        self._left, self._compiled = n_images, compiled
        self._key: str | None = None
        self._kept: Rate | None = None
        sizes, go_on = (_CPU_BATCHES, 0.95) if embedder.device.type == "cpu" else (
            [size for size in _CUDA_BATCHES if size * image_nbytes <= _BLOCK_NBYTES] or [64], 1.05
        )  # fmt: skip
        if not embedder.backbone.is_network:
            batch_size, self._compiled = batch_size or _NO_NETWORK, False
        self._given = batch_size
        self._search = BatchSearch([batch_size] if batch_size else sizes, go_on)
        self.block = batch_size or sizes[-1]
        self._is_settled = bool(batch_size) and self._compiled is False  # nothing to find out
        self.compile_seconds = 0.0
        self._times: dict[bool, list[float]] = {}

    @property
    def batch_size(self) -> int:
        """How many images are computed at once now."""
        return min(self._search.size, self._embedder.batch_limit)

    @property
    def is_compiled(self) -> bool:
        """Whether the network is compiled now."""
        return self._embedder.is_compiled

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images, as the embedder does."""
        if self._key is None and not self._is_settled:
            self._recall(images)
        parts = []
        start = 0
        while start < len(images):
            part = images[start : start + self.batch_size]
            parts.append(self._step(part))
            start += len(part)
            self._left -= len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _recall(self, images: torch.Tensor) -> None:
        self._key = _key_of(self._embedder, images, self._given)
        with suppress(TypeError):  # what another version of medplus kept may have other fields
            self._kept = Rate(**(recall(_SUBJECT, self._key, self._folder) or {}))
        if self._kept is not None:
            self._search.size = min(self._kept.batch_size, self.block)
            self._search.rate = self._kept.images_per_second

    def _step(self, part: torch.Tensor) -> torch.Tensor:
        """Embed one batch, and learn from it while there is something to be learnt."""
        size = self._search.size
        if self._is_settled or len(part) < size:
            return self._embedder(part)
        if self._search.rate is not None and not self._times:
            self._decide(part)
        if self._times:  # in turn, so that other work on the machine disturbs both alike
            self._embedder.is_compiled = len(self._times[True]) <= len(self._times[False])
        start = self._clock()
        result = self._embedder(part)
        seconds = self._clock() - start
        if self._embedder.batch_limit < size:
            self._search.failed(self._embedder.batch_limit)
            self._is_settled = True  # memory is scarce: not the time to compile
        elif self._times:
            self._judge(seconds)
        elif not self._is_settled and (rate := self._search.took(seconds)) is not None:
            self._keep(Rate(self._search.size, rate))
        return result

    def _decide(self, part: torch.Tensor) -> None:
        """Compile, where it was asked for or pays."""
        self._is_settled = True
        if self._compiled is False or (self._compiled is None and not self._pays()):
            return
        start = self._clock()
        is_compiled = self._embedder.compile(part)
        self.compile_seconds = seconds = self._clock() - start
        if not is_compiled:
            return
        log.log(SAID, "%s was compiled in %.0f s", self._embedder.backbone.name, seconds)
        if self._compiled is None and self._kept is not None:
            self._keep(replace(self._kept, compile_seconds=max(seconds, 1e-3)))
            self._is_settled, self._times = False, {True: [], False: []}

    def _pays(self) -> bool:
        rate = self._kept
        if rate is None:
            return False
        gain, cost = _WINDOWED_GAIN if self._embedder.is_windowed else _GAIN, _COMPILE_S
        if rate.compiled is not None:
            gain, cost = rate.compiled / rate.images_per_second, rate.compile_seconds or cost
        return self._left / rate.images_per_second * (1 - 1 / gain) > _SAFETY * cost

    def _judge(self, seconds: float) -> None:
        """Note a time of either way; in the end keep both rates, and take the better way."""
        self._times[self._embedder.is_compiled].append(seconds)
        if len(self._times[False]) <= _TIMED or self._kept is None:
            return
        plain, compiled = (
            self._search.size / max(min(self._times[way][1:]), 1e-9) for way in (False, True)
        )
        self._is_settled = True
        self._embedder.is_compiled = compiled > plain
        self._keep(replace(self._kept, images_per_second=plain, compiled=compiled))

    def _keep(self, rate: Rate) -> None:
        assert self._key is not None
        self._kept = rate
        remember(_SUBJECT, self._key, asdict(rate), self._folder)


def _clock_of(device: torch.device) -> Clock:
    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def _key_of(embedder: Embedder, images: torch.Tensor, batch_size: int | None) -> str:
    """Return what decides how fast images are embedded."""
    backbone = embedder.backbone
    spec = backbone.preprocess
    parts = (
        backbone.tag, backbone.feature, "×".join(map(str, images.shape[1:])),
        f"{spec.fit} {spec.canvas}", embedder.precision, "windows" if embedder.window else "whole",
        describe_device(embedder.device), f"torch {torch.__version__}",
        f"batch {batch_size or 'any'}",
    )  # fmt: skip
    return " · ".join(parts)
