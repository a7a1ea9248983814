"""Does the sweep choose the same prompt on another machine? Runs the default chain up to the sweep twice: as it is, and
with the CPU kernels of an older processor and noise on the embeddings. Prints both; exits with 1 when they differ.

    python bench/same_everywhere.py [--student OPTION] [--folder FOLDER] [KEY=VALUE ...]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from engines import ROOT
from report import grid as table

OTHER_CPU = {"NUMBA_CPU_NAME": "generic", "ATEN_CPU_CAPABILITY": "avx2"}
NOISE = 1e-6
WITHIN = 0.02  # macro-F1 on validation
BEFORE, AFTER = ("config", "prepare", "extract", "embed"), ("sweep",)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/same_everywhere.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as in params.yaml")
    parser.add_argument("--student", help="an option of conf/student/, instead of the default one")
    parser.add_argument("--folder", type=Path, help="where both runs are kept; default: a temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        settings = options.student, options.overrides
        runs = [run(folder / "here", *settings), run(folder / "there", *settings, OTHER_CPU, NOISE)]
    columns = ["kernels", "noise on the embeddings", "prompt", "tokens", "macro-F1 on validation"]
    names = ["this CPU's", " ".join(f"{key}={value}" for key, value in OTHER_CPU.items())]
    rows = [
        [name, str(noise), found["sha256"][:12], f"{found['tokens']:,}", f"{found['macro_f1']:.4f}"]
        for name, noise, found in zip(names, (0, NOISE), runs, strict=True)
    ]
    print(table(columns, rows))
    same = runs[0]["sha256"] == runs[1]["sha256"]
    near = abs(runs[0]["macro_f1"] - runs[1]["macro_f1"]) <= WITHIN
    print(f"\n{'the same prompt' if same else 'another prompt'}, macro-F1 within {WITHIN}: {'yes' if near else 'no'}")
    return 0 if same and near else 1


def run(
    folder: Path,
    student: str | None,
    overrides: list[str],
    environment: dict[str, str] | None = None,
    noise: float = 0,
) -> Any:
    """The winner of the sweep: its prompt's sha256, its tokens, and its macro-F1 on validation."""
    from pld.artifacts import read_json, read_prompt
    from pld.records import prompt_sha256

    folder.mkdir(parents=True)
    for name in ("conf", "assets"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "assets/corpus", folder / "data")
    chosen = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    chosen["groups"] |= {"student": student} if student else {}
    chosen["overrides"] = overrides
    (folder / "params.yaml").write_text(yaml.safe_dump(chosen), encoding="utf-8")
    for stage in BEFORE:
        execute(stage, folder, environment)
    path = folder / "artifacts/embeddings/vectors.npy"
    vectors = np.load(path)
    disturbed = vectors + noise * np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    np.save(path, disturbed / np.linalg.norm(disturbed, axis=1, keepdims=True) if noise else vectors)
    for stage in AFTER:
        execute(stage, folder, environment)
    best = folder / "artifacts/best"
    report = read_json(best / "trial.json")["report"]
    return {
        "sha256": prompt_sha256(read_prompt(best)),
        "tokens": report["prompt_tokens"],
        "macro_f1": report["macro_f1"]["value"],
    }


def execute(stage: str, folder: Path, environment: dict[str, str] | None) -> None:
    subprocess.run(
        [sys.executable, "-m", "pld.stages", stage],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | (environment or {}),
        check=True,
        stdout=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
