"""A figure as a part of the page: in the page's colours and font, with ids of its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from medplus.reporting.figures.style import FAINT, GREY, INK, MISSING, PAPER

_VARIABLES = {
    INK: "var(--text)",
    GREY: "var(--muted)",
    FAINT: "var(--line)",
    MISSING: "var(--raised)",
    PAPER: "var(--surface)",
}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_LONG = re.compile(r"(\.\d\d)\d+")
_TIP = re.compile(r"\d+: ", re.ASCII)


def inline_svg(name: str, svg: str, summary: str) -> Markup:
    """Return a figure to stand in the page.

    Parameters
    ----------
    name : str
        Ids begin with it, so that no two figures share one.
    svg : str
        As `medplus.reporting.figures` makes it.
    summary : str
        What a screen reader says instead of it.
    """
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    places = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        if element.tag in ("metadata", "style"):
            places[element].remove(element)
        _adapt(element, name)
    view = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": summary}
    root.attrib.clear()
    root.attrib.update(view)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - escaped by it


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Take the page's colours and font, make ids unique and numbers short; add the tooltip."""
    found = dict(element.attrib)
    element.attrib.clear()
    for key, value in found.items():
        key = key.rpartition("}")[2]
        if key == "style":
            value = _COLOUR.sub(lambda hit: _VARIABLES.get(hit[0].upper(), hit[0]), value)
            value = re.sub(r"font-family: [^;]+;? ?", "", value)
        elif key == "href" or value.startswith("url("):
            value = value.replace("#", f"#{name}-")
        elif key == "id":
            if tip := _TIP.match(value):
                ElementTree.SubElement(element, "title").text = value[tip.end() :]
            if element.tag == "g":
                continue
            value = f"{name}-{value}"
        elif key in ("d", "x", "y", "transform"):
            value = _LONG.sub(r"\1", value.replace("\n", ""))
        element.set(key, value)
    if element.tag != "text" and not (element.text or "").strip():
        element.text = None
    element.tail = None
