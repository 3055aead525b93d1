"""How well the judgement of byte orders finds what was put in: figures over random protocols.

python bench/endian.py [PROTOCOLS] [SEED]
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.endian_protocols import Score, any_protocol, compared


def main() -> None:
    count, seed = (int(one) for one in (*sys.argv[1:], *("10000", "1")[len(sys.argv) - 1 :]))
    figures = {}
    for what, decimals, runs in (("all of one length", 0, 3), ("two parts vary in length", 2, 6)):
        score, chance, begin = Score(), random.Random(seed), time.monotonic()
        for _ in range(count):
            score.add(*compared(any_protocol(chance, decimals=decimals), chance, runs=runs))
        figures[what] = {"seconds": round(time.monotonic() - begin, 1), **asdict(score)}
    print(json.dumps({"seed": seed, **figures}, indent=2))


if __name__ == "__main__":
    main()
