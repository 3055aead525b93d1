"""The report of records: the matrix, what is missing, what is wrong, pictures, escaping; and that it stands alone."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from testbed import cli
from testbed import experiment_find as finding
from testbed.drawing import overlapping
from testbed.errors import InputError
from testbed.experiment import Record
from testbed.experiment_pages import pages
from testbed.experiment_report import ladder_of, picture_of, report, shown_value
from testbed.experiment_results import Saved, joined, results_of, summary
from testbed.verbs_report import collect

RECORDS = Path(__file__).parent / "records"
ALL = finding.known()
GIVEN = collect([RECORDS])[0]
WITH_PICTURE = [name for name, one in ALL.items() if one.picture is not None]
EVIL = "<script>alert(1)</script>\"'&"


def of(name: str) -> list[Saved]:
    return [one for one in GIVEN if one.record.experiment == name]


def native(name: str) -> Saved:
    (found,) = [one for one in of(name) if one.record.facts.kind == "native"]
    return found


def page_of(saved: list[Saved], *names: str, **more: object) -> str:
    return report(saved, {name: ALL[name] for name in names} if names else ALL, made="Made now.", **more)  # type: ignore[arg-type]


def words(html: str) -> str:
    """The text of a page, without its markup."""
    return re.sub(r"\s+", " ", re.sub(r"<(style|svg).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL))


def section(html: str, name: str) -> str:
    return html.partition(f'<section class="claim" id="{name}">')[2].partition("</section>")[0]


class Outline(HTMLParser):
    """What a page refers to, its ids, and the levels of its headings; and whether its elements are closed in order."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.levels: list[int] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name in ("href", "src", "xlink:href") if (value := given.get(name))]
        self.ids += [value] if (value := given.get("id")) else []
        self.levels += [int(tag[1])] if re.fullmatch(r"h\d", tag) else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_claim_of_every_record_is_in_the_matrix() -> None:
    html = page_of(GIVEN)
    for one in ALL.values():
        assert f'<a href="#{one.name}">' in html
        assert section(html, one.name), one.name
    assert summary(results_of(GIVEN, ALL), ALL).startswith(f"25 of 25 claims were tried, in {len(GIVEN)} runs: ")


def test_the_page_needs_nothing_else() -> None:
    html = page_of(GIVEN)
    outline = Outline(html)
    assert outline.open == []
    assert [one for one in outline.links if not one.startswith("#")] == []
    assert {one[1:] for one in outline.links} <= set(outline.ids)
    assert len(set(outline.ids)) == len(outline.ids)
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.tags)
    assert "url(" not in html
    assert "@import" not in html


def test_headings_skip_no_level() -> None:
    levels = Outline(page_of(GIVEN)).levels
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_picture_says_what_it_shows() -> None:
    html = page_of(GIVEN)
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) >= len(WITH_PICTURE)
    for one in drawings:
        tree = ET.fromstring(one)
        assert tree.get("role") == "img"
        told = [tree.findtext(f"{{http://www.w3.org/2000/svg}}{tag}") for tag in ("title", "desc")]
        assert all(told), told


def test_what_was_not_run_is_not_run_and_never_passed() -> None:
    html = page_of([native("accept-queue")], "accept-queue", "htonl")
    assert "1 of 2 claims were tried" in html
    assert "Claims that were not run at all: 1." in html
    matrix = html.partition('id="matrix"')[2].partition("</section>")[0]
    assert matrix.count("not run") == 3  # htonl on both, accept-queue on vm s390x
    assert "as predicted" not in words(section(html, "htonl"))
    assert "HOLDS" not in words(section(html, "htonl"))
    assert "nothing was run" in page_of([], "htonl")


def test_what_a_kind_of_host_cannot_show_is_said_with_the_reason() -> None:
    emulated = next(one for one in of("htonl") if one.record.facts.kind == "emulated")
    html = page_of([emulated, native("accept-queue")], "htonl", "accept-queue")
    assert "cannot show it: the queues are the kernel" in section(html, "accept-queue")


def test_a_wrong_number_is_marked_with_a_sign_and_a_word() -> None:
    good = native("htonl")
    cell = good.record.cells[0]
    wrong = replace(good.record, cells=[replace(cell, seen={**cell.seen, "htons": "0x102"})])
    html = page_of([Saved("bad.json", wrong)], "htonl")
    assert "✗ 0x102, not 0x201" in html
    assert "✗ 1 of 5 numbers not as predicted" in words(html)
    assert "Runs that are NOT as predicted: 1." in html


def test_a_cell_that_broke_is_inconclusive() -> None:
    good = native("htonl")
    broken = replace(good.record, cells=[replace(good.record.cells[0], seen={}, problem=f"it broke {EVIL}")])
    html = page_of([Saved("bad.json", broken)], "htonl")
    assert "INCONCLUSIVE" in html
    assert "nothing to compare" in html
    assert "<script>" not in html


def test_nothing_of_a_record_becomes_markup() -> None:
    good = native("accept-queue")
    facts = replace(good.record.facts, kernel=EVIL, kernel_of=EVIL)
    cells = [replace(one, cell=EVIL, seen={**one.seen, "limit": EVIL}) for one in good.record.cells]
    record = replace(good.record, facts=facts, cells=cells, versions={EVIL: EVIL}, begun=EVIL, set_by_user={EVIL: EVIL})
    html = page_of([Saved(EVIL, record)], "accept-queue", notes=[EVIL])
    assert "<script>" not in html
    assert Outline(html).open == []


def test_the_newest_record_as_it_is_by_itself_counts() -> None:
    one = native("two-queues").record
    other = {**one.facts.parameters, "complete": 5}
    old = replace(one, begun="2025-01-01T00:00:00+00:00")
    new = replace(one, begun="2026-01-01T00:00:00+00:00")
    set_ = replace(one, begun="2027-01-01T00:00:00+00:00", facts=replace(one.facts, parameters=other))
    ((_, result),) = results_of([Saved("old", old), Saved("new", new), Saved("set", set_)], ALL).items()
    assert (result.saved.name, result.runs, result.alike) == ("new", 2, 2)
    assert "the same numbers in 2 of 2 runs" in page_of([Saved("old", old), Saved("new", new)], "two-queues")
    assert "not as it is by itself: complete=5" in page_of([Saved("set", set_)], "two-queues")


def test_how_to_run_it_again_names_the_kinds() -> None:
    html = section(page_of(GIVEN), "accept-queue")
    assert "testbed experiment run accept-queue --on vm-amd64 --kernel trixie" in html
    assert "testbed experiment run accept-queue --on vm-s390x --kernel bookworm" in html


def test_long_values_are_cut() -> None:
    assert shown_value(list(range(100))).endswith("…")
    assert shown_value(True) == "true"
    assert shown_value(["ESTABLISHED", 2, True]) == "ESTABLISHED, 2, true"
    assert shown_value([]) == "none"
    assert shown_value([["a", 1]]) == '[["a", 1]]'


# Pictures


@pytest.mark.parametrize("name", WITH_PICTURE)
@pytest.mark.parametrize("number", [1, 3])
def test_a_picture_of_records_has_no_text_upon_another(name: str, number: int) -> None:
    drawing, problem = picture_of(ALL[name], [one.record for one in of(name)][:number])
    assert drawing is not None, problem
    assert overlapping(drawing) == []
    assert drawing.description


def test_the_eight_pictures_are_there() -> None:
    assert {ALL[name].id for name in WITH_PICTURE} >= {"D1", "C2", "C3", "C5", "C6", "A5", "E3", "D3"}


@pytest.mark.parametrize("name", WITH_PICTURE)
def test_a_picture_of_nothing_is_none(name: str) -> None:
    one = native(name).record
    empty = replace(one, cells=[replace(cell, seen={}, problem="broke") for cell in one.cells])
    drawing, problem = picture_of(ALL[name], [empty])
    assert drawing is None
    assert problem.startswith("There is no picture")


def test_records_that_show_the_same_are_one_panel() -> None:
    one = native("restart").record
    other = replace(one, facts=replace(one.facts, kernel="9.9"))
    alone, both = (picture_of(ALL["restart"], records)[0] for records in ([one], [one, other]))
    assert alone is not None
    assert both is not None
    assert sum(text.text == "bind, no reuse" for text in both.texts) == 1
    assert any("9.9" in text.text for text in both.texts)
    different = replace(other, cells=[replace(cell, seen={**cell.seen, "bind": "ok"}) for cell in one.cells])
    two = picture_of(ALL["restart"], [one, different])[0]
    assert two is not None
    assert sum(text.text == "bind, no reuse" for text in two.texts) == 2


def test_a_sweep_of_the_buffer_is_drawn_by_the_buffer() -> None:
    one = native("udp-overflow").record

    def with_buffer(size: int) -> Record:
        cells = [replace(cell, seen={**cell.seen, "R": size, "held": size // cell.seen["truesize"]}) for cell in one.cells]
        return replace(one, cells=cells)

    records = joined([with_buffer(size) for size in (8192, 16384, 32768)])
    assert len(records) == 1
    drawing, problem = picture_of(ALL["udp-overflow"], records)
    assert drawing is not None, problem
    assert overlapping(drawing) == []
    assert "R, bytes (what getsockopt gives)" in [text.text for text in drawing.texts]
    assert "Swept: 3 points" in page_of(of("udp-overflow"), "udp-overflow", sweeps=[Saved("p", with_buffer(1 << n)) for n in (13, 14, 15)])


# What happened


def test_a_record_without_packets_says_so() -> None:
    bare = native("two-queues").record
    bare = replace(bare, cells=[replace(cell, traffic={}) for cell in bare.cells])
    assert "The records have no packets" in page_of([Saved("old.json", bare)], "two-queues")
    assert "What happened" not in page_of([native("htonl")], "htonl")  # one host, so there is no network


def test_a_record_with_damaged_packets_is_as_one_without() -> None:
    bare = native("two-queues").record
    spoilt = replace(bare, cells=[replace(bare.cells[0], traffic={"events": [{"no": 1}]})])
    assert ladder_of(ALL["two-queues"], spoilt) is None


@pytest.mark.parametrize("name", [name for name, one in ALL.items() if one.others])
def test_the_ladder_of_every_record_has_no_text_upon_another(name: str) -> None:
    for one in of(name):
        if found := ladder_of(ALL[name], one.record):
            assert overlapping(found[1]) == []


# The verb


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.testbed, ["report", *arguments])


def test_a_report_is_written(tmp_path: Path) -> None:
    out, pictures = tmp_path / "new" / "report.html", tmp_path / "pictures"
    result = run(str(RECORDS), "--out", str(out), "--pictures", str(pictures))
    assert result.exit_code == 0, result.output
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert "25 of 25 claims" in result.output
    assert {f"{name}.svg" for name in WITH_PICTURE} <= {one.name for one in pictures.iterdir()}


def test_records_of_an_experiment_of_ones_own_are_left_out_or_named(tmp_path: Path) -> None:
    strange = tmp_path / "mine.json"
    strange.write_text((RECORDS / "htonl.native.json").read_text().replace('"htonl"', '"mine"'))
    result = run(str(strange), str(RECORDS / "htonl.native.json"), "--out", str(tmp_path / "r.html"))
    assert "Records of mine are left out" in result.output
    assert "Records of mine are left out" in (tmp_path / "r.html").read_text()
    result = run(str(strange), "--out", str(tmp_path / "r.html"))
    assert isinstance(result.exception, InputError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-folder"], "there is no no-such-folder"),
        (["--png"], "--png is about the files of --pictures"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert result.exception.message == message


def test_a_machine_without_the_program_for_png_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(str(RECORDS / "restart.native.json"), "--out", str(tmp_path / "r.html"), "--pictures", str(tmp_path / "p"), "--png")
    assert isinstance(result.exception, InputError)
    assert "librsvg2-bin" in result.exception.hint


# Pages


def test_the_pages_of_the_docs_are_the_experiments_own() -> None:
    docs = Path(__file__).parents[2] / "docs" / "claims"
    made = dict(pages(GIVEN, ALL))
    assert sorted(one.name for one in docs.iterdir()) == sorted(made), "make docs/claims"
    for name, text in made.items():
        assert (docs / name).read_text() == text, f"docs/claims/{name} is older than the experiments or the records: make docs/claims"


@pytest.mark.parametrize(("ending", "works"), [("printf PNG", True), ("echo 'no fonts' >&2; exit 1", False)])
def test_png_files_are_what_the_program_makes_of_the_svg(ending: str, works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "rsvg-convert"
    program.write_text(f"#!/bin/sh\n/bin/cat >{tmp_path}/given.svg\n{ending}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(str(RECORDS / "restart.native.json"), "--out", str(tmp_path / "r.html"), "--pictures", str(tmp_path / "p"), "--png")
    assert (tmp_path / "given.svg").read_text().startswith("<?xml")
    if works:
        assert (tmp_path / "p" / "restart.png").read_bytes() == b"PNG"
    else:
        assert isinstance(result.exception, InputError)
        assert result.exception.hint == "no fonts"
