"""Drawings as SVG: lines, boxes and texts whose places are known, so that it can be said whether two of them overlap. Pure.

Everything is drawn to be read in black and white: fills are patterns, and what a colour says a mark or a word says as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import Literal

INK, SOFT, FAINT, PAPER = "#1b1f24", "#57606a", "#d0d7de", "#ffffff"
# Two that are told apart with every kind of colour blindness, and in grey.
FIRST, SECOND = "#0b5394", "#b45309"
FAMILY = "'DejaVu Sans', Verdana, Geneva, sans-serif"
SIZE = 12.0
LINE = 1.3  # of a line's height to its size

# Advance widths of DejaVu Sans, in hundredths of the size, from the space to the tilde: as wide as any usual font, so what fits fits.
# fmt: off
_WIDTHS = (
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 84, 84, 84, 53,
    100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69, 61, 69, 39, 34, 39, 84, 50,
    50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59, 82, 59, 59, 52, 64, 34, 64, 84,
)
# fmt: on
_OTHER, _BOLD = 100, 1.14
_CAP, _DESCENT = 0.76, 0.24  # of the size: above and below the line that a text stands on

Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]


def width_of(text: str, size: float = SIZE, *, bold: bool = False) -> float:
    """How wide a text is at most."""
    hundredths = sum(_WIDTHS[ord(one) - 32] if 32 <= ord(one) < 127 else _OTHER for one in text)
    return hundredths / 100 * size * (_BOLD if bold else 1)


def wrapped(text: str, width: float, size: float = SIZE, *, most: int = 0, bold: bool = False) -> list[str]:
    """A text in lines that are at most so wide, broken at spaces, else anywhere; of more than ``most`` lines the last ends with dots."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        grown = f"{line} {word}" if line else word
        if width_of(grown, size, bold=bold) <= width:
            line = grown
            continue
        lines += [line] if line else []
        line = word
        while width_of(line, size, bold=bold) > width and len(line) > 1:
            end = next(at for at in range(len(line) - 1, 0, -1) if at == 1 or width_of(line[:at], size, bold=bold) <= width)
            lines.append(line[:end])
            line = line[end:]
    lines += [line] if line else []
    if most and len(lines) > most:
        last = lines[most - 1]
        while last and width_of(f"{last}…", size, bold=bold) > width:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return lines


@dataclass(frozen=True)
class Box:
    """A rectangle, and what is in it."""

    left: float
    top: float
    right: float
    bottom: float
    text: str

    def overlaps(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom


class Drawing:
    """A picture with a title and a description for those who do not see it. ``height`` may be set at the end."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width = width
        self.height = height
        self.title = title
        self.description = description
        self.texts: list[Box] = []
        self._parts: list[str] = []

    def line(self, begin: Point, end: Point, *, stroke: str = INK, width: float = 1, dash: str = "") -> None:
        self.path([begin, end], stroke=stroke, width=width, dash=dash)

    def path(self, points: Sequence[Point], *, stroke: str = INK, width: float = 1, dash: str = "", fill: str = "none") -> None:
        """A line through points; filled it is a shape, with ``stroke`` "none" without an edge."""
        steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind = "polyline" if fill == "none" else "polygon"
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<{kind} points="{steps}" fill="{fill}" stroke="{stroke}" stroke-width="{width:g}"{dashes}/>')

    def box(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        *,
        fill: str = PAPER,
        stroke: str = INK,
        round_: float = 0,
        dash: str = "",
    ) -> None:
        """A rectangle."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        corner = f' rx="{round_:g}"' if round_ else ""
        self._parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{fill}" stroke="{stroke}"{corner}{dashes}/>'
        )

    def hatched(
        self, left: float, top: float, width: float, height: float, *, stroke: str = INK, gap: float = 5, cross: bool = False
    ) -> None:
        """A rectangle with lines from lower left to upper right, and across them if ``cross``."""
        self.box(left, top, width, height, stroke=stroke)
        for falls in (False, True) if cross else (False,):
            at = gap
            while at < width + height:
                ends = _chord(at, width, height)
                if ends is not None:
                    (ax, ay), (bx, by) = ends
                    if falls:
                        ax, bx = width - ax, width - bx
                    self.line((left + ax, top + ay), (left + bx, top + by), stroke=stroke, width=0.8)
                at += gap

    def dot(self, at: Point, *, radius: float = 4, fill: str = INK, stroke: str = INK) -> None:
        """A circle."""
        self._parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>')

    def square(self, at: Point, *, radius: float = 4, fill: str = INK, stroke: str = INK) -> None:
        """A square as a mark."""
        self.box(at[0] - radius, at[1] - radius, 2 * radius, 2 * radius, fill=fill, stroke=stroke)

    def cross(self, at: Point, *, radius: float = 5, stroke: str = SECOND) -> None:
        """Something that ended here."""
        x, y = at
        self.line((x - radius, y - radius), (x + radius, y + radius), stroke=stroke, width=2)
        self.line((x - radius, y + radius), (x + radius, y - radius), stroke=stroke, width=2)

    def arrow(self, begin: Point, end: Point, *, stroke: str = INK, width: float = 1.3, dash: str = "", head: bool = True) -> None:
        """A line with a head."""
        self.line(begin, end, stroke=stroke, width=width, dash=dash)
        if head:
            (ax, ay), (bx, by) = begin, end
            length = max(((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5, 0.1)
            ux, uy = (bx - ax) / length, (by - ay) / length
            back = (bx - 8 * ux, by - 8 * uy)
            self.path([end, (back[0] - 4 * uy, back[1] + 4 * ux), (back[0] + 4 * uy, back[1] - 4 * ux)], stroke=stroke, fill=stroke)

    def text(
        self,
        at: Point,
        text: str,
        *,
        size: float = SIZE,
        anchor: Anchor = "start",
        fill: str = INK,
        bold: bool = False,
        halo: bool = False,
    ) -> None:
        """A line of text that stands on the point's height; with a ``halo`` what is behind it does not disturb."""
        x, y = at
        width = width_of(text, size, bold=bold)
        left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
        self.texts.append(Box(left, y - _CAP * size, left + width, y + _DESCENT * size, text))
        more = ' font-weight="bold"' if bold else ""
        more += f' text-anchor="{anchor}"' if anchor != "start" else ""
        more += f' stroke="{PAPER}" stroke-width="4" stroke-linejoin="round" paint-order="stroke"' if halo else ""
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}"{more}>{escape(text)}</text>')

    def lines(
        self, at: Point, lines: Iterable[str], *, size: float = SIZE, anchor: Anchor = "start", fill: str = INK, bold: bool = False
    ) -> float:
        """Lines of text, the first one on the point's height; gives the height of the line that would come next."""
        x, y = at
        for one in lines:
            self.text((x, y), one, size=size, anchor=anchor, fill=fill, bold=bold)
            y += size * LINE
        return y

    def svg(self, *, alone: bool = False) -> str:
        """The picture, for a page, or as a file of its own."""
        head = '<?xml version="1.0" encoding="UTF-8"?>\n' if alone else ""
        return (
            f'{head}<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" '
            f'height="{self.height:.0f}" role="img" font-family="{FAMILY}">\n'
            f"<title>{escape(self.title)}</title>\n<desc>{escape(self.description)}</desc>\n"
            f'<rect width="{self.width:.0f}" height="{self.height:.0f}" fill="{PAPER}"/>\n' + "\n".join(self._parts) + "\n</svg>\n"
        )


def overlapping(drawing: Drawing) -> list[tuple[str, str]]:
    """Texts that overlap, in pairs, and those that stick out of the picture, beside the word "edge"."""
    found = [(one.text, other.text) for one, other in combinations(drawing.texts, 2) if one.overlaps(other)]
    outside = [one for one in drawing.texts if one.left < 0 or one.top < 0 or one.right > drawing.width or one.bottom > drawing.height]
    return found + [(one.text, "edge") for one in outside]


def _chord(at: float, width: float, height: float) -> tuple[Point, Point] | None:
    """Where the line x + y = at enters and leaves a rectangle with its corner at 0, 0."""
    begin = (at, 0.0) if at <= width else (width, at - width)
    end = (0.0, at) if at <= height else (at - height, height)
    return None if begin == end else (begin, end)
