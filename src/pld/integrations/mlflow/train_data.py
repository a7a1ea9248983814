"""The train_data of MLflow's optimize_prompts as labelled Examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pld.data.splits import split_of
from pld.errors import DataError
from pld.records import Example, canonical_json, inputs_id

MOST_LABELS = 50
"""More different ones than that are taken for free text."""


@dataclass(frozen=True)
class Labelled:
    """A record of train_data, and the example that it is."""

    record: dict[str, Any]
    example: Example


def read_records(
    train_data: Sequence[dict[str, Any]], label_key: str, labels: Sequence[str] | None
) -> tuple[list[Labelled], tuple[str, ...]]:
    """Each different input once, with its split by hash (what would be test counts as validation), and the labels:
    `labels`, or those that were found, sorted.

    Raises DataError, which names the record, for one without a label, with a label that is none of `labels`, or with
    the inputs of an earlier one and another label; and for what looks like free text in place of labels.
    """
    found: dict[str, Labelled] = {}
    for number, record in enumerate(train_data):
        inputs = {str(key): _text(value) for key, value in dict(record["inputs"]).items() if not _is_missing(value)}
        label = _label(record, label_key, number)
        if labels is not None and label not in labels:
            raise DataError(f"expected one of the labels {', '.join(labels)}, got {label!r:.60} (train_data[{number}])")
        identity = inputs_id(inputs)
        earlier = found.get(identity)
        if earlier is not None and earlier.example.label != label:
            raise DataError(
                f"expected one label per input, got {label!r:.60} here and {earlier.example.label!r:.60} for the "
                f"same inputs before (train_data[{number}])"
            )
        split = "train" if split_of(identity) == "train" else "validation"
        example = Example(id=identity, inputs=inputs, label=label, split=split)
        found.setdefault(identity, Labelled(record, example))
    records = list(found.values())
    return records, tuple(labels) if labels is not None else _found_labels(records)


def _label(record: Mapping[str, Any], label_key: str, number: int) -> str:
    """As MLflow looks for what is expected: `expectations`, else `outputs`."""
    expectations = record.get("expectations")
    held = expectations.get(label_key) if isinstance(expectations, Mapping) else None
    value = record.get("outputs") if held is None else held
    if _is_missing(value) or not isinstance(value, str | int | float):
        keys = ", ".join(expectations) if isinstance(expectations, Mapping) else "none"
        raise DataError(
            f"expected a label as expectations[{label_key!r}] or outputs, got {type(value).__name__} (expectations: "
            f"{keys}) (train_data[{number}]); name the key: PldPromptOptimizer(label_key=...)"
        )
    if not str(value).strip():
        raise DataError(f"expected a label, got an empty text (train_data[{number}])")
    return str(value)


def _found_labels(records: Sequence[Labelled]) -> tuple[str, ...]:
    labels = tuple(sorted({record.example.label for record in records}))
    if len(labels) < 2:
        raise DataError(f"expected records of two or more labels, got only {', '.join(labels)} (train_data)")
    if len(labels) > min(MOST_LABELS, len(records) / 2):
        raise DataError(
            f"expected a few labels that repeat, got {len(labels)} different ones in {len(records)} records "
            "(train_data); PldPromptOptimizer is for prompts that classify (name all labels with labels=[...])"
        )
    return labels


def _is_missing(value: Any) -> bool:
    """None, or the NaN that a DataFrame has for a key that a record lacks."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
