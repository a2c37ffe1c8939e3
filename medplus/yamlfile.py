"""Reading a YAML file that maps names to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medplus.errors import UsageError

Place = tuple[str | int, ...]
"""Where a value stands in a document: the keys and positions that lead to it."""


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Parameters
    ----------
    what : str
        What the file is, for messages: ``config``, ``recipe``, ….

    Raises
    ------
    UsageError
        If the file cannot be read, is not valid YAML, or is no mapping.
    """
    return read_yaml_with_lines(path, what)[0]


def read_yaml_with_lines(path: Path, what: str) -> tuple[dict[str, Any], dict[Place, int]]:
    """Return the mapping in a YAML file, and the line of every value in it, counted from 1.

    Raises
    ------
    UsageError
        As for `read_yaml`, and if a key is given twice.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
        lines = _lines(yaml.compose(text, Loader=yaml.SafeLoader))
    except FileNotFoundError:
        raise UsageError(f"the {what} file {path} does not exist") from None
    except OSError as error:
        raise UsageError(f"the {what} file {path} cannot be read: {error.strerror}") from None
    except _RepeatedKeyError as error:
        raise UsageError(
            f"the {what} file {path} gives '{error.key}' twice (line {error.line}); keep one"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UsageError(f"the {what} file {path} is not valid YAML{where}") from None
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise UsageError(f"the {what} file {path} must map options to values")
    return {str(key): value for key, value in document.items()}, lines


class _RepeatedKeyError(Exception):
    """A key stands twice in a mapping: YAML's reader would silently take the last."""

    def __init__(self, key: str, line: int) -> None:
        self.key = key
        self.line = line


def _lines(root: Any) -> dict[Place, int]:
    import yaml

    lines: dict[Place, int] = {}
    visited = set()  # an alias stands for its anchor's node, perhaps for one that holds it

    def visit(node: yaml.Node | None, place: Place) -> None:
        if node is None or id(node) in visited:
            return
        visited.add(id(node))
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if (*place, name) in lines:
                    raise _RepeatedKeyError(name, line)
                lines[*place, name] = line  # the value itself may begin on a later line
                visit(value, (*place, name))
        elif isinstance(node, yaml.SequenceNode):
            for position, value in enumerate(node.value):
                visit(value, (*place, position))

    visit(root, ())
    return lines
