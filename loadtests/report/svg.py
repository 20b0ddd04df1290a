"""Charts as SVG that takes its colours from the page, so that light and dark both look right.

A chart is drawn on a small canvas and grows with its column; text stays readable on a phone. Every
mark has a title, which browsers show on hovering and screen readers read.

    chart = Chart(x=Scale(0, 100), y=Scale(1, 1000, logarithmic=True), x_label="requests/s")
    chart.line([(10, 5), (90, 60)], series=1, title="p99")
    chart.svg("Latency over load")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, inf, log10

WIDTH, HEIGHT = 420, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 42
SERIES = 8  # colours; also shapes of marks, since not everyone tells colours apart
_SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-4,-4h8v8h-8z",
    "M0,-5L5,4H-5z",
    "M0,-5.5L5.5,0L0,5.5L-5.5,0z",
    "M-5,-4H5L0,5z",
    "M-1.5,-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
)


@dataclass(frozen=True)
class Scale:
    """From a value to a share of an axis; values outside stick to its ends."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = log10(low), log10(high), log10(max(value, 1e-12))
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5

    def ticks(self) -> list[float]:
        """Round values: about five, or 1, 2, 5 of each power of ten where there are few powers."""
        if self.logarithmic:
            powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            steps = (1, 2, 5) if len(powers) <= 4 else (1,)
            found = [step * 10.0**power for power in powers for step in steps]
        if not self.logarithmic or sum(self.low <= tick <= self.high for tick in found) < 2:
            step = _round_step((self.high - self.low) / 5)
            first = ceil(self.low / step - 1e-9)
            found = [n * step for n in range(first, floor(self.high / step + 1e-9) + 1)]
        return [tick for tick in found if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]


def linear(values: Sequence[float], *, zero: bool = True) -> Scale:
    """A scale that holds the values, with some room above and, without `zero`, below."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * ((high - low) or abs(high) or 1.0)
    return Scale(0.0 if zero else low - room, high + room)


def logarithmic(values: Sequence[float]) -> Scale:
    """A logarithmic scale that holds the values, which are positive."""
    low, high = min(values, default=1.0), max(values, default=10.0)
    return Scale(low / 1.3, high * 1.3, logarithmic=True)


@dataclass
class Chart:
    """x grows to the right, y upwards; both in the units of their scales."""

    x: Scale
    y: Scale
    x_label: str = ""
    y_label: str = ""
    y_unit: str = ""
    _marks: list[str] = field(default_factory=list)

    def line(self, points: Sequence[tuple[float, float]], series: int, title: str) -> None:
        if len(points) > 1:
            path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, points))
            self._marks.append(
                f'<path class="line s{series % SERIES}" d="{path}">{_t(title)}</path>'
            )

    def mark(
        self,
        x: float,
        y: float,
        series: int,
        title: str,
        *,
        faint: bool = False,
        hollow: bool = False,
        size: float = 1,
    ) -> None:
        across, down = self._at((x, y))
        kind = "faint " if faint else ""
        shape = _SHAPES[series % len(_SHAPES)]
        style = f' style="fill:none;stroke:var(--s{series % SERIES})"' if hollow else ""
        self._marks.append(
            f'<path class="{kind}mark s{series % SERIES}" d="{shape}"{style} '
            f'transform="translate({across:.1f},{down:.1f}) scale({size:.2f})">{_t(title)}</path>'
        )

    def level(self, y: float, label: str) -> None:
        """A dashed line across the chart, named at its left end."""
        _, down = self._at((self.x.low, y))
        self._marks.append(
            f'<line class="level" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down:.1f}" '
            f'y2="{down:.1f}"/><text class="level" x="{_LEFT + 5}" y="{down - 5:.1f}">'
            f"{escape(label)}</text>"
        )

    def spread(
        self,
        point: tuple[float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        series: int,
    ) -> None:
        """A cross of intervals through a point."""
        across, down = self._at(point)
        (left, top), (right, bottom) = self._at((x[0], y[1])), self._at((x[1], y[0]))
        self._marks.append(
            f'<path class="whisker s{series % SERIES}" '
            f'd="M{left:.1f},{down:.1f}H{right:.1f}M{across:.1f},{top:.1f}V{bottom:.1f}"/>'
        )

    def label(self, x: float, y: float, text: str, *, below: bool = False) -> None:
        """Beside a point, to the side where there is more room; above it, or `below`."""
        across, down = self._at((x, y))
        left = across > WIDTH * 0.62
        anchor, offset = ("end", -9) if left else ("start", 9)
        self._marks.append(
            f'<text class="name" x="{across + offset:.1f}" y="{down + (18 if below else -8):.1f}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def svg(self, title: str) -> str:
        """The whole picture; `title` is for those who cannot see it."""
        grid = "".join(self._grid())
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title, quote=True)}">{grid}{"".join(self._marks)}</svg>'
        )

    def _grid(self) -> Iterator[str]:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        for tick in self.x.ticks():
            across = self._at((tick, self.y.low))[0]
            yield f'<text x="{across:.1f}" y="{bottom + 16}" text-anchor="middle">'
            yield f"{number(tick)}</text>"
        for tick in self.y.ticks():
            down = self._at((self.x.low, tick))[1]
            yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{down:.1f}" y2="{down:.1f}"/>'
            yield (
                f'<text x="{_LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">'
                f"{number(tick)}{self.y_unit}</text>"
            )
        yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
        yield (
            f'<text class="axis" x="{(_LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escape(self.x_label)}</text>"
        )
        yield (
            f'<text class="axis" transform="translate(12,{(_TOP + bottom) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(self.y_label)}</text>'
        )

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        x, y = self.x.share(point[0]), self.y.share(point[1])
        across = _LEFT + x * (WIDTH - _LEFT - _RIGHT)
        return across, HEIGHT - _BOTTOM - y * (HEIGHT - _TOP - _BOTTOM)


def bar(
    value: float, low: float | None, high: float | None, most: float, series: int, title: str
) -> str:
    """A bar from 0 of `most`, with its interval: for a cell of a table."""
    scale = 300 / most if most else 0
    whisker = ""
    if low is not None and high is not None:
        high = min(high, most)
        whisker = (
            f'<path class="whisker ink" d="M{low * scale:.1f},8V20M{high * scale:.1f},8V20'
            f'M{low * scale:.1f},14H{high * scale:.1f}"/>'
        )
    return (
        f'<svg class="bar" viewBox="0 0 300 28" preserveAspectRatio="none" role="img">{_t(title)}'
        f'<rect class="fill s{series % SERIES}" x="0" y="4" width="{max(1.0, value * scale):.1f}" '
        f'height="20" rx="3"/>{whisker}</svg>'
    )


def stack(parts: Sequence[tuple[str, float]], most: float, title: str) -> str:
    """A bar of parts, one after the other, each a colour of its own: for a cell of a table."""
    scale, at, found = 300 / most if most else 0, 0.0, []
    for number_, (name, value) in enumerate(parts):
        width = value * scale
        found.append(
            f'<rect class="part p{number_}" x="{at:.2f}" y="4" width="{width:.2f}" height="20">'
            f"{_t(f'{name}: {value:.2f} ms')}</rect>"
        )
        at += width
    return (
        f'<svg class="bar" viewBox="0 0 300 28" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(found)}</svg>'
    )


def number(value: float) -> str:
    """Three digits at most, thousands apart: 0.25, 5, 1,200."""
    if value == 0 or abs(value) == inf:
        return f"{value:g}"
    digits = max(0, 2 - floor(log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _t(title: str) -> str:
    return f"<title>{escape(title)}</title>"


def _round_step(least: float) -> float:
    power = 10.0 ** floor(log10(least)) if least > 0 else 1.0
    return next((step * power for step in (1, 2, 5) if step * power >= least), 10 * power)
