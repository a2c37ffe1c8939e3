"""Reading a YAML file that maps names to values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medplus.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    ModelT = TypeVar("ModelT", bound=BaseModel)

_MOST_COPIED = 10_000
_MOST_DIGITS = 100
_INTEGER = "tag:yaml.org,2002:int"

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
        If the file cannot be read, is not valid YAML, is no mapping, or gives a key twice.
    """
    return read_yaml_with_lines(path, what)[0]


def read_model(
    path: Path,
    what: str,
    model: type[ModelT],
    explain: Callable[[ErrorDetails], tuple[Place, str]],
) -> ModelT:
    """Return the model of the values in a YAML file.

    Parameters
    ----------
    explain : callable
        Tells of a fault where it lies and what it is.

    Raises
    ------
    UsageError
        As for `read_yaml`, and if a value is not allowed; names the line.
    """
    from pydantic import ValidationError

    values, lines = read_yaml_with_lines(path, what)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        place, message = explain(first_fault(error))
    while place and place not in lines:
        place = place[:-1]
    raise UsageError(f"{path}{f', line {lines[place]}' if place else ''}: {message}")


def first_fault(error: ValidationError) -> ErrorDetails:
    """Return the fault that tells most: a key that is misspelt is also missing."""
    return min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")


def read_yaml_with_lines(path: Path, what: str) -> tuple[dict[str, Any], dict[Place, int]]:
    """Return the mapping in a YAML file, and the line of every value in it, counted from 1."""
    import yaml

    try:
        loader = _loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        lines = _lines(root)
        document = None if root is None else loader.construct_document(root)
    except FileNotFoundError:
        raise UsageError(f"the {what} file {path} does not exist") from None
    except OSError as error:
        raise UsageError(f"the {what} file {path} cannot be read: {error.strerror}") from None
    except _RepeatedKeyError as error:
        raise UsageError(
            f"the {what} file {path} gives '{error.key}' twice (line {error.line}); keep one"
        ) from None
    except (
        yaml.YAMLError, RecursionError,
        ValueError, LookupError, AttributeError,  # of a value that is not what its tag says
    ) as error:  # fmt: skip
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UsageError(f"the {what} file {path} is not valid YAML{where}") from None
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise UsageError(f"the {what} file {path} must map options to values")
    return {str(key): value for key, value in document.items()}, lines


def _loader(text: str) -> Any:
    """Return YAML's reader, which refuses what would grow beyond all bounds as Python's values.

    Aliases stand for one value, however often; but merges (``<<``) copy keys, so that a few lines
    can mean billions. A number of many digits is read, but can never be printed again.
    """
    import yaml

    class Bounded(yaml.SafeLoader):
        copied = 0

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            before = len(node.value)
            super().flatten_mapping(node)
            self.copied += len(node.value) - before
            if self.copied > _MOST_COPIED:
                raise _invalid(node, "merges of too many keys")

        def construct_scalar(self, node: Any) -> str:
            if node.tag == _INTEGER and len(node.value) > _MOST_DIGITS:
                raise _invalid(node, "a number of too many digits")
            node.value.encode()  # half of a surrogate pair, which no file can hold: a ValueError
            return str(super().construct_scalar(node))

    return Bounded(text)


def _invalid(node: Any, problem: str) -> Exception:
    import yaml

    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


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
                if not isinstance(key, yaml.ScalarNode):
                    raise _invalid(key, "a key that is no text")
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
