"""The experiment that docs/experiments.md walks through does what is said there."""

from __future__ import annotations

import re
from pathlib import Path

from testbed import experiment_find as finding

DOCS = Path(__file__).parents[2] / "docs" / "experiments.md"


def test_the_experiment_of_the_docs_holds(on_native, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    file = tmp_path / "mine.py"
    file.write_text(code)
    (experiment,) = finding.chosen([str(file)])
    _, judgement = on_native(experiment)
    assert judgement.verdict.outcome == "HOLDS", judgement.verdict.reason
    assert judgement.passed
