"""A page, taken apart with the standard library alone."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Element:
    tag: str
    attrs: dict
    parent: "Element | None" = None
    children: list = field(default_factory=list)

    def text(self):
        parts = (c if isinstance(c, str) else c.text() for c in self.children)
        return "".join(parts)

    def all(self, *tags):
        for child in self.children:
            if isinstance(child, Element):
                if child.tag in tags or not tags:
                    yield child
                yield from child.all(*tags)

    def within(self, tag):
        return self.parent is not None and (self.parent.tag == tag or self.parent.within(tag))


class Document(HTMLParser):
    VOID = ("meta", "input", "img", "br", "link")

    def __init__(self, html):
        super().__init__()
        self.root = self.at = Element("", {})
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), self.at)
        self.at.children.append(element)
        if tag not in self.VOID:
            self.at = element

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)

    def by_id(self, name):
        (found,) = [e for e in self.root.all() if e.attrs.get("id") == name]
        return found

    def table(self, caption):
        """Return the rows of a table, cells as text without what only screen readers say."""
        (table,) = [
            t for t in self.root.all("table")
            if next(t.all("caption")).text().startswith(caption)
        ]  # fmt: skip
        body = next(table.all("tbody"))
        return [[seen(cell) for cell in row.all("th", "td")] for row in body.all("tr")]

    def data(self, name):
        return json.loads(self.by_id(name).text())


def seen(element):
    return "".join(
        child if isinstance(child, str) else seen(child)
        for child in element.children
        if isinstance(child, str) or child.attrs.get("class") != "unseen"
    )
