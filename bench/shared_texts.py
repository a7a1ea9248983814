"""Time several questions about one long text, which is computed once: `python bench/shared_texts.py`.

Scores made-up texts and questions, shaped like Contract-NLI's: a text with 17 questions, 4 texts with 17 each (mixed),
17 texts with one each, and 17 short texts with one each. Prints the CPU time of one run in Markdown; unlike wall time
it is comparable on a busy machine.
"""

import argparse
import datetime
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from pld.config.build import build
from pld.ports import Student
from pld.records import Message

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = 17
LABELS = ("Entailment", "Contradiction", "NotMentioned")
BEGINNING = (
    Message(role="system", content="Does the text say so? Answer with exactly one word: " + ", ".join(LABELS)),
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/shared_texts.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--student", default="smollm2-135m", help="of conf/student (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="default: %(default)s")
    parser.add_argument("--words", type=int, default=500, help="of a long text (default: %(default)s)")
    parser.add_argument("--short", type=int, default=110, help="words of a short one (default: %(default)s)")
    options = parser.parse_args(arguments)
    settings = yaml.safe_load((ROOT / f"conf/student/{options.student}.yaml").read_text(encoding="utf-8"))
    student: Student = build(settings | {"dtype": options.dtype}, "student")
    generator = random.Random(0)
    long = [_words(generator, options.words) for _ in range(QUESTIONS)]
    short = [_words(generator, options.short) for _ in range(QUESTIONS)]
    questions = [_words(generator, 20) for _ in range(QUESTIONS)]
    student.score(BEGINNING, ["warm"], LABELS)
    print(f"{datetime.date.today().isoformat()}, `{' '.join(['python bench/shared_texts.py', *arguments])}`:\n")
    print("| inputs | tokens, were none shared | CPU, s | ms an input |\n|---|---|---|---|")
    for what, inputs in (
        ("1 text x 17 questions", [_input(long[0], question) for question in questions]),
        ("4 texts x 17 questions", [_input(text, question) for question in questions for text in long[:4]]),
        ("17 texts x 1 question", [_input(*pair) for pair in zip(long, questions, strict=True)]),
        ("17 short texts x 1 question", [_input(*pair) for pair in zip(short, questions, strict=True)]),
    ):
        student.prefill(BEGINNING)
        tokens = sum(student.count_text_tokens(text) for text in inputs)
        started = time.process_time()
        student.score(BEGINNING, inputs, LABELS)
        seconds = time.process_time() - started
        print(f"| {what} | {tokens:,} | {seconds:.1f} | {1000 * seconds / len(inputs):.0f} |", flush=True)
    return 0


def _input(text: str, question: str) -> str:
    return f"Contract:\n{text}\n\nHypothesis: {question}"


def _words(generator: random.Random, count: int) -> str:
    """Syllables in twos and threes: about two tokens a word."""
    syllables = [a + b for a in "bdfklmnprst" for b in "aeiou"]
    return " ".join("".join(generator.choices(syllables, k=generator.randint(2, 3))) for _ in range(count))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
