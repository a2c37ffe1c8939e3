"""The page: one HTML file that holds data, style and scripts, and loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medplus.exploration.payload import payload
from medplus.reporting.page import page_template
from medplus.reporting.page.inline import asset, content_security_policy, safe_json

if TYPE_CHECKING:
    from medplus.exploration.collection import Collection

_HERE = "medplus.exploration"


def render(view: Collection) -> bytes:
    r"""Return a collection as one self-contained HTML document, UTF-8.

    Its content security policy lets no other script run and refuses the network. Names are escaped
    wherever they stand; what is no Unicode of a file's name is shown as ``\udc..``.
    """
    scripts = {
        "theme": asset("theme.js"),
        "map": asset("map.js", _HERE),
        "explore": asset("explore.js", _HERE),
        "page": asset("page.js"),
    }
    text = page_template("page.html.j2", _HERE).render(
        view=view,
        data=safe_json(payload(view)),
        scripts=scripts,
        style=asset("page.css") + asset("explore.css", _HERE),
        policy=content_security_policy(*scripts.values()),
    )
    # In JSON the escape of a lone surrogate is the surrogate itself.
    return text.encode("utf-8", "backslashreplace")
