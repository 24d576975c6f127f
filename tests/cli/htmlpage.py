"""Reading a page of ours back: its elements by attribute, as the tests and any script would."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "input", "br", "hr", "link", "img"})


@dataclass
class Element:
    """An element with its text."""

    name: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, in order."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def classes(self) -> list[str]:
        """Its classes."""
        return self.attributes.get("class", "").split()

    def all(self, *classes: str, name: str = "") -> list[Element]:
        """Every element below with these classes and this name."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                if (not name or child.name == name) and all(one in child.classes for one in classes):
                    found.append(child)
                found += child.all(*classes, name=name)
        return found

    def one(self, *classes: str, name: str = "") -> Element:
        """The first of those."""
        return self.all(*classes, name=name)[0]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag, "elements are closed in the order in which they were opened"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(text: str) -> Element:
    """The page as a tree."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], "every element is closed"
    return reader.root
