"""Numbers over time in a terminal: bars of eighths of a character, and short forms of amounts."""

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_NOTHING = "·"


def sparkline(values: Sequence[float | None], *, most: float | None = None) -> str:
    """One character for each value, the highest for `most` (None: the largest of them). A value
    above zero is always seen; None, where nothing is known, is a dot."""
    top = most if most is not None else max((value or 0.0 for value in values), default=0.0)
    return "".join(_NOTHING if value is None else _bar(value, top, 0, 1) for value in values)


def bars(values: Sequence[float | None], height: int) -> list[str]:
    """The same over several lines, the upper one first."""
    top = max((value or 0.0 for value in values), default=0.0)
    return [
        "".join(_bar(value or 0.0, top, row, height) for value in values)
        for row in reversed(range(height))
    ]


def seconds(value: float | None) -> str:
    """`205 ms`, `1.02 s`, `95 s`; `-` for what is not known."""
    if value is None:
        return "-"
    if value < 0.9995:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def share(value: float | None) -> str:
    """`1.3%`; `-` for what is not known."""
    if value is None:
        return "-"
    percent = value * 100
    return f"{percent:.0f}%" if percent >= 10 or percent == 0 else f"{percent:.2g}%"


def amount(value: float) -> str:
    """`0`, `<0.01`, `0.25`, `12`, `45.6k`: a rate, in two or three digits."""
    if 0 < value < 0.01:
        return "<0.01"
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= bound:
            return f"{value / (1000 if unit == 'k' else bound):.3g}{unit}"
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.2g}"


def gauge(used: float, width: int) -> str:
    """A bar of that many characters for a share of 0 to 1."""
    filled = min(max(used, 0.0), 1.0) * width
    return ("█" * round(filled)).ljust(width, "░")


def _bar(value: float, top: float, row: int, height: int) -> str:
    """What is seen of it in one line (0: the lowest) of `height`."""
    if value <= 0 or top <= 0:
        return " "
    eighths = max(round(min(value / top, 1.0) * height * 8), 1) - row * 8
    return _EIGHTHS[min(max(eighths, 0), 8)]
