"""Reading a YAML file that maps names to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medplus.errors import UsageError


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
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the {what} file {path} does not exist") from None
    except OSError as error:
        raise UsageError(f"the {what} file {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UsageError(f"the {what} file {path} is not valid YAML{where}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"the {what} file {path} must map options to values")
    return {str(key): value for key, value in document.items()}
