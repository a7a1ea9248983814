"""Every system of a finished run: macro-F1 on test as it answers, and calibrated as the run measured it.

PYTHONPATH=src python bench/calibration.py [artifacts] [artifacts of a run with calibration.method=batch]

It fits and chooses nothing: scores are those of predictions.jsonl, calibrations those of report.json, which were fitted
on training examples. As a check, each calibrated figure is computed again from raw scores.
"""

import sys
from pathlib import Path

import numpy as np

from pld.artifacts import read_jsonl, read_record
from pld.calibration import calibrate
from pld.metrics import choose, indices, macro_f1
from pld.records import CALIBRATED, Prediction
from pld.reports import EvaluationReport


def main(*folders: str) -> None:
    for folder in map(Path, folders or ("artifacts",)):
        report = read_record(folder / "evaluation/report.json", EvaluationReport)
        rows = read_jsonl(folder / "evaluation/predictions.jsonl", Prediction)
        print(f"\n{report.task}, {report.n} test examples\n")
        print("| system | n | raw | calibrated | method, examples | scale | biases |\n|---|---|---|---|---|---|---|")
        for name, found in report.systems.items():
            if name.endswith(CALIBRATED):
                continue
            cells = [name, str(found.n), f"{found.macro_f1.value:.3f}"]
            if calibration := report.calibrations.get(name):
                own = [row for row in rows if row.system == name]
                nothing = (np.nan,) * len(report.labels)
                scores = np.array([row.scores or nothing for row in own], dtype=np.float64)
                gold = indices([row.label for row in own], report.labels)
                again = macro_f1(gold, choose(calibrate(scores, calibration)), len(report.labels))
                reported = report.systems[name + CALIBRATED].macro_f1.value
                assert abs(again - reported) < 0.01, f"{name}: {again} from predictions.jsonl, {reported} reported"
                pairs = zip(report.labels, calibration.bias, strict=True)
                biases = ", ".join(f"{label} {bias:+.2f}" for label, bias in pairs)
                method = f"{calibration.method}, {calibration.examples}"
                cells += [f"{reported:.3f}", method, f"{calibration.scale:.2f}", biases]
            else:
                cells += ["not calibrated", "", "", ""]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
