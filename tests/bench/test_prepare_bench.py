import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_of_prepare_prints_a_row_for_a_size_and_format():
    command = [sys.executable, "bench/prepare.py", "--examples", "60", "--words", "5", "--formats", "csv"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "`python bench/prepare.py --examples 60 --words 5 --formats csv`:" in run.stdout
    rows = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line.startswith("| 60 ")]
    assert [row[1] for row in rows] == ["csv"]
    for row in rows:
        assert all(re.fullmatch(r"\d+\.\d", seconds) for seconds in row[3:8])
        assert float(row[3]) >= sum(map(float, row[4:7])) - 0.2
        assert 20 < float(row[8]) < 1000
