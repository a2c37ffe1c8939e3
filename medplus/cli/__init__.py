"""The command line: each command parses, calls the Python API, and renders what it returns."""

from medplus.cli.main import main

__all__ = ["main"]
