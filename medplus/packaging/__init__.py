"""A run as one model that needs medplus no more, with a card, and proof that it is the same."""

from medplus.packaging.build import Package, check, package

__all__ = ["Package", "check", "package"]
