"""SVG to PNG, by librsvg's rsvg-convert: it draws text with the machine's fonts, as browsers do."""

from __future__ import annotations

import shutil
import subprocess

from testbed.errors import InputError

PROGRAM = "rsvg-convert"
ZOOM = 2  # dots a unit of the picture: 1520 of them across, which is sharp on paper
LONGEST_S = 60.0


def as_png(svg: str) -> bytes:
    """Raises :class:`InputError` where there is no such program, or it does not do it."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise InputError(
            f"PNG files need {PROGRAM}, which this machine has not", hint="apt-get install librsvg2-bin; SVG files need nothing"
        )
    done = subprocess.run([program, "--zoom", str(ZOOM)], input=svg.encode(), capture_output=True, check=False, timeout=LONGEST_S)
    if done.returncode:
        raise InputError(f"{PROGRAM} cannot draw a picture", hint=done.stderr.decode(errors="replace").strip())
    return done.stdout
