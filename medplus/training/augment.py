"""Random changes of training images, on the device, by a few operations on the whole batch.

Chance comes from a CPU generator, so the same images are seen whatever the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from medplus.config import FinetuneRecipe
from medplus.training.batches import to_device
from medplus.vocabulary import Flip

# Tissue under a microscope, skin lesions and single cells are seen from any side. Everywhere else
# up and left mean something: the heart in a chest X-ray, the left and the right kidney (two classes
# of the Organ datasets), the side of a breast, of a retina and of an OCT scan.
WITHOUT_ORIENTATION = frozenset({"pathmnist", "dermamnist", "bloodmnist", "tissuemnist"})

_N_DRAWN = 9


@dataclass(frozen=True)
class Changes:
    """What happens to each image of a batch, on the CPU.

    Attributes
    ----------
    flips : Tensor of bool, shape (n, 3)
        Mirrored across the diagonal, then left to right, then top to bottom: together the eight
        symmetries of a square.
    angle : Tensor of float32, shape (n,)
        In radians, counter-clockwise about the centre.
    zoom : Tensor of float32, shape (n,)
        More than 1 enlarges what is seen.
    shift : Tensor of float32, shape (n, 2)
        To the right and downwards, as shares of the side.
    gain : Tensor of float32, shape (n,)
        Factor on the contrast.
    offset : Tensor of float32, shape (n,)
        What is added to the brightness.
    """

    flips: torch.Tensor
    angle: torch.Tensor
    zoom: torch.Tensor
    shift: torch.Tensor
    gain: torch.Tensor
    offset: torch.Tensor


class Augment:
    """The augmentation of a recipe, for one dataset.

    Parameters
    ----------
    recipe : FinetuneRecipe
    dataset : str
        Decides whether images are flipped where the recipe says ``auto``.
    """

    def __init__(self, recipe: FinetuneRecipe, dataset: str) -> None:
        self.flip: Flip = recipe.flip
        if recipe.flip == "auto":
            self.flip = "dihedral" if dataset in WITHOUT_ORIENTATION else "none"
        self._recipe = recipe
        self._warps = max(recipe.rotate, recipe.translate, recipe.scale) > 0
        self._shades = max(recipe.brightness, recipe.contrast) > 0

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return self._warps or self._shades or self.flip != "none"

    def __call__(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the images changed, each in its own way.

        Parameters
        ----------
        pixels : Tensor of float32, shape (n, channels, side, side)
            Normalised and not yet padded, on any device; not changed itself.
        generator : Generator
            On the CPU.

        Returns
        -------
        Tensor of float32, shape (n, channels, side, side)
            On the same device, in the same memory format.
        """
        if not self:
            return pixels
        changes = self.draw(len(pixels), generator)
        changed = pixels
        if self._shades:  # first, so that what is moved in from outside keeps the mean colour
            changed = shade(changed, changes.gain, changes.offset)
        if self._warps:
            changed = warp(changed, affine(changes))
        elif self.flip != "none":
            changed = mirror(changed, changes.flips)
        if pixels.is_contiguous(memory_format=torch.channels_last):
            changed = changed.contiguous(memory_format=torch.channels_last)
        return changed

    def draw(self, n: int, generator: torch.Generator) -> Changes:
        """Draw the changes of `n` images.

        Equally many numbers are drawn whatever is on, so that one option does not alter another's.
        """
        drawn = torch.rand(n, _N_DRAWN, generator=generator)
        recipe = self._recipe
        within = 2 * drawn[:, 3:] - 1  # -1 to 1
        possible = {"none": (0, 0, 0), "horizontal": (0, 1, 0), "dihedral": (1, 1, 1)}[self.flip]
        return Changes(
            flips=drawn[:, :3] < 0.5 * torch.tensor(possible),
            angle=math.radians(recipe.rotate) * within[:, 0],
            zoom=1 + recipe.scale * within[:, 1],
            shift=recipe.translate * within[:, 2:4],
            gain=1 + recipe.contrast * within[:, 4],
            offset=recipe.brightness * within[:, 5],
        )


def affine(changes: Changes) -> torch.Tensor:
    """Return where each point of a changed image comes from, as (n, 2, 3) matrices.

    They map (x, y, 1) to (x, y), with both from -1 to 1 across the image (x to the right, y down):
    the inverse of flip, then rotate and zoom, then shift.
    """
    diagonal, leftright, updown = changes.flips.unbind(1)
    cos, sin = changes.angle.cos(), changes.angle.sin()
    unrotate = torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2)
    linear = unrotate / changes.zoom[:, None, None]
    linear = linear * (1 - 2 * torch.stack((leftright, updown), 1).float())[:, :, None]
    linear = torch.where(diagonal[:, None, None], linear.flip(1), linear)
    shift = -2 * (linear * changes.shift[:, None]).sum(2, keepdim=True)  # the image is 2 wide
    return torch.cat((linear, shift), 2)


def warp(pixels: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Sample images bilinearly at the points of `affine`; outside of them lies the mean colour."""
    matrices = to_device(matrices, pixels.device)
    side = pixels.shape[-1]
    centres = (2 * torch.arange(side, device=pixels.device) + 1) / side - 1
    # What F.affine_grid computes, which under autocast or TF32 rounds it to a pixel or so.
    across = centres[:, None] * matrices[:, None, :, 0]
    down = centres[:, None] * matrices[:, None, :, 1] + matrices[:, None, :, 2]
    points = down[:, :, None] + across[:, None]
    return F.grid_sample(pixels, points, mode="bilinear", align_corners=False)


def mirror(pixels: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Flip images as `Changes` says, by moving pixels alone."""
    kept = to_device(~flips, pixels.device)[:, :, None, None, None]
    pixels = torch.where(kept[:, 0], pixels, pixels.transpose(2, 3))
    pixels = torch.where(kept[:, 1], pixels, pixels.flip(3))
    return torch.where(kept[:, 2], pixels, pixels.flip(2))


def shade(pixels: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Change contrast about each image's own mean, and brightness; all channels alike."""
    gain, offset = to_device(torch.stack((gain, offset)), pixels.device)[:, :, None, None, None]
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(mean * (1 - gain) + offset, pixels, gain)
