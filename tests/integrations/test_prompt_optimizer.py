"""The optimiser behind MLflow's own optimize_prompts, on a real store, with the real SDK against a local Teacher."""

import json
import re

import mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.genai.optimize.types import EvaluationResultRecord
from mlflow.genai.scorers import scorer

from pld.errors import ConfigError, DataError, ExtractionError, PldError
from pld.integrations.mlflow.prompt_optimizer import PldPromptOptimizer
from pld.integrations.mlflow.prompt_template import Template, has_markup
from support.anthropic_server import anthropic_server  # noqa: F401
from support.prompt_owner import (
    CUES,
    PROMPT,
    CueEmbedder,
    SayingTeacher,
    answered,
    messages_of,
    records,
    respond,
    rule_for,
)
from support.word_sweep import ByNearest

LIGHT = {"embedder": CueEmbedder(), "clusterer": ByNearest(), "max_trials": 3}


@scorer
def right(outputs, expectations):
    return float(outputs == expectations["expected_response"])


def fill(template, inputs):
    """As PromptVersion.format does."""
    if template.startswith("["):
        return "\n".join(fill(message["content"], inputs) for message in messages_of(template))
    for key, value in inputs.items():
        template = re.sub(r"\{\{\s*" + key + r"\s*\}\}", value, template)
    return template


class Judge:
    """What MLflow makes of predict_fn and scorers, without a store; remembers what it scored."""

    def __init__(self, predict=answered, score=True):
        self.predict, self.scores, self.prompts, self.seen = predict, score, [], set()

    def __call__(self, candidate, dataset):
        (prompt,) = candidate.values()
        self.prompts.append(prompt)
        found = []
        for record in dataset:
            self.seen.add(record["inputs"]["text"])
            gold = (record.get("expectations") or {"expected_response": record.get("outputs")})["expected_response"]
            try:
                output = self.predict(fill(prompt, record["inputs"]), record["inputs"]["text"])
            except ValueError as error:
                output = f"Failed to invoke the predict_fn with {record['inputs']}: {error}"
            value = float(output == gold) if self.scores else None
            single = {} if value is None else {"right": value}
            found.append(EvaluationResultRecord(record["inputs"], output, gold, value, None, {}, single))
        return found


def optimised(teacher=None, data=None, prompt=PROMPT, judge=None, **changes):
    """The optimised prompt's text, its output, and the judge."""
    judge = judge or Judge()
    optimizer = PldPromptOptimizer(teacher or SayingTeacher(), **{**LIGHT, **changes})
    output = optimizer.optimize(judge, records() if data is None else data, {"mail": prompt}, False)
    return output.optimized_prompts["mail"], output, judge


@pytest.mark.slow
def test_optimize_prompts_registers_a_version_with_rules_that_scores_higher(store, anthropic_server):  # noqa: F811
    server = anthropic_server(respond)
    first = mlflow.genai.register_prompt(name="mail", template=PROMPT)

    def predict_fn(text, customer):
        prompt = mlflow.genai.load_prompt("prompts:/mail/1")
        return answered(prompt.format(text=text, customer=customer), text)

    result = mlflow.genai.optimize_prompts(
        predict_fn=predict_fn,
        train_data=records(48),
        prompt_uris=[first.uri],
        optimizer=PldPromptOptimizer("anthropic:/claude-test", **LIGHT),
        scorers=[right],
    )
    (made,) = result.optimized_prompts
    assert (made.name, made.version) == ("mail", 2)
    assert mlflow.genai.load_prompt("prompts:/mail/2").template == made.template
    assert PROMPT in made.template
    assert made.variables == first.variables == {"text", "customer"}
    for cues, label in zip(CUES.values(), CUES, strict=True):
        assert f"- If it tells of {cues}, answer {label}" in made.template
    assert result.final_eval_score == result.final_eval_score_per_scorer["right"] == 1.0
    assert result.initial_eval_score < 0.6
    assert {body["model"] for body in server.bodies} == {"claude-test"}
    assert 10 < len(server.bodies) < 38  # about half of the records are explained, each once
    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert run.data.metrics["final_eval_score"] == 1.0
    assert run.data.params["pld.teacher"] == "anthropic:claude-test"
    assert run.data.tags["pld.outcome"] == "improved"
    listed = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/pld/instructions.jsonl").splitlines()
    assert sorted(json.loads(line)["label"] for line in listed) == sorted(CUES)
    assert all(json.loads(line)["rule_ids"] for line in listed)


def test_the_users_prompt_stays_and_a_warning_is_logged_if_no_rules_score_higher(caplog):
    others = dict(zip(CUES, [*CUES.values()][1:] + [*CUES.values()][:1], strict=True))
    dud = SayingTeacher(lambda label: rule_for(label) | {"rule": f"If it tells of {others[label]}, answer {label}"})
    with caplog.at_level("WARNING", logger="mlflow.pld"):
        text, output, judge = optimised(dud)
    assert text == PROMPT
    assert output.final_eval_score == output.initial_eval_score
    assert len(judge.prompts) > 1
    assert "stays as it is" in caplog.text


def test_records_that_the_teacher_explains_never_choose_among_prompts():
    teacher = SayingTeacher()
    *_, judge = optimised(teacher)
    explained = {text for text in {record["inputs"]["text"] for record in records()} if _asked(teacher, text)}
    assert explained
    assert judge.seen
    assert not explained & judge.seen
    assert explained | judge.seen == {record["inputs"]["text"] for record in records()}


def _asked(teacher, text):
    return any(json.dumps(text) in request.prompt for request in teacher.asked)


def test_adding_records_moves_no_other_between_the_two_parts():
    few, more = Judge(), Judge()
    optimised(judge=few, data=records(30))
    optimised(judge=more, data=[*records(91)[30:], *records(30)])
    assert few.seen == more.seen & {record["inputs"]["text"] for record in records(30)}


def test_a_mapping_like_those_of_conf_selects_another_clusterer():
    dbscan = {
        "_target_": "pld.adapters.clusterers.dbscan.DbscanClusterer",
        "eps": 0.1,
        "min_samples": 2,
        "grow_from": None,
    }
    text, output, _ = optimised(clusterer=dbscan)
    assert text.count("- If it tells of") == 3
    assert output.final_eval_score == 1.0


def test_the_limits_on_explained_scored_and_tried_hold():
    teacher = SayingTeacher()
    *_, judge = optimised(teacher, max_examples=7, max_validation=5, max_trials=2)
    assert (len(teacher.asked), len(judge.seen), len(judge.prompts)) == (7, 5, 3)


def test_the_same_data_in_any_order_and_seed_give_the_same_prompt():
    assert optimised()[0] == optimised(data=list(reversed(records())))[0]


def test_rules_with_template_markup_never_reach_the_prompt():
    def say(label):
        extra = {"refund": "{{text}}", "delivery": "{% if text %}"}.get(label, "")
        return rule_for(label) | {"rule": f"If it tells of {CUES[label]} {extra}, answer {label}"}

    text, _, judge = optimised(SayingTeacher(say))
    assert all(prompt.count("{{") == 2 and "{%" not in prompt for prompt in judge.prompts)
    assert "answer praise" in text
    with pytest.raises(ExtractionError, match="template_markup"):
        optimised(SayingTeacher(lambda label: rule_for(label) | {"rule": f"If {{{{ text }}}} so, answer {label}"}))


def test_rules_go_into_the_system_message_of_a_chat_prompt():
    chat = [
        {"role": "user", "content": "first"},
        {"role": "system", "content": "Was ist es? {{ customer }}"},
        {"role": "user", "content": "{{ text }}"},
    ]
    text, output, _ = optimised(prompt=json.dumps(chat))
    made = messages_of(text)
    assert (made[0], made[2]) == (chat[0], chat[2])
    assert chat[1]["content"] in made[1]["content"]
    assert "- If it tells of" in made[1]["content"]
    assert output.final_eval_score == 1.0


def test_merge_lets_the_teacher_merge_the_rules_of_a_cluster():
    class Merging(SayingTeacher):
        def ask(self, requests):
            if requests[0].role == "extract":
                yield from super().ask(requests)
                return
            for request in requests:
                label = re.search(r"answer (\w+)", request.prompt).group(1)
                said = {"instruction": f"If merged, {CUES[label]} stand there, answer {label}", "label": label}
                yield from SayingTeacher(lambda _, said=said: said).ask([_with_gold(request)])

    text, output, _ = optimised(Merging(), merge=True)
    assert text.count("- If merged, ") == 3
    assert output.final_eval_score == 1.0


def _with_gold(request):
    from dataclasses import replace

    return replace(request, prompt="Gold label: x")


def test_one_of_several_prompts_must_be_named_and_the_others_stay():
    several = {"mail": PROMPT, "other": "{{ text }}"}
    judge = Judge()
    with pytest.raises(ConfigError, match=r"got 2 \(mail, other\)"):
        PldPromptOptimizer(SayingTeacher(), **LIGHT).optimize(judge, records(), several, False)
    output = PldPromptOptimizer(SayingTeacher(), prompt="mail", **LIGHT).optimize(judge, records(), several, False)
    assert list(output.optimized_prompts) == ["mail"]
    with pytest.raises(ConfigError, match="expected the prompt 'no'"):
        PldPromptOptimizer(SayingTeacher(), prompt="no", **LIGHT).optimize(judge, records(), several, False)


def _failing(prompt, text):
    raise ValueError("no key")


FAULTS = {
    "predict_fn fails": ({"judge": Judge(_failing)}, DataError, "got an error on each: no key"),
    "no scorers": ({"judge": Judge(score=False)}, ConfigError, "scorers="),
    "no data": ({"data": []}, DataError, "expected labelled records"),
    "one label": ({"data": records()[::3]}, DataError, "two or more labels"),
    "too few": ({"data": records(3)}, DataError, "expected a few labels that repeat"),
    "free text": (
        {
            "data": [
                record | {"expectations": {"expected_response": f"it is {n}"}} for n, record in enumerate(records())
            ]
        },
        DataError,
        "for prompts that classify",
    ),
    "another key": ({"label_key": "team"}, DataError, r"expectations\['team'\] or outputs"),
    "undeclared label": ({"labels": ["refund", "praise"]}, DataError, r"got 'delivery' \(train_data\[1\]\)"),
    "two labels of one input": (
        {"data": [*records(), records()[0] | {"expectations": {"expected_response": "praise"}}]},
        DataError,
        r"expected one label per input, got .*\(train_data\[60\]\)",
    ),
    "nothing on one side": (
        {"data": [{"inputs": {"text": "t"}, "outputs": "a"}], "labels": ["a", "b"]},
        DataError,
        "half and half",
    ),
    "no rules": (
        {"teacher": SayingTeacher(lambda label: rule_for(label) | {"label": "praise", "rule": ""})},
        ExtractionError,
        "got none",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_input_is_refused_in_one_line(fault):
    arguments, kind, words = FAULTS[fault]
    teacher = arguments.get("teacher") or SayingTeacher()
    with pytest.raises(kind, match=words) as caught:
        optimised(**{**arguments, "teacher": teacher})
    assert "\n" not in str(caught.value)
    assert bool(teacher.asked) == (fault == "no rules")  # all else is found before the Teacher is paid


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"teacher": "claude"}, "anthropic:/MODEL, or a YAML file like those of conf/teacher/, got 'claude'"),
        ({"teacher": {"_target_": "os.system"}}, "expected a _target_ inside pld.adapters"),
        ({"teacher": {"defaults": ["anthropic"], "model": "m", "wrong": 1}}, "got 'teacher.wrong'"),
        ({"embedder": "none.yaml"}, "like those of conf/embedder/"),
        ({"labels": ["a", "a"]}, "two or more different labels"),
        ({"max_trials": 0}, r"expected 1 or more, got 0 \(PldPromptOptimizer: max_trials\)"),
    ],
)
def test_a_wrong_argument_is_refused_by_the_constructor(arguments, words):
    with pytest.raises(PldError, match=words) as caught:
        PldPromptOptimizer(**{"teacher": SayingTeacher(), **arguments})
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40), st.lists(st.text(max_size=20).filter(lambda text: not has_markup(text)), max_size=3))
@settings(max_examples=200, deadline=None)
def test_the_prompts_own_text_survives_byte_for_byte(text, lines):
    template = Template.of(text)
    assert template.text == text or text.startswith("[")
    around = "\n".join([*lines, template.text, *lines])
    assert text in template.with_text(around) or template.messages
    chat = json.dumps([{"role": "user", "content": "{{x}}"}, {"role": "system", "content": text, "name": "n"}])
    assert Template.of(chat).text == text
    made = messages_of(Template.of(chat).with_text(around))
    assert made == [{"role": "user", "content": "{{x}}"}, {"role": "system", "content": around, "name": "n"}]
