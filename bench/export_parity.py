"""The exported chat body at llama.cpp's server against the Student in process, and other ways to ask for the label.

PYTHONPATH=src:tests python bench/export_parity.py 40            # the prompt that ships, on validation
PYTHONPATH=src:tests python bench/export_parity.py mails         # made-up mails, a short prompt
PYTHONPATH=src:tests python bench/export_parity.py mails smollm2-135m
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import yaml

from pld.artifacts import read_jsonl
from pld.config.build import build
from pld.config.settings import load_config
from pld.distill.render import prompt_messages, render_input
from pld.records import Example, sha256
from pld.registry.release import read_release
from pld.serving.export import exported
from pld.serving.model import Release, ServedSpec
from serving.test_export_parity import MAILS, PROMPT, label_of
from support.llama_server import llama_server
from support.mails import TASK


def main(what: str, model: str = "qwen2.5-coder-0.5b") -> None:
    settings = yaml.safe_load(Path(f"conf/student/{model}.yaml").read_text(encoding="utf-8"))
    if what == "mails":
        task, prompt, inputs = TASK.bare, PROMPT, MAILS
    else:
        config = load_config()
        task, prompt = config.task.bare, read_release(config, Path("artifacts")).prompt
        examples = read_jsonl(Path("artifacts/splits/validation.jsonl"), Example)[: int(what)]
        inputs = [render_input(task, example.inputs) for example in examples]
    spec = ServedSpec(task=task, student=settings, calibration=None, prompt_sha256=sha256(prompt))
    release = Release(spec, prompt_messages(prompt))
    scores = build(settings, "student").score(prompt_messages(prompt), inputs, task.labels)
    here = [task.labels[best] for best in scores.argmax(axis=1)]
    margins = np.diff(np.sort(scores, axis=1), axis=1)[:, -1]
    with llama_server(context=2048, parallel=1, model=model) as url, httpx2.Client(timeout=120) as client:
        for name, change in _bodies(task.labels).items():
            there = []
            for text in inputs:
                body = copy.deepcopy(json.loads(exported(release, "openai"))["body"])
                body["messages"][-1]["content"] = text
                answer = client.post(f"{url}/chat/completions", json=body | change).raise_for_status().json()
                there.append(_label(name, answer, task.labels))
            agree = np.array([one == other for one, other in zip(here, there, strict=True)])
            widest = margins[~agree].max() if not agree.all() else 0.0
            print(
                f"{name}: {agree.sum()} of {len(inputs)} as in process, {there.count(None)} without a label; "
                f"widest margin of one that is not: {widest:.2f} nats",
                flush=True,
            )


def _bodies(labels: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    field = {"type": "object", "properties": {"label": {"enum": list(labels)}}, "required": ["label"]}
    literals = " | ".join(json.dumps(label, ensure_ascii=False) for label in labels)
    return {
        "as exported": {},
        "JSON object": _schema(field | {"additionalProperties": False}),
        "JSON enum": _schema({"enum": list(labels)}),
        "grammar": {"grammar": f"root ::= {literals}"},
    }


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}
    return {"response_format": form, "max_tokens": 40}


def _label(name: str, answer: dict[str, Any], labels: tuple[str, ...]) -> str | None:
    if not name.startswith("JSON"):
        return label_of(answer, labels)
    try:
        found = json.loads(answer["choices"][0]["message"]["content"])
    except ValueError:  # cut at the limit
        return None
    return found["label"] if isinstance(found, dict) else found


if __name__ == "__main__":
    main(*sys.argv[1:])
