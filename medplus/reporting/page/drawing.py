"""A figure as a part of the page: in the page's colours and font, with ids of its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from medplus.analysis.drawing.style import FAINT, GREY, INK, MISSING, PAPER

_VARIABLES = {
    INK: "var(--text)",
    GREY: "var(--muted)",
    FAINT: "var(--line)",
    MISSING: "var(--raised)",
    PAPER: "var(--surface)",
}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_LONG = re.compile(r"(\.\d\d)\d+")
_FONT = re.compile(r"font-family: [^;]+;? ?")
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
    if tip := _TIP.match(found.get("id", "")):
        ElementTree.SubElement(element, "title").text = found["id"][tip.end() :]
    for key, value in found.items():
        if key != "id" or element.tag != "g":
            element.set(key.rpartition("}")[2], _adapted(key, value, name))
    if not (element.text or "").strip():
        element.text = None
    element.tail = None


def _adapted(key: str, value: str, name: str) -> str:
    if key == "style":
        themed = _COLOUR.sub(lambda hit: _VARIABLES.get(hit[0].upper(), hit[0]), value)
        return _FONT.sub("", themed)
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href") or value.startswith("url("):
        return value.replace("#", f"#{name}-")
    return _LONG.sub(r"\1", value.replace("\n", ""))
