"""Exports a prompt byte for byte in the formats of other runtimes, or refuses if a format can't represent it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pld.distill.render import render_input
from pld.errors import ArtifactError, ConfigError, PldError
from pld.records import Calibration, Task

if TYPE_CHECKING:  # it imports numpy: not when the CLI starts
    from pld.ports import Student
    from pld.serving.model import Release

Bias = Mapping[str, float]
_CHAT = "/v1/chat/completions"
_TOP = 20  # the most that OpenAI's API lists
_INPUT_TOKENS = 1024
_MARKUP = 16  # tokens around a message, at most
BIASED = ("openai", "vllm")
"""Formats whose servers apply `logit_bias` (OpenAI's API and vLLM up to 100, llama.cpp's server); Ollama's and
Anthropic's APIs have no such parameter."""
_FAVOUR = 50.0  # added to all labels, so that the likeliest token is a label's
_NO_LABEL = "Anything else is no label, and counts as wrong."


def logit_bias(calibration: Calibration, tokens: Sequence[int] | None) -> dict[str, float]:
    """Token id → bias with which the likeliest token is that of the label with the highest calibrated score: bias /
    scale, and a constant. Empty if `tokens` is None (labels of several tokens, or ids unknown), or a bias is too large.
    """
    biases = [bias / calibration.scale for bias in calibration.bias]
    middle = (max(biases) + min(biases)) / 2
    if tokens is None or max(biases) - middle > _FAVOUR:
        return {}
    return {str(token): round(bias - middle + _FAVOUR, 4) for token, bias in zip(tokens, biases, strict=True)}


def label_tokens(release: Release, format: str) -> tuple[int, ...] | None:
    """The labels' tokens for `logit_bias`, where the release has a calibration and `format` can apply it. Loads the
    Student's tokenizer; None where that is not on this machine."""
    if release.spec.calibration is None or format not in BIASED:
        return None
    from pld.config.build import build

    try:
        student: Student = build(release.spec.student, "student")
        return student.label_tokens(release.spec.task.labels)
    except PldError:
        return None


def exported(release: Release, format: str, model: str | None = None, tokens: Sequence[int] | None = None) -> str:
    """The whole export as text. `model`: how the runtime names the model; None: as the Student's settings do. `tokens`:
    `label_tokens`, by which a calibration becomes `logit_bias`.

    Raises ArtifactError for a prompt that `format` (of FORMATS) can't carry byte for byte.
    """
    if format not in ("text", "json") and any("\0" in message.content for message in release.messages):
        raise _refused(format, "a prompt without NUL", "one")
    calibration = release.spec.calibration
    bias = logit_bias(calibration, tokens) if calibration and format in BIASED else {}
    return FORMATS[format](release, model or served_name(release), bias)


def served_name(release: Release) -> str:
    """The Student's model as a server could name it."""
    return str(release.spec.student.get("model", "")).removeprefix("asset:") or "MODEL"


def notes(release: Release, format: str, model: str | None = None, tokens: Sequence[int] | None = None) -> list[str]:
    """What the export leaves out or assumes, one line each."""
    if format == "text":
        return ["--format json has the input template, the labels and the calibration too"]
    if format == "json":
        return []
    lines = []
    if model is None and str(release.spec.student.get("model")).startswith("asset:"):
        lines.append(f"model: {served_name(release)!r} is the name of a local asset; give your runtime's with --model")
    if format == "anthropic":
        lines.append(f"the figures were measured with {served_name(release)}; they hold for no other model")
    if release.spec.calibration is not None:
        lines.append(_calibration_note(release.spec.calibration, format, tokens))
    return lines


def _calibration_note(calibration: Calibration, format: str, tokens: Sequence[int] | None) -> str:
    if format in BIASED and logit_bias(calibration, tokens):
        return (
            "calibration: applied by logit_bias, whose token ids are those of the Student's tokenizer: the server must "
            "run the same model"
        )
    if format not in BIASED:
        reason = f"{format} has no logit_bias"
    elif tokens is None:
        reason = "a label is not a single token (or the Student's tokenizer is not on this machine)"
    else:
        reason = f"biases differ by more than logit_bias allows ({2 * _FAVOUR:g})"
    return (
        f"calibration: lost, because {reason}; labels will differ from those that were measured (--format json has "
        "the calibration)"
    )


def _json(release: Release, _model: str, _bias: Bias) -> str:
    task = release.spec.task
    return _document(
        {
            "prompt": release.prompt,
            "messages": [message.model_dump() for message in release.messages],
            "prompt_sha256": release.spec.prompt_sha256,
            **_origin(release),
            "task": task.model_dump(mode="json"),
            "input": _input(task),
            "answer": {
                "labels": list(task.labels),
                "read": "The label is the one of the highest log-likelihood (the sum over its tokens) as the "
                "assistant's answer; where there is a calibration, of the highest scale * log-likelihood + the label's "
                "bias. Ties go to the earlier one.",
            },
            "calibration": release.spec.calibration.model_dump(mode="json") if release.spec.calibration else None,
            # a replica's address determines no answer
            "student": {key: value for key, value in release.spec.student.items() if key != "base_url"},
        }
    )


def _openai(release: Release, model: str, bias: Bias) -> str:
    body = {**_chat_body(release, model, bias), "logprobs": True, "top_logprobs": _TOP}
    read = (
        "The label is the answer's text without surrounding space, if that is one of the labels. Else it is the label "
        "that begins with the likeliest token in choices[0].logprobs.content[0].top_logprobs with which any label "
        f"begins, if no other label begins with it too. {_NO_LABEL}"
    )
    return _request(release, {"post": _CHAT, "body": body}, read)


def _vllm(release: Release, model: str, bias: Bias) -> str:
    body = {
        **_chat_body(release, model, bias),
        # a model's own generation_config.json may set a penalty, which would change what is likeliest
        "repetition_penalty": 1.0,
        "structured_outputs": {"choice": list(release.spec.task.labels)},
    }
    serve = f"vllm serve {shlex.quote(model)} --enable-prefix-caching"
    read = f"The label is choices[0].message.content: the server holds it to the labels. {_NO_LABEL}"
    return _request(release, {"serve": serve, "post": _CHAT, "body": body}, read)


def _anthropic(release: Release, model: str, _bias: Bias) -> str:
    if not all(message.content.strip() for message in release.messages):
        raise _refused("anthropic", "a prompt that is not blank", "a blank one")
    cached = {"cache_control": {"type": "ephemeral"}}
    turns = _turns(release)
    if turns:  # a cached turn caches all before it
        turns[-1]["content"] = [{"type": "text", "text": turns[-1]["content"], **cached}]
    body = {
        "model": model,
        "max_tokens": _longest(release.spec.task),
        "thinking": {"type": "disabled"},
        "system": [{"type": "text", "text": release.prompt, **({} if turns else cached)}],
        "messages": [*turns, _turn(release.spec.task)],
    }
    read = (
        "The label is the text of the answer's text block without surrounding space, if that is one of the labels. "
        f"{_NO_LABEL} A model that can't do without thinking refuses `thinking`: take it out, and raise max_tokens."
    )
    return _request(release, {"post": "/v1/messages", "body": body}, read)


def _ollama(release: Release, model: str, _bias: Bias) -> str:
    task = release.spec.task
    if not release.prompt:
        raise _refused("ollama", "a prompt", "an empty one, for which Ollama uses the model's own")
    system, *turns = (_in_quotes(message.content) for message in release.messages)
    room = sum(len(message.content.encode()) + _MARKUP for message in release.messages)
    if not re.fullmatch(r'[^\s"](?:.*\S)?', model):
        raise ConfigError(f"expected a model's name or path for FROM, got {model!r:.80} (export); correct --model")
    example = _input(task)["example"]
    version = f", {release.model} version {release.number}" if release.model else ""
    lines = [
        f"# {task.name}{version}; prompt sha256 {release.spec.prompt_sha256}",
        "# ollama create NAME -f THIS_FILE, then send each input as a user's turn, which is this Jinja template over",
        f"# the fields {json.dumps(task.fields)}: {json.dumps(task.input_template)}",
        *([f"# {json.dumps(example['inputs'])} is {json.dumps(example['rendered'])}"] if example else []),
        f"# The label is the answer without surrounding space, if it is one of {json.dumps(task.labels)}; else none.",
        "# The chat template is the model's own: give a TEMPLATE only where `ollama show --template` shows none.",
        f"FROM {model}",
        f"SYSTEM {system}",
        *(f"MESSAGE {message.role} {turn}" for message, turn in zip(release.messages[1:], turns, strict=True)),
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1.0",
        f"PARAMETER num_predict {_longest(task)}",
        f"# a longer context is cut without a word: a token for each byte of the prompt, and {_INPUT_TOKENS:,} for an"
        " input",
        f"PARAMETER num_ctx {_INPUT_TOKENS + room + _longest(task)}",
    ]
    return "\n".join(lines) + "\n"


def _in_quotes(text: str) -> str:
    """`text` as a Modelfile's value in triple quotes."""
    # Ollama's parser drops unprintable characters except tab, line feed and carriage return
    if dropped := sorted({character for character in text if not (character.isprintable() or character in "\t\n\r")}):
        raise _refused("ollama", "characters that a Modelfile keeps", f"U+{ord(dropped[0]):04X}, which it drops")
    # a value in triple quotes ends at the first line that ends in three quotes; there is no escape
    if re.search(r'"""[ \t]*[\n\r]', text):
        raise _refused("ollama", 'no line that ends in """', "one, where a Modelfile would end the prompt")
    return f'"""{text}"""'


def _text(release: Release, _model: str, _bias: Bias) -> str:
    if turns := len(release.messages) // 2:
        raise _refused("text", "a system prompt alone", f"one with {turns} example turns")
    return release.prompt


FORMATS: dict[str, Callable[[Release, str, Bias], str]] = {
    "text": _text,
    "json": _json,
    "openai": _openai,
    "anthropic": _anthropic,
    "ollama": _ollama,
    "vllm": _vllm,
}


def _origin(release: Release) -> dict[str, Any]:
    prompt_version = None if release.number is None else release.spec.prompt_version
    return {"model": release.model, "version": release.number, "prompt_version": prompt_version}


def _chat_body(release: Release, model: str, bias: Bias) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "system", "content": release.prompt}, *_turns(release), _turn(release.spec.task)],
        "temperature": 0,
        # the bias would repeat the label
        **({"max_tokens": 1, "logit_bias": bias} if bias else {"max_tokens": _longest(release.spec.task)}),
    }


def _turns(release: Release) -> list[dict[str, Any]]:
    """The example turns."""
    return [message.model_dump() for message in release.messages[1:]]


def _turn(task: Task) -> dict[str, str]:
    """A user's turn with the template itself, which the caller renders."""
    return {"role": "user", "content": task.input_template}


def _longest(task: Task) -> int:
    """An upper bound on a label's tokens, whatever the tokenizer: one for each byte, and one that ends the answer."""
    return 1 + max(len(label.encode()) for label in task.labels)


def _input(task: Task) -> dict[str, Any]:
    """How fields become the user's turn; no example if the template fails on made-up values."""
    inputs = {field: f"Some made-up {field}." for field in task.fields}
    try:
        example = {"inputs": inputs, "rendered": render_input(task, inputs)}
    except ConfigError:
        example = None
    return {
        "fill": "In place of the content of the last message of body: the Jinja 2 template, rendered once over the "
        "fields, whose values are text and never templates.",
        "template": task.input_template,
        "fields": list(task.fields),
        "example": example,
    }


def _request(release: Release, call: dict[str, Any], read: str) -> str:
    task = release.spec.task
    return _document(
        {
            **call,
            "input": _input(task),
            "answer": {"labels": list(task.labels), "read": read},
            "prompt_sha256": release.spec.prompt_sha256,
            **_origin(release),
        }
    )


def _document(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _refused(format: str, expected: str, got: str) -> ArtifactError:
    return ArtifactError(
        f"expected {expected}, got {got} (export as {format}); nothing was written: use --format json, or change the "
        "prompt"
    )
