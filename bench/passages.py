"""Measure the recall of annotated evidence among the nearest passages: `python bench/passages.py dev.json`.

Reads a Contract-NLI file and ranks each contract's passages as the reader does (context: nearest). Prints a Markdown
table over all examples with evidence: the share of annotated passages shown, and of examples with at least one.
"""

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from pld.data.readers.passages import nearest_first, nearness_in


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/passages.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", type=Path)
    parser.add_argument("--passages", type=int, nargs="+", default=[1, 2, 3, 5, 8, 12])
    options = parser.parse_args(arguments)
    file = json.loads(options.file.read_text(encoding="utf-8"))
    found: dict[int, list[tuple[int, float | None]]] = {count: [] for count in options.passages}
    for document in file["documents"]:
        text, spans = document["text"], document["spans"]
        places = [place for place, (start, end) in enumerate(spans) if text[start:end].strip()]
        near = nearness_in(text, [spans[place] for place in places])
        for key, annotation in document["annotation_sets"][0]["annotations"].items():
            ranked = [places[at] for at in nearest_first(near(file["labels"][key]["hypothesis"]))]
            evidence = set(annotation["spans"])
            for count, rows in found.items():
                shown = set(ranked[:count])
                words = sum(len(text[slice(*spans[place])].split()) for place in shown)
                rows.append((words, len(shown & evidence) / len(evidence) if evidence else None))
    print(f"{datetime.date.today().isoformat()}, `{' '.join(['python bench/passages.py', *arguments])}`:\n")
    print("| passages | words shown | share of the evidence | at least one piece of it |\n|---|---|---|---|")
    for count, rows in found.items():
        shares = [share for _, share in rows if share is not None]
        length = statistics.mean(words for words, _ in rows)
        print(f"| {count} | {length:.0f} | {statistics.mean(shares):.2f} | {statistics.mean(map(bool, shares)):.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
