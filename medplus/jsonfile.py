"""JSON: parsing what a stranger may have written, and the one canonical form that is hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
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
    # No deeper than there are brackets: short documents need no walk.
    shallow = data.count(b"{") + data.count(b"[") <= _DEEPEST
    level, depth = [] if shallow else _containers([document]), 0
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


def digest_of(document: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of a JSON object in canonical form.

    Indentation and the order of keys do not count; lists and tuples are alike.

    Examples
    --------
    >>> digest_of({"b": 1, "a": (2,)}) == digest_of({"a": [2], "b": 1})
    True
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
