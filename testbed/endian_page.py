"""The result of `testbed endian` as one HTML page that needs nothing beside it: the pairs, and each finding with both hosts' bytes."""

from __future__ import annotations

from html import escape

from testbed.endian_groups import grouped
from testbed.endian_report import BYTES_IN_ROW, Cell, cells, rows_of, seen_in, sides, summary, verdict, who, written
from testbed.endian_run import Outcome
from testbed.endian_runs import Finding

STYLE = """
:root { color-scheme: light dark; --wrong: #b3261e; --good: #1a6e35; --quiet: #5f6368; --line: #c8c8c8; --mark: #fbe0dd; }
@media (prefers-color-scheme: dark) {
  :root { --wrong: #ff8a80; --good: #7bd88f; --quiet: #a0a4a8; --line: #4a4a4a; --mark: #57221e; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
.verdict { font-weight: bold; margin: 0 0 1rem; }
.scroll { overflow-x: auto; } pre { white-space: pre-wrap; }
table { border-collapse: collapse; }
.pairs th, .pairs td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.pairs th, .pairs td { overflow-wrap: normal; }
.finding { border-top: 2px solid var(--line); margin-top: 1.5rem; padding-top: 1rem; break-inside: avoid; }
.wrong { color: var(--wrong); } .good { color: var(--good); } .quiet { color: var(--quiet); }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 31rem), 1fr)); gap: 1rem; margin: .75rem 0; }
.sides figure { margin: 0; min-width: 0; }
figcaption { color: var(--quiet); }
.bytes { font: 14px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.bytes td { padding: 0 .2em; white-space: pre; } .bytes .offset { color: var(--quiet); padding-right: .8em; text-align: right; }
.bytes .text { padding-left: .8em; }
/* A marked byte is bold and boxed: to be seen without colour too. */
mark { background: var(--mark); color: inherit; font-weight: bold; outline: 1px solid var(--wrong); }
ul { padding-left: 1.25rem; margin: .25rem 0; }
@media (max-width: 30rem) {
  .bytes { font-size: 9.5px; } .bytes td { padding: 0 .18em; } .bytes .offset { padding-right: .4em; } .bytes .text { padding-left: .4em; }
  .pairs { font-size: 12px; } .pairs th, .pairs td { padding-right: .4rem; }
}
/* On paper: black on white whatever the screen has, one host's bytes under the other's, so that a row is 12 cm wide. Backgrounds are
   not printed as a rule: a marked byte is bold and in a box. */
@media print {
  :root { color-scheme: light; --wrong: #000; --good: #000; --quiet: #444; --line: #888; --mark: transparent; }
  body { max-width: none; padding: 0; font-size: 10pt; color: #000; background: none; }
  .scroll { overflow: visible; } .sides { grid-template-columns: 1fr; } .bytes { font-size: 8.5pt; }
  .bytes .text mark { outline: none; text-decoration: underline; }
  figure, tr { break-inside: avoid; } h2, figcaption { break-after: avoid; } .pairs .wrong { font-weight: bold; }
}
"""


def page(outcome: Outcome) -> str:
    """The whole page."""
    what = verdict(outcome)
    title = f"testbed endian: {what.lower()}"
    judged = outcome.judgement
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        "<h1>Is it the same on both byte orders?</h1>",
        f'<p class="verdict {"good" if what == "NO FINDING" else "wrong"}">{_text(summary(outcome))}</p>',
        _pairs(outcome),
        *(_finding(number, one, alone=outcome.alone) for number, one in enumerate(grouped(judged.findings), 1)),
        *_list("May follow from that", judged.consequences),
        *_list("Nothing can be said", judged.inconclusive),
        *(_output(heading, lines) for heading, lines in written(outcome)),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _pairs(outcome: Outcome) -> str:
    headings, rows = cells(outcome)
    head = "".join(f'<th scope="col">{_text(one)}</th>' for one in headings)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table class="pairs">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _cell(cell: Cell) -> str:
    style = "" if cell.well is None else f' class="{"good" if cell.well else "wrong"}"'
    return f"<td{style}>{_text(cell.text)}</td>"


def _finding(number: int, one: Finding, *, alone: bool) -> str:
    details = "".join(f"<li>{_text(line)}</li>" for line in one.details)
    return "\n".join(
        (
            f'<section class="finding" id="finding-{number}">',
            f'<h2>{number}. {_text(who(one))}<span class="wrong">{_text(one.title)}</span></h2>',
            f"<ul>{details}</ul>" if details else "",
            _sides(one) if one.difference and one.channel and not one.channel.is_port else "",
            "" if alone else f'<p class="quiet">{_text(seen_in(one))}</p>',
            "</section>",
        )
    )


def _sides(one: Finding) -> str:
    figures = [
        f"<figure><figcaption>{name} host, {len(data)} bytes</figcaption>"
        f'<div class="scroll"><table class="bytes"><tbody>{_rows(data, marked)}</tbody></table></div></figure>'
        for name, data, marked in sides(one)
    ]
    return f'<div class="sides">{"".join(figures)}</div>'


def _rows(data: bytes, marked: range) -> str:
    return "\n".join(_hex_row(data, begin, marked) for begin in rows_of(data, marked))


def _hex_row(data: bytes, begin: int, marked: range) -> str:
    shown = range(begin, min(begin + BYTES_IN_ROW, len(data)))
    hexadecimal = "".join(f"<td>{_marked(f'{data[at]:02x}', wrong=at in marked)}</td>" for at in shown)
    empty = "<td></td>" * (BYTES_IN_ROW - len(shown))
    text = "".join(_marked(chr(data[at]) if 0x20 <= data[at] < 0x7F else ".", wrong=at in marked) for at in shown)
    return f'<tr><td class="offset">{begin}</td>{hexadecimal}{empty}<td class="text">{text}</td></tr>'


def _marked(text: str, *, wrong: bool) -> str:
    return f"<mark>{escape(text)}</mark>" if wrong else escape(text)


def _list(heading: str, lines: tuple[str, ...]) -> list[str]:
    if not lines:
        return []
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return [f'<section class="finding"><h2>{heading}</h2><ul>{items}</ul></section>']


def _output(heading: str, lines: list[str]) -> str:
    text = "\n".join(map(_text, lines))
    return f'<section class="finding"><h2>{_text(heading)}</h2><div class="scroll"><pre>{text}</pre></div></section>'


def _text(text: str) -> str:
    """What a program wrote may be in it: nothing of it is markup, and what is not to be seen is shown as an escape."""
    return escape("".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text))
