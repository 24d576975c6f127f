"""HTML and SVG as text, escaped by construction.

Rule: a child that is a plain str is escaped; only what `tag` itself returned (Html) goes in as it is.
"""

from __future__ import annotations

from html import escape

Attribute = str | int | float | bool | None

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_SELF_CLOSING = frozenset({"rect", "path", "line", "circle", "polygon", "use"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: Attribute) -> Html:
    """An element.  `class_` is class, `data_fn` is data-fn; True is an attribute without a value, None is left out."""
    head = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}"
    if name in _VOID:
        return Html(head + ">")
    if name in _SELF_CLOSING and not children:
        return Html(head + "/>")
    return Html(f"{head}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    """The children, one after the other."""
    return Html("".join(child if isinstance(child, Html) else clean(child) for child in children if child))


def clean(text: str) -> str:
    """Escaped, and without the control characters that no page may hold."""
    return escape("".join(c if c.isprintable() or c in "\n\t\u00a0" else "�" for c in text))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = number(value) if isinstance(value, float) else clean(str(value))
    return f' {name}="{text}"'


def number(value: float) -> str:
    """At most one decimal: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


# ------------------------------------------------------------------------------------------------ pictures

MONO_EM, SANS_EM = 0.61, 0.6
"""Width of a character in em: DejaVu, the widest of the usual ones."""


def width_of(text: str, size: float = 12, em: float = MONO_EM) -> float:
    """About how wide a text is, rather too much than too little."""
    return len(text) * size * em


def text_at(x: float, y: float, text: str, class_: str = "", anchor: str = "", **more: Attribute) -> Html:
    """An SVG text; anchor: middle or end."""
    return tag("text", text, x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor or None, **more)


def line_of(x1: float, y1: float, x2: float, y2: float, class_: str, **more: Attribute) -> Html:
    """An SVG line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_, **more)


def box(x: float, y: float, width: float, height: float, class_: str, rx: float = 3, **more: Attribute) -> Html:
    """An SVG rectangle."""
    return tag(
        "rect", x=float(x), y=float(y), width=float(width), height=float(height), rx=float(rx), class_=class_, **more
    )


def picture(name: str, width: float, height: float, title: str, what: str, *children: str) -> Html:
    """An SVG with a name and a description for those who do not see it; `name` is unique on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-t"),
        tag("desc", what, id=f"{name}-d"),
        *children,
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=float(width),
        height=float(height),
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
    )


def both_widths(wide: Html, narrow: Html) -> Html:
    """The same picture for a wide and for a narrow column; the style shows one of them."""
    return tag("div", tag("div", wide, class_="wide"), tag("div", narrow, class_="narrow"), class_="figure")
