"""JSON: parsing what a stranger may have written, and the one canonical form that is hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
        # It is no deeper than it has brackets: most need no walk.
        deep = data.count(b"{") + data.count(b"[") > _DEEPEST
        if deep and isinstance(document, dict | list) and _depth(document) > _DEEPEST:
            raise RecursionError
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None
    if b"\\ud" in data.lower():
        json.dumps(document, ensure_ascii=False).encode()  # its error is a ValueError
    return document


def _depth(node: dict[str, Any] | list[Any]) -> int:
    values = node.values() if isinstance(node, dict) else node
    return 1 + max((_depth(value) for value in values if isinstance(value, dict | list)), default=0)


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
