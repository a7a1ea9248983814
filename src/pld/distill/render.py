"""Instructions → the exact text that the Student is given, and how an input becomes the user's turn."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest

from pld.errors import DistillError
from pld.params import RenderingParams
from pld.prompts import render, render_string
from pld.records import Cut, Example, Instruction, Message, Rule, SystemPrompt, Task, sha256

CountTokens = Callable[[str], int]
Exemplars = Mapping[str, Sequence[Example]]


def render_input(task: Task, inputs: Mapping[str, str]) -> str:
    """The user turn: the task's template filled with the input fields. Data are values, never templates."""
    return render_string(task.input_template, dict(inputs))


def base_messages(task: Task) -> tuple[Message, ...]:
    """Zero-shot: the base instruction as the system prompt."""
    return (Message(role="system", content=task.base_instruction),)


def few_shot_messages(task: Task, examples: Sequence[Example]) -> tuple[Message, ...]:
    """The base instruction, then each example as a user turn with its label as the answer."""
    turns = [
        message
        for example in examples
        for message in (
            Message(role="user", content=render_input(task, example.inputs)),
            Message(role="assistant", content=example.label),
        )
    ]
    return (*base_messages(task), *turns)


def prompt_messages(prompt: str) -> tuple[Message, ...]:
    """The messages of a system prompt, as served."""
    return (Message(role="system", content=prompt),)


def render_system_prompt(
    task: Task,
    instructions: Sequence[Instruction],
    exemplars: Exemplars,
    params: RenderingParams,
    count_tokens: CountTokens,
) -> SystemPrompt:
    """Order `instructions`, add exemplars, render the frame, and keep within the token budget.

    `exemplars`: instruction id → the training examples behind it, the most typical first. Over the budget, the
    instruction with the least support is cut first, and a label's last one only after all others. Cuts are listed with
    their reasons. Raises DistillError when not a single instruction fits.
    """
    if not instructions:
        raise DistillError("expected at least one instruction to render, got none; use a smaller min_share")
    kept = list(instructions)
    cut: list[Cut] = []
    while True:
        ordered = _ordered(kept, task.labels, params.order)
        prompt = frame_system_prompt(task, ordered, exemplars, params, count_tokens)
        if params.token_budget is None or prompt.tokens <= params.token_budget:
            return prompt.model_copy(update={"cut": tuple(cut)})
        if len(kept) == 1:
            raise DistillError(
                f"expected a prompt of at most {params.token_budget} tokens, got {prompt.tokens} with a single "
                "instruction (rendering.token_budget); raise the budget"
            )
        weakest = _weakest(kept)
        kept.remove(weakest)
        cut.append(Cut(instruction_id=weakest.id, reason=f"over the budget of {params.token_budget} tokens"))


def frame_system_prompt(
    task: Task,
    instructions: Sequence[Instruction],
    exemplars: Exemplars,
    params: RenderingParams,
    count_tokens: CountTokens,
) -> SystemPrompt:
    """The prompt of `instructions` in the given order, without a token budget."""
    text = _text(task, instructions, exemplars, params)
    return SystemPrompt(
        text=text,
        instruction_ids=tuple(instruction.id for instruction in instructions),
        sha256=sha256(text),
        tokens=count_tokens(text),
    )


def shown_examples(
    task: Task, instructions: Sequence[Instruction], exemplars: Exemplars, params: RenderingParams
) -> set[str]:
    """Ids of the training examples that the prompt shows with their labels."""
    pools = (
        [exemplars[instruction.id][: params.exemplars] for instruction in instructions]
        if params.exemplars_per == "instruction"
        else _per_label_examples(task, instructions, exemplars, params.exemplars)
    )
    return {example.id for pool in pools for example in pool}


def exemplars_of(
    instructions: Sequence[Instruction], rules: Mapping[str, Rule], train: Mapping[str, Example]
) -> dict[str, list[Example]]:
    """Instruction id → the training examples of its rules, in the order of the rules (nearest to the centroid first),
    doubtful ones last; an example with rules of several draws appears once."""
    found = {}
    for instruction in instructions:
        own = sorted((rules[rule_id] for rule_id in instruction.rule_ids), key=lambda rule: rule.doubtful)
        found[instruction.id] = [train[example_id] for example_id in dict.fromkeys(rule.example_id for rule in own)]
    return found


def _ordered(instructions: Sequence[Instruction], labels: Sequence[str], order: str) -> list[Instruction]:
    if order == "label":
        return sorted(instructions, key=lambda item: (labels.index(item.label), -item.support, item.id))
    return sorted(instructions, key=lambda item: (-item.support if order == "support" else item.support, item.id))


def _weakest(instructions: Sequence[Instruction]) -> Instruction:
    count: dict[str, int] = defaultdict(int)
    for instruction in instructions:
        count[instruction.label] += 1
    return min(instructions, key=lambda item: (count[item.label] == 1, item.support, item.id))


def _text(task: Task, ordered: Sequence[Instruction], exemplars: Exemplars, params: RenderingParams) -> str:
    n = params.exemplars
    lines = [
        {
            "text": instruction.text,
            "label": instruction.label,
            "exemplars": _shown(task, exemplars[instruction.id][:n]) if params.exemplars_per == "instruction" else [],
        }
        for instruction in ordered
    ]
    per_label = _per_label(task, ordered, exemplars, n) if params.exemplars_per == "label" and n else []
    return render(
        f"frame_{params.frame}", base_instruction=task.base_instruction, instructions=lines, exemplars=per_label
    )


def _per_label(task: Task, ordered: Sequence[Instruction], exemplars: Exemplars, n: int) -> list[dict[str, str]]:
    """`n` examples per label, round-robin over the label's instructions, then interleaved over labels."""
    columns = [_shown(task, own) for own in _per_label_examples(task, ordered, exemplars, n)]
    return [shown for shown in chain.from_iterable(zip_longest(*columns)) if shown is not None]


def _per_label_examples(
    task: Task, ordered: Sequence[Instruction], exemplars: Exemplars, n: int
) -> list[list[Example]]:
    columns = []
    for label in task.labels:
        own = [exemplars[instruction.id] for instruction in ordered if instruction.label == label]
        in_turn = [example for row in zip_longest(*own) for example in row if example is not None]
        columns.append(list({example.id: example for example in in_turn}.values())[:n])
    return columns


def _shown(task: Task, examples: Sequence[Example]) -> list[dict[str, str]]:
    return [{"input": render_input(task, example.inputs), "label": example.label} for example in examples]
