"""Which heads are trained together: every seed with every setting."""

from __future__ import annotations

from dataclasses import dataclass

from medplus.config import ProbeRecipe


@dataclass(frozen=True)
class HeadGrid:
    """The grid of heads: every seed with every setting of learning rate and weight decay.

    Attributes
    ----------
    seeds : tuple of int
    settings : tuple of (float, float)
        Learning rate and weight decay.
    """

    seeds: tuple[int, ...]
    settings: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, recipe: ProbeRecipe) -> HeadGrid:
        """Return the grid that a recipe spans."""
        settings = tuple((lr, wd) for lr in recipe.lr for wd in recipe.weight_decay)
        return cls(recipe.seeds, settings)
