"""A task about colours, and Teachers that say what a test wants said about its examples."""

from collections.abc import Iterator, Sequence

from pld.distill import extract
from pld.params import ExtractionParams
from pld.ports import TeacherAnswer, TeacherRequest
from pld.records import Example, Task

TASK = Task(
    name="colours",
    labels=("red", "blue"),
    fields=("note", "place"),
    input_template="{{ note }} {{ place }}",
    base_instruction="Say whether the note is red or blue.",
)
PARAMS = ExtractionParams(
    examples=None, draws=1, personal_data="allow", max_words=30, max_copied_words=7, max_rejected_fraction=0.2
)
DRAWS = PARAMS.model_copy(update={"draws": 3})
SOURCE = "the kettle on the old iron stove was humming loudly"


def example(number: int, label: str = "red", note: str = SOURCE) -> Example:
    return Example(id=f"e{number}", inputs={"note": note, "place": "a kitchen"}, label=label, split="train")


class Playback:
    """A Teacher that says what a test wants said."""

    name = "playback"

    def __init__(self, answers: Sequence[TeacherAnswer]) -> None:
        self.answers = answers
        self.requests: list[TeacherRequest] = []

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        self.requests += requests
        wanted = {request.key for request in requests}
        yield from (answer for answer in self.answers if answer.key in wanted)


def said(number: int, rule: str = "If it is warm, answer red.", label: str = "red", why: str = "Warm.", **more: object):
    return TeacherAnswer(f"e{number}", {"rationale": why, "rule": rule, "label": label}, **more)


def extracted(answers: Sequence[TeacherAnswer], examples: Sequence[Example]):
    return extract.extract(TASK, examples, PARAMS, Playback(answers), 1)


class Correcting:
    """A Teacher that answers `first`, and `then` after a refusal, with the number of the draw in it."""

    name = "correcting"

    def __init__(self, first: str, then: str) -> None:
        self.first, self.then = first, then
        self.requests: list[TeacherRequest] = []

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        self.requests += requests
        for request in reversed(requests):
            rule = self.then if "refused" in request.prompt else self.first
            content = {"rationale": "Warm.", "rule": rule.format(draw=request.draw), "label": "red"}
            yield TeacherAnswer(request.key, content, usage={"output_tokens": 5})
