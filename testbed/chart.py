"""Charts: axes with numbers or names on them, series of points told apart by their marks, heat maps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.drawing import FAINT, FIRST, INK, PAPER, SECOND, SOFT, Drawing, Point, width_of

MARKS = ("dot", "square", "ring", "diamond", "triangle")
COLOURS = {"dot": FIRST, "square": SECOND, "ring": INK, "diamond": INK, "triangle": FIRST}
SMALL = 10.5


@dataclass(frozen=True)
class Series:
    """Points (x, y) under a name, with a mark of their own; joined by a line where ``dash`` is not None, "" for a whole one."""

    name: str
    points: Sequence[Point]
    mark: str = ""
    dash: str | None = None
    colour: str = INK


@dataclass
class Area:
    """Where a chart is, and how numbers become places. ``names`` are what stands at the x of 0, 1, 2, ... instead of numbers."""

    drawing: Drawing
    left: float
    top: float
    width: float
    height: float
    x_title: str
    y_title: str
    x_most: float
    y_most: float
    x_least: float = 0.0
    names: Sequence[str] = field(default=())
    whole: bool = False
    """There is nothing between two whole numbers."""

    def at(self, x: float, y: float) -> Point:
        across = (x - self.x_least) / max(self.x_most - self.x_least, 1e-9)
        return self.left + across * self.width, self.top + self.height * (1 - y / self.y_most)

    def axes(self) -> None:
        """Lines, numbers, titles."""
        drawing = self.drawing
        for tick in ticks(0, self.y_most, whole=self.whole):
            _, y = self.at(self.x_least, tick)
            drawing.line((self.left, y), (self.left + self.width, y), stroke=FAINT)
            drawing.text((self.left - 6, y + 4), f"{tick:g}", size=SMALL, anchor="end", fill=SOFT)
        places = (
            list(enumerate(self.names))
            if self.names
            else [(tick, f"{tick:g}") for tick in ticks(self.x_least, self.x_most, whole=self.whole)]
        )
        for place, name in places:
            x, _ = self.at(place, 0)
            drawing.line((x, self.top + self.height), (x, self.top + self.height + 4), stroke=SOFT)
            drawing.text((x, self.top + self.height + 17), name, size=SMALL, anchor="middle", fill=SOFT)
        drawing.line((self.left, self.top + self.height), (self.left + self.width, self.top + self.height), stroke=SOFT)
        drawing.text((self.left + self.width / 2, self.top + self.height + 36), self.x_title, size=SMALL, anchor="middle")
        drawing.text((self.left - 34, self.top - 12), self.y_title, size=SMALL)

    def draw(self, series: Sequence[Series]) -> None:
        """The lines, then the marks on them."""
        for one in series:
            if one.dash is not None and len(one.points) > 1:
                self.drawing.path([self.at(*point) for point in sorted(one.points)], stroke=one.colour, width=1.8, dash=one.dash)
        for one in series:
            for point in one.points if one.mark else ():
                mark(self.drawing, self.at(*point), one.mark)

    def legend(self, series: Sequence[Series], at: Point) -> float:
        """A line for each; gives the height of the next."""
        x, y = at
        for one in series:
            if one.dash is not None:
                self.drawing.line((x, y - 4), (x + 26, y - 4), stroke=one.colour, width=1.8, dash=one.dash)
            if one.mark:
                mark(self.drawing, (x + 13, y - 4), one.mark)
            self.drawing.text((x + 34, y), one.name, size=SMALL)
            y += 19
        return y


def mark(drawing: Drawing, at: Point, kind: str) -> None:
    """One of MARKS, in its colour."""
    x, y = at
    colour = COLOURS[kind]
    if kind == "square":
        drawing.square(at, radius=4.5, fill=colour, stroke=colour)
    elif kind == "diamond":
        drawing.path([(x - 6, y), (x, y - 6), (x + 6, y), (x, y + 6)], stroke=colour, fill=PAPER)
    elif kind == "triangle":
        drawing.path([(x - 5.5, y + 4.5), (x, y - 5.5), (x + 5.5, y + 4.5)], stroke=colour, fill=colour)
    elif kind == "ring":  # wide, so that a dot in the same place is seen in it
        drawing.dot(at, radius=7, fill="none", stroke=colour)
    else:
        drawing.dot(at, radius=4, fill=colour, stroke=colour)


def ticks(least: float, most: float, *, whole: bool = False) -> list[float]:
    """Round numbers from ``least`` to ``most``, at most eight."""
    sizes = (size * 10.0**power for power in range(0 if whole else -3, 12) for size in (1, 2, 5))
    step = next(size for size in sizes if (most - least) / size <= 7)
    first = -int(-least // step) if least > 0 else int(least // step)
    return [round(at * step, 6) for at in range(first, int(most / step + 1e-9) + 1) if at * step >= least]


def table(
    drawing: Drawing,
    at: Point,
    widths: Sequence[float],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    row_height: float = 26,
    bad: Mapping[str, str] | None = None,
) -> float:
    """A table with lines; cells whose text is a key of ``bad`` are hatched. Gives the height below it."""
    x0, y = at
    for number, row in enumerate([head, *rows]):
        x = x0
        for wide, text in zip(widths, row, strict=True):
            if number and bad and text in bad:
                drawing.hatched(x, y, wide, row_height, stroke="#e7b98f", gap=6)
                around = width_of(text, SMALL, bold=True) + 10
                drawing.box(x + (wide - around) / 2, y + 5, around, row_height - 10, stroke=SECOND, round_=3)
                drawing.text((x + wide / 2, y + row_height / 2 + 4), text, size=SMALL, anchor="middle", bold=True, fill=SECOND)
            else:
                drawing.box(x, y, wide, row_height, stroke=FAINT, fill="#f3f5f7" if number == 0 else PAPER)
                first = x == x0
                spot = (x + 8, y + row_height / 2 + 4) if first else (x + wide / 2, y + row_height / 2 + 4)
                drawing.text(spot, text, size=SMALL, anchor="start" if first else "middle", bold=number == 0)
            x += wide
        y += row_height
    return y
