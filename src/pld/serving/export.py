"""The prompt as other runtimes want it, byte for byte; what a format can't carry so is refused, never changed."""

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

from pld.distill.render import render_input
from pld.errors import ArtifactError, ConfigError
from pld.records import Calibration, Record, Task, sha256

_CHAT = "/v1/chat/completions"
_TOP = 20  # the most that OpenAI's API lists
_INPUT_TOKENS = 1024
_NO_LABEL = "Anything else is no label, and counts as wrong."


class Shipment(Record):
    """A prompt with what its answers depend on. `student` is its section of conf/; `calibration` None: none is applied;
    `model`, `number` and `prompt_version` are None where it is of no registered version."""

    prompt: str
    task: Task
    student: dict[str, Any]
    calibration: Calibration | None
    model: str | None = None
    number: int | None = None
    prompt_version: str | None = None

    @property
    def served_name(self) -> str:
        """The Student's model as a server could name it."""
        return str(self.student.get("model", "")).removeprefix("asset:") or "MODEL"

    @property
    def origin(self) -> dict[str, Any]:
        return {"model": self.model, "version": self.number, "prompt_version": self.prompt_version}


def exported(shipment: Shipment, format: str, model: str | None = None) -> str:
    """The whole export as text. `model`: how the runtime names the model; None: as the Student's settings do.

    Raises ArtifactError for a prompt that `format` (of FORMATS) can't carry byte for byte.
    """
    if format not in ("text", "json") and "\0" in shipment.prompt:
        raise _refused(format, "a text without NUL", "one")
    return FORMATS[format](shipment, model or shipment.served_name)


def notes(shipment: Shipment, format: str, model: str | None = None) -> list[str]:
    """What the user should know and the export can't say, one line each."""
    lines = []
    if format == "text":
        lines.append("the input template, the labels and the calibration stand in --format json")
    if format in ("text", "json"):
        return lines
    if model is None and str(shipment.student.get("model")).startswith("asset:"):
        lines.append(f"model: {shipment.served_name!r} is the name of a local asset; give your runtime's with --model")
    if format == "anthropic":
        lines.append(f"figures were measured with {shipment.served_name}, and hold for no other model")
    if shipment.calibration is not None:
        lines.append(
            f"calibration: this version subtracts each label's mean log-score, which an answer in {format} has not; "
            "labels will differ from those that were measured (--format json carries the calibration)"
        )
    return lines


def _text(shipment: Shipment, model: str) -> str:
    del model
    return shipment.prompt


def _json(shipment: Shipment, model: str) -> str:
    del model
    task = shipment.task
    return _document(
        {
            "prompt": shipment.prompt,
            "prompt_sha256": sha256(shipment.prompt),
            **shipment.origin,
            "task": task.model_dump(mode="json"),
            "input": _input(task),
            "answer": {
                "labels": list(task.labels),
                "read": "The label is the one of the highest log-likelihood (the sum over its tokens) as the "
                "assistant's answer, less its mean log-score where there is a calibration; ties go to the earlier one.",
            },
            "calibration": shipment.calibration.model_dump(mode="json") if shipment.calibration else None,
            # where a replica stands determines no answer
            "student": {key: value for key, value in shipment.student.items() if key != "base_url"},
        }
    )


def _openai(shipment: Shipment, model: str) -> str:
    body = {**_chat_body(shipment, model), "logprobs": True, "top_logprobs": _TOP}
    read = (
        "The label is the answer's text without surrounding space, if that is one of the labels. Else it is the label "
        "that begins with the likeliest token in choices[0].logprobs.content[0].top_logprobs with which any label "
        f"begins, if no other label begins with it too. {_NO_LABEL}"
    )
    return _request(shipment, {"post": _CHAT, "body": body}, read)


def _vllm(shipment: Shipment, model: str) -> str:
    body = {
        **_chat_body(shipment, model),
        # a model's own generation_config.json may set a penalty, which would change what is likeliest
        "repetition_penalty": 1.0,
        "structured_outputs": {"choice": list(shipment.task.labels)},
    }
    serve = f"vllm serve {shlex.quote(model)} --enable-prefix-caching"
    read = f"The label is choices[0].message.content: the server holds it to the labels. {_NO_LABEL}"
    return _request(shipment, {"serve": serve, "post": _CHAT, "body": body}, read)


def _anthropic(shipment: Shipment, model: str) -> str:
    if not shipment.prompt.strip():
        raise _refused("anthropic", "a text that is not blank", "a blank one")
    body = {
        "model": model,
        "max_tokens": _longest(shipment.task),
        "thinking": {"type": "disabled"},
        "system": [{"type": "text", "text": shipment.prompt, "cache_control": {"type": "ephemeral"}}],
        "messages": [_turn(shipment.task)],
    }
    read = (
        "The label is the text of the answer's text block without surrounding space, if that is one of the labels. "
        f"{_NO_LABEL} A model that can't do without thinking refuses `thinking`: take it out, and raise max_tokens."
    )
    return _request(shipment, {"post": "/v1/messages", "body": body}, read)


def _ollama(shipment: Shipment, model: str) -> str:
    prompt, task = shipment.prompt, shipment.task
    if not prompt:
        raise _refused("ollama", "a text", "an empty one, for which Ollama takes the model's own")
    # of what is not printable Ollama's parser keeps tab, line feed and carriage return, and drops the rest
    if dropped := sorted({character for character in prompt if not (character.isprintable() or character in "\t\n\r")}):
        codes = ", ".join(f"U+{ord(character):04X}" for character in dropped[:5])
        raise _refused("ollama", "characters that its Modelfile keeps", f"{codes}, which it drops")
    # a value that begins with three quotes ends where a line does with three more; nothing escapes them
    if re.search(r'"""[ \t]*[\n\r]', prompt):
        raise _refused("ollama", 'no line that ends in """', "one, where a Modelfile would end the prompt")
    if not re.fullmatch(r'[^\s"](?:.*\S)?', model):
        raise ConfigError(f"export: wanted a model's name or path for FROM, found {model!r:.80}; give it with --model")
    example = _input(task)["example"]
    lines = [
        f"# {_title(shipment)}; prompt sha256 {sha256(prompt)}",
        "# ollama create NAME -f THIS_FILE, then send each input as a user's turn, which is this Jinja template over",
        f"# the fields {json.dumps(task.fields)}: {json.dumps(task.input_template)}",
        *([f"# {json.dumps(example['inputs'])} is {json.dumps(example['rendered'])}"] if example else []),
        f"# The label is the answer without surrounding space, if it is one of {json.dumps(task.labels)}; else none.",
        "# The chat template is the model's own: give a TEMPLATE only where `ollama show --template` shows none.",
        f"FROM {model}",
        f'SYSTEM """{prompt}"""',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1.0",
        f"PARAMETER num_predict {_longest(task)}",
        f"# a longer context is cut without a word: a token for each byte of the prompt, and {_INPUT_TOKENS:,} for an"
        " input",
        f"PARAMETER num_ctx {_INPUT_TOKENS + len(prompt.encode()) + _longest(task)}",
    ]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Shipment, str], str]] = {
    "text": _text,
    "json": _json,
    "openai": _openai,
    "anthropic": _anthropic,
    "ollama": _ollama,
    "vllm": _vllm,
}


def _chat_body(shipment: Shipment, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "system", "content": shipment.prompt}, _turn(shipment.task)],
        "temperature": 0,
        "max_tokens": _longest(shipment.task),
    }


def _turn(task: Task) -> dict[str, str]:
    """The template in the place of what it makes of an input."""
    return {"role": "user", "content": task.input_template}


def _longest(task: Task) -> int:
    """Tokens that no label exceeds, whatever the tokenizer: each is a byte at least, and one more ends the answer."""
    return 1 + max(len(label.encode()) for label in task.labels)


def _input(task: Task) -> dict[str, Any]:
    """How fields become the user's turn; no example where the template wants values of a certain kind."""
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


def _request(shipment: Shipment, call: dict[str, Any], read: str) -> str:
    task = shipment.task
    return _document(
        {
            **call,
            "input": _input(task),
            "answer": {"labels": list(task.labels), "read": read},
            "prompt_sha256": sha256(shipment.prompt),
            **shipment.origin,
        }
    )


def _document(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _title(shipment: Shipment) -> str:
    version = f", {shipment.model} version {shipment.number}" if shipment.model else ""
    return f"{shipment.task.name}{version}"


def _refused(format: str, wanted: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"export: wanted for {format} {wanted}, found in the prompt {found}; nothing was written: use --format json, "
        "or change the prompt"
    )
