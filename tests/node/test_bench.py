# SPDX-License-Identifier: MIT
"""`make bench` runs to its end and prints its tables; what they say is for people, and no test.

The part about the idle node is left out: it takes five minutes of waiting, however few its apps.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        # More apps than the catalogue has.
        pytest.param("generator --sizes 40", r" +40( +[\d.]+x?){9}", id="generator"),
        pytest.param("tick --ticks 2", r" +2( +[\d.]+x?){10}", id="tick"),
    ],
)
def test_the_bench_runs(arguments: str, row: str) -> None:
    done = subprocess.run(
        [BENCH, "--runs", "1", "--only", *arguments.split()], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(rf"(?m)^{row}$", done.stdout), done.stdout
