"""The verb that makes a page of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.errors import InputError, writing

if TYPE_CHECKING:
    from testbed.drawing import Drawing
    from testbed.experiment import Experiment
    from testbed.experiment_results import Saved

RECORDS = Path("testbed-records")
POINTS = "points"  # of a sweep's folder: its records


@click.command()
@click.argument("records", metavar="[RECORDS]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), default=Path("testbed-report.html"), show_default=True)
@click.option("--from", "source", metavar="FILE", help="A file with experiments of your own, whose records are among these.")
@click.option("--pictures", metavar="DIR", type=click.Path(path_type=Path), help="Also the pictures and ladder diagrams, as SVG files.")
@click.option("--png", is_flag=True, help="With --pictures: as PNG files, too (needs rsvg-convert).")
@click.option("--pages", metavar="DIR", type=click.Path(path_type=Path), help="Also a page a claim as Markdown, with its pictures.")
def report(records: tuple[Path, ...], out: Path, source: str | None, pictures: Path | None, png: bool, pages: Path | None) -> None:
    """Make one HTML page of records: claims by kernels with verdicts, and each claim with numbers, picture and packets.

    RECORDS are files, folders of records, and folders of sweeps, whose pictures are drawn beside the records'; without any, the
    records in testbed-records. The page needs no network and no other file.

    \b
    Examples:
      testbed report
      testbed report testbed-records testbed-sweeps/* --out claims.html --pictures pictures --png
    """
    from datetime import UTC, datetime
    from importlib.metadata import version

    from testbed import experiment_find as finding
    from testbed import experiment_report as making
    from testbed.experiment_pages import write_pages
    from testbed.experiment_results import results_of, summary
    from testbed.png import as_png

    if png and pictures is None:
        raise InputError("--png is about the files of --pictures", hint="name a folder: --pictures DIR --png")
    known = finding.known()
    if source is not None:
        known = finding.by_name([*known.values(), *finding.from_file(Path(source)).values()])
    given, sweeps = collect(records or (RECORDS,))
    strange = sorted({one.record.experiment for one in [*given, *sweeps] if one.record.experiment not in known})
    notes = [f"Records of {name} are left out: there is no experiment of that name here; --from names its file." for name in strange]
    for note in notes:
        click.echo(note, err=True)
    given, sweeps = ([one for one in several if one.record.experiment in known] for several in (given, sweeps))
    if not (given or sweeps):
        raise InputError("there is no record to report on", hint="testbed experiment run makes some")
    made = f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by testbed {version('testbed')}, of {len(given) + len(sweeps)} records."
    text = making.report(given, known, made=made, notes=notes, sweeps=sweeps)
    write(out, text.encode())
    click.echo(f"{out}: {summary(results_of(given, known), known)}")
    if pictures is not None:
        drawings = drawn(given, sweeps, known)
        for name, drawing in drawings.items():
            write(pictures / f"{name}.svg", drawing.svg(alone=True).encode())
            if png:
                write(pictures / f"{name}.png", as_png(drawing.svg(alone=True)))
        click.echo(f"{pictures}: {len(drawings)} pictures")
    if pages is not None:
        count = write_pages(pages, given, known)
        click.echo(f"{pages}: {count} pages")


def collect(paths: Sequence[Path]) -> tuple[list[Saved], list[Saved]]:
    """The records of files and folders, and those of sweeps. Raises :class:`InputError` for what is not there or no record."""
    from testbed.experiment_results import Saved
    from testbed.experiment_run import load

    given: list[Saved] = []
    sweeps: list[Saved] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no {path}", hint="testbed experiment run makes records, in testbed-records")
        if not path.is_dir():
            given.append(Saved(path.name, load(path)))
        elif (path / POINTS).is_dir():
            sweeps += [Saved(f"{path.name}/{one.name}", load(one)) for one in sorted((path / POINTS).glob("*.json"))]
        else:
            given += [Saved(one.name, load(one)) for one in sorted(path.glob("*.json"))]
    return given, sweeps


def drawn(given: Sequence[Saved], sweeps: Sequence[Saved], known: Mapping[str, Experiment]) -> dict[str, Drawing]:
    """Every picture and ladder diagram, by the name of its file."""
    from testbed.experiment_report import ladder_of, picture_of
    from testbed.experiment_results import joined, results_of

    found: dict[str, Drawing] = {}
    results = results_of(given, known)
    for one in known.values():
        mine = {column: result.saved.record for (name, column), result in results.items() if name == one.name}
        swept = joined([saved.record for saved in sweeps if saved.record.experiment == one.name])
        for kind, records in (("", list(mine.values())), (".sweep", swept)):
            drawing, _ = picture_of(one, records) if records else (None, "")
            if drawing is not None:
                found[one.name + kind] = drawing
        for column, record in mine.items():
            if ladder := ladder_of(one, record):
                found[f"{one.name}.ladder.{'-'.join(part for part in (column.kind, column.arch, column.kernel) if part)}"] = ladder[1]
    return found


def write(path: Path, data: bytes) -> None:
    """Write a file, and its folder if that is not there. Raises :class:`InputError`."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
