"""Made-up serving logs."""

import json
from pathlib import Path

import numpy as np

from pld.records import Prediction, ServedAnswer, inputs_id
from support.mails import LABELS

SHA = "a" * 64


def scores_for(label: str | None, margin: float) -> tuple[float, ...]:
    return () if label is None else tuple(-0.5 if name == label else -0.5 - margin for name in LABELS)


def served(
    label: str | None,
    margin: float = 1.0,
    text: str = "some text",
    at: str = "2026-11-20T10:00:00+00:00",
    sha: str = SHA,
    logged: bool = True,
) -> ServedAnswer:
    inputs = {"text": text}
    return ServedAnswer(
        at=at,
        id=inputs_id(inputs),
        prompt_sha256=sha,
        prompt_version="1",
        label=label,
        scores=scores_for(label, margin),
        inputs=inputs if logged else None,
    )


def measured(label: str | None, margin: float = 1.0, n: int = 0) -> Prediction:
    scores = scores_for(label, margin)
    return Prediction(example_id=f"e{n}", system="distilled", label=LABELS[0], predicted=label, scores=scores)


def answers(
    size: int, shares=(0.5, 0.3, 0.2), margin: float = 2.0, missing: int = 0, seed: int = 0
) -> list[tuple[str | None, float]]:
    """Labels by `shares` and margins around `margin`; the last `missing` are without an answer."""
    random = np.random.default_rng(seed)
    labels = random.choice(len(LABELS), size, p=shares)
    margins = np.round(random.gamma(2.0, margin / 2, size), 6)
    found = [(LABELS[place], float(wide)) for place, wide in zip(labels, margins, strict=True)]
    return [*found[: size - missing], *[(None, 0.0)] * missing]


def log_of(rows, start: int = 0) -> list[ServedAnswer]:
    return [
        served(label, margin, f"text {start + n}", f"2026-11-{10 + n % 9}T{n % 24:02}:00:00+00:00")
        for n, (label, margin) in enumerate(rows)
    ]


def rows_of(rows) -> list[Prediction]:
    return [measured(label, margin, n) for n, (label, margin) in enumerate(rows)]


def write_log(path: Path, lines) -> Path:
    path.write_text("".join(json.dumps(line.model_dump(mode="json")) + "\n" for line in lines))
    return path
