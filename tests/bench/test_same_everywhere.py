import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench/same_everywhere.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_older_processor_and_noise_on_the_embeddings_lead_the_default_chain_to_the_same_prompt(tmp_path):
    fewer = ["sweep.space.consolidator.instructions=[1,2]", "sweep.space.rendering.exemplars=[0,12]"]
    small = ["--student", "smollm2-135m", "student.dtype=bfloat16", *fewer]
    command = [sys.executable, str(BENCH), "--folder", str(tmp_path / "runs"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "the same prompt" in done.stdout
