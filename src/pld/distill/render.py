"""Instructions → the exact messages that the Student is given, and how an input becomes the user's turn."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

from pld.distill.personal_data import personal_data_check
from pld.errors import ArtifactError, DistillError
from pld.params import Config, RenderingParams
from pld.prompts import render, render_string
from pld.records import Cut, Example, Instruction, Message, Rule, SystemPrompt, Task, sha256

CountTokens = Callable[[Sequence[Message]], int]
Exemplars = Mapping[str, Sequence[Example]]


def render_input(task: Task, inputs: Mapping[str, str]) -> str:
    """The user turn: the task's template filled with the input fields. Data are values, never templates."""
    return render_string(task.input_template, dict(inputs))


def base_messages(task: Task) -> tuple[Message, ...]:
    """Zero-shot: the base instruction as the system prompt."""
    return (Message(role="system", content=task.base_instruction),)


def few_shot_messages(task: Task, examples: Sequence[Example]) -> tuple[Message, ...]:
    """The base instruction, then the turns of `examples`."""
    return (*base_messages(task), *example_turns(task, examples))


def example_turns(task: Task, examples: Sequence[Example]) -> tuple[Message, ...]:
    """Each example as a user turn with its label as the answer."""
    return tuple(
        message
        for example in examples
        for message in (
            Message(role="user", content=render_input(task, example.inputs)),
            Message(role="assistant", content=example.label),
        )
    )


def prompt_messages(prompt: str) -> tuple[Message, ...]:
    """The messages of a system prompt without example turns."""
    return (Message(role="system", content=prompt),)


def turn_examples(task: Task, messages: Sequence[Message], train: Sequence[Example]) -> list[str]:
    """The ids of the training examples that the turns of `messages` show, in order. Raises ArtifactError for a turn
    that is none of `train`."""
    by_turn = {(render_input(task, example.inputs), example.label): example.id for example in train}
    turns = [(user.content, answer.content) for user, answer in zip(messages[1::2], messages[2::2], strict=True)]
    if unknown := next((turn for turn in turns if turn not in by_turn), None):
        raise ArtifactError(
            f"expected example turns of splits/train.jsonl, got another one, labelled {unknown[1]!r:.60} "
            "(messages.json); run `dvc repro`"
        )
    return [by_turn[turn] for turn in turns]


def turns_by_label(messages: Sequence[Message], labels: Sequence[str]) -> dict[str, int]:
    """How many example turns the prompt `messages` shows of each label; {} without turns."""
    counts = Counter(message.content for message in messages if message.role == "assistant")
    return {label: counts[label] for label in labels} if counts else {}


def render_system_prompt(
    task: Task,
    instructions: Sequence[Instruction],
    exemplars: Exemplars,
    params: RenderingParams,
    count_tokens: CountTokens,
) -> SystemPrompt:
    """Order `instructions`, add exemplars, render the frame, and keep within the token budget.

    `exemplars`: instruction id → the training examples behind it, the most typical first. Over the budget, turns are
    cut from the end, then the instruction with the least support, a label's last one only after all others. Cuts are
    listed with their reasons. Raises DistillError when not a single instruction fits.
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
    """The prompt of `instructions` in the given order; over the token budget turns are cut, from the end."""
    inline = params.exemplars_as == "inline"
    examples = choose_examples(task, instructions, exemplars, params)
    turns = () if inline else example_turns(task, examples)
    prompt = SystemPrompt(
        text=_text(task, instructions, exemplars, params, examples if inline else ()),
        turns=turns,
        instruction_ids=tuple(instruction.id for instruction in instructions),
        tokens=0,
        example_ids=tuple(example.id for example in examples),
    )

    def tokens(shown: int) -> int:
        return count_tokens(prompt.messages[: 1 + 2 * shown])

    shown = len(turns) // 2
    if params.token_budget is not None and turns and tokens(shown) > params.token_budget:
        shown = bisect_right(range(1, shown), params.token_budget, key=tokens)
        kept = {"turns": turns[: 2 * shown], "example_ids": prompt.example_ids[:shown]}
        prompt = prompt.model_copy(update={**kept, "cut_turns": len(examples) - shown})
    return prompt.model_copy(update={"tokens": tokens(shown)})


def choose_examples(
    task: Task, instructions: Sequence[Instruction], exemplars: Exemplars, params: RenderingParams
) -> list[Example]:
    """The training examples that the prompt of `instructions` shows, in order.

    A label's examples are its instructions' in turn, each instruction's most typical first. The next one shown is
    always of the label that was shown least (ties: by hash), so that every beginning of the list is balanced, and a
    label with too few leaves its share to the others. With `exemplars_per: prompt` a shorter list is the beginning of a
    longer one.
    """
    n, per = params.exemplars, params.exemplars_per
    pools = [exemplars[item.id][: n if per == "instruction" else None] for item in instructions]
    in_turn = {example.id: example for row in zip_longest(*pools) for example in row if example is not None}
    left = {label: [own for own in in_turn.values() if own.label == label] for label in task.labels}
    if per == "label":
        left = {label: own[:n] for label, own in left.items()}
    chosen: list[Example] = []
    shown = dict.fromkeys(task.labels, 0)
    while any(left.values()) and (per != "prompt" or len(chosen) < n):
        label = min((own for own in left if left[own]), key=lambda own: (shown[own], sha256(left[own][0].id)))
        chosen.append(left[label].pop(0))
        shown[label] += 1
    return chosen


def exemplars_of(
    instructions: Sequence[Instruction],
    rules: Mapping[str, Rule],
    train: Mapping[str, Example],
    config: Config,
) -> dict[str, list[Example]]:
    """Instruction id → the training examples of its rules that a prompt can show; one with rules of several draws
    appears once. They are in the order of the rules (the most typical first), those with a doubtful rule last. Turns
    never show a doubtful one, and after the most typical one they go by hash: many typical examples are much alike, and
    mislead a small Student (docs/explanation/decisions.md). Examples with personal data are left out if
    extraction.personal_data refuses it."""
    if not config.rendering.exemplars:
        return {instruction.id: [] for instruction in instructions}
    personal_data = personal_data_check(config.extraction.personal_data)
    behind = [rules[rule_id] for instruction in instructions for rule_id in instruction.rule_ids]
    doubtful = {rule.example_id for rule in behind if rule.doubtful}
    found = {}
    for instruction in instructions:
        own = {rules[rule_id].example_id: train[rules[rule_id].example_id] for rule_id in instruction.rule_ids}
        if personal_data is not None:
            own = {key: one for key, one in own.items() if personal_data(render_input(config.task, one.inputs)) is None}
        sure = [example for identity, example in own.items() if identity not in doubtful]
        unsure = [example for identity, example in own.items() if identity in doubtful]
        if config.rendering.exemplars_as == "turns":
            found[instruction.id] = sure[:1] + sorted(sure[1:], key=lambda example: sha256(example.id))
        else:
            found[instruction.id] = sure + unsure
    return found


def _ordered(instructions: Sequence[Instruction], labels: Sequence[str], order: str) -> list[Instruction]:
    if order == "given":
        return list(instructions)
    if order == "label":
        return sorted(instructions, key=lambda item: (labels.index(item.label), -item.support, item.id))
    return sorted(instructions, key=lambda item: (-item.support if order == "support" else item.support, item.id))


def _weakest(instructions: Sequence[Instruction]) -> Instruction:
    count: dict[str, int] = defaultdict(int)
    for instruction in instructions:
        count[instruction.label] += 1
    return min(instructions, key=lambda item: (count[item.label] == 1, item.support, item.id))


def _text(
    task: Task,
    ordered: Sequence[Instruction],
    exemplars: Exemplars,
    params: RenderingParams,
    examples: Sequence[Example],
) -> str:
    with_each = params.exemplars_per == "instruction" and params.exemplars_as == "inline"
    lines = [
        {
            "text": instruction.text,
            "label": instruction.label,
            "exemplars": _shown(task, exemplars[instruction.id][: params.exemplars]) if with_each else [],
        }
        for instruction in ordered
    ]
    listed = [] if with_each else _shown(task, examples)
    return render(f"frame_{params.frame}", base_instruction=task.base_instruction, instructions=lines, exemplars=listed)


def _shown(task: Task, examples: Sequence[Example]) -> list[dict[str, str]]:
    return [{"input": render_input(task, example.inputs), "label": example.label} for example in examples]
