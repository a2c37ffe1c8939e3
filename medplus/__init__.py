"""medplus: prototype image models on medical data through an embedding store."""

from medplus._version import __version__

__all__ = ["__version__"]
