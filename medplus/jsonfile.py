"""Parsing JSON that a stranger may have written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_DEEPEST = 100


def parse_json(data: bytes) -> Any:
    """Return what a JSON document says; one that others would stumble over is no JSON either.

    Raises
    ------
    ValueError
        If it is not JSON, is nested deeper than anything that medplus writes (whoever walks it
        would exhaust the stack), or holds text that no file can hold (half of a surrogate pair).
    """
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None
    level, depth = _containers([document]), 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError("the JSON is nested too deep")
        level = [
            child
            for node in level
            for child in _containers(node.values() if isinstance(node, dict) else node)
        ]
    if b"\\ud" in data.lower():
        json.dumps(document, ensure_ascii=False).encode()  # its error is a ValueError
    return document


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]
