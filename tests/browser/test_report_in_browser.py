"""A report in a browser, as people see it: at two widths and on paper no text lies on another, and nothing sticks out.

Not part of `make test`, as a browser is 300 MB of Debian packages: `make check-report` (apt-get install chromium).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest

from testbed import experiment_find as finding
from testbed.experiment_report import report
from testbed.verbs_report import collect

RECORDS = Path(__file__).parents[1] / "unit" / "records"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Each text in its lines; two of them may touch, and an element may be a little wider by rounding.
LOOK = """
const page = frame.contentDocument, rects = [], found = {overlaps: [], outside: [], width: page.documentElement.scrollWidth};
if (SCROLLS) for (const one of page.querySelectorAll("details")) one.open = true;
const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode;
  if (!node.data.trim() || node.parentElement.closest("title, desc, style, .skip")) continue;
  if (!node.parentElement.checkVisibility()) continue;
  const range = page.createRange(); range.selectNodeContents(node);
  for (const one of range.getClientRects())
    if (one.width > 1 && one.height > 1) rects.push([one.left, one.top, one.right, one.bottom, node.data.trim().slice(0, 40), node]);
}
rects.sort((a, b) => a[1] - b[1]);
for (let i = 0; i < rects.length; i++)
  for (let j = i + 1; j < rects.length && rects[j][1] < rects[i][3] - 2; j++) {
    const [a, b] = [rects[i], rects[j]];
    if (a[5] !== b[5] && a[0] < b[2] - 1 && b[0] < a[2] - 1 && b[3] > a[1] + 2) found.overlaps.push([a[4], b[4]]);
  }
for (const [left, , right, , text, node] of rects)
  if ((right > WIDTH + 1 || left < 0) && !(SCROLLS && node.parentElement.closest(".scroll"))) found.outside.push(text);
for (const svg of page.querySelectorAll("svg")) {
  const frame_ = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll("text")) {
    const one = text.getBoundingClientRect();
    if (one.left < frame_.left - 1 || one.right > frame_.right + 1 || one.bottom > frame_.bottom + 1) found.outside.push(text.textContent);
  }
}
document.getElementById("found").textContent = JSON.stringify(found);
"""
PAPER = 695  # dots of 1/96 inch: A4 without the margins


def look(html: str, width: int, directory: Path, *, on_paper: bool = False) -> dict[str, object]:
    """What a browser finds of a page in a frame of that width."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, "there is no browser: apt-get install chromium"
    shown = html.replace("@media print", "@media all").replace("@media (max-width", "@media not all and (max-width") if on_paper else html
    code = LOOK.replace("WIDTH", str(width)).replace("SCROLLS", "false" if on_paper else "true")
    file = directory / "frame.html"
    file.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><body style="margin:0"><pre id="found"></pre>'
        f'<iframe id="frame" style="border:0;width:{width}px;height:2000px" srcdoc="{escape(shown, quote=True)}"></iframe>'
        f'<script>const frame = document.getElementById("frame"); frame.onload = () => {{{code}}};</script>'
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={directory}/profile",
        "--virtual-time-budget=10000",
    ]
    done = subprocess.run([browser, *options, "--dump-dom", file.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text, done.stderr[-2000:]
    data: dict[str, object] = json.loads(text[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    return data


@pytest.fixture(scope="module")
def page() -> str:
    given, _ = collect([RECORDS])
    return report(given, finding.known(), made="Made now.")


@pytest.mark.parametrize(("width", "on_paper"), [(1280, False), (390, False), (PAPER, True)], ids=["wide", "narrow", "paper"])
def test_no_text_lies_on_another_and_nothing_sticks_out(page: str, width: int, on_paper: bool, tmp_path: Path) -> None:
    found = look(page, width, tmp_path, on_paper=on_paper)
    assert found["overlaps"] == []
    assert found["outside"] == []
    assert found["width"] == width


@pytest.mark.parametrize(
    ("spoilt", "what"),
    [
        ('<p style="margin-top:-1.2rem">one line of text upon another</p>', "overlaps"),
        (f'<p style="overflow-wrap: normal">{"x" * 400}</p>', "outside"),
    ],
)
def test_what_is_spoilt_is_found(page: str, spoilt: str, what: str, tmp_path: Path) -> None:
    broken = page.replace("<header>", f"<header><p>some line of text</p>{spoilt}", 1)
    assert look(broken, 390, tmp_path)[what]
