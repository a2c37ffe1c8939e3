"""What is written into the page: style, scripts and data, so that it needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from markupsafe import Markup

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def asset(name: str, package: str = "medplus.reporting.page") -> Markup:
    """Return a style sheet or script of this package, or another of ours."""
    text = (resources.files(package) / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - a file of ours


def safe_json(value: Any) -> Markup:
    """Return JSON that cannot end the script element that it stands in, whatever names it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - escaped above


def content_security_policy(*scripts: str) -> str:
    """Return a policy that lets only these scripts run, and nothing reach the network.

    Styles need no such care: they can load nothing, since every kind of resource is refused but
    pictures that stand in the page itself.
    """
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
