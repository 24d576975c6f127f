"""A port map as a PNG, by matplotlib (the extra `plots`)."""

from __future__ import annotations

from importlib.util import find_spec
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure
from fourtuple.cli.output_file import check_output, unwritable
from fourtuple.cli.port_words import LOOKS, legend, parity_names, taken_share, words_of
from fourtuple.doctor.port_states import KINDS, PortStates
from fourtuple.doctor.words import grouped, percent

if TYPE_CHECKING:
    from fourtuple.cli.map import Asked

_PAGE, _TEXT, _DIM = "#0d1117", "#e6edf3", "#9da7b3"
_ASPECT = 0.55  # a half is that much as wide as it is tall


def check(path: str) -> None:
    """Failure, in one line, if no picture can be made or written there."""
    if find_spec("matplotlib") is None:
        raise Failure(
            "--png: needs matplotlib, which is not installed",
            exits.USAGE,
            ("pip install 'fourtuple[plots]'", "--html FILE   (needs nothing)"),
        )
    if path == "-":
        raise Failure("--png: a picture goes to a file, as stdout has the text; say --png map.png")
    check_output("--png", path)


def draw(asked: Asked, path: str) -> None:
    """The map with its legend."""
    from fourtuple.cli.map import facts, nobody, title

    figure = _figure()
    states = asked.states
    is_map = asked.is_connected or states.is_buckets
    head = title(asked) if is_map else nobody(asked)
    figure.text(0.03, 0.955, head, color=_TEXT, size=14 if len(head) < 90 else 10, weight="bold", va="center")
    figure.text(0.03, 0.915, " · ".join(facts(asked)), color=_DIM, size=9.5, va="center")
    for second, name in enumerate(parity_names(states.low)):
        axes = figure.add_axes((0.03 + second * 0.32, 0.04, 0.3, 0.80))
        _half(axes, states, bool(second), name)
    _legend(figure, states)
    try:
        figure.savefig(path, format="png", dpi=160, facecolor=_PAGE)
    except OSError as error:
        raise unwritable("--png", path, error) from None


def _figure() -> Any:
    """A figure of its own: no window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), facecolor=_PAGE)
    FigureCanvasAgg(figure)
    return figure


def _half(axes: Any, states: PortStates, second: bool, name: str) -> None:
    """The ports of a parity from left to right, then down."""
    import numpy

    from matplotlib.colors import ListedColormap  # isort: skip

    ports = states.of_parity(second)
    across = max(1, ceil(sqrt(max(len(ports), 1) * _ASPECT)))
    rows = max(1, ceil(len(ports) / across))
    cells = numpy.full(rows * across, len(KINDS))
    cells[: len(ports)] = [KINDS.index(kind) for kind in ports]
    odd = int(name == "odd")
    colors = ListedColormap([*(LOOKS[kind].color[odd] for kind in KINDS), _PAGE])
    axes.imshow(
        cells.reshape(rows, across), cmap=colors, vmin=0, vmax=len(KINDS), interpolation="nearest", aspect="auto"
    )
    axes.set_axis_off()
    share = percent(taken_share(states, second))
    axes.set_title(f"{name}   {share} taken", color=LOOKS["used"].color[odd], size=11, loc="left")


def _legend(figure: Any, states: PortStates) -> None:
    from matplotlib.patches import Rectangle

    for i, (kind, first, second) in enumerate(legend(states)):
        y = 0.80 - i * 0.068
        for odd in (0, 1):
            x = 0.675 + odd * 0.011
            figure.add_artist(Rectangle((x, y - 0.012), 0.011, 0.024, facecolor=LOOKS[kind].color[odd], lw=0))
        open_ = kind in states.open
        text = f"{grouped(first + second)}   {'open to connect()' if open_ else 'passed over'}"
        figure.text(0.71, y + 0.012, words_of(kind, states.is_buckets), color=_TEXT, size=8.5, va="center")
        figure.text(0.71, y - 0.016, text, color=_DIM, size=8, va="center")
