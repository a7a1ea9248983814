"""The optimiser behind MLflow's own optimize_prompts, on a real store, with the real SDK against a local Teacher."""

import json
import re

import mlflow
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.genai.optimize.types import EvaluationResultRecord
from mlflow.genai.scorers import scorer

from pld.errors import ConfigError, DataError, ExtractionError, PldError
from pld.integrations.mlflow import prompt_optimizer
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


def test_a_users_prompt_comes_back_as_a_new_version_with_rules_that_scores_higher(store, anthropic_server):  # noqa: F811
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


def test_the_users_own_prompt_stays_where_no_rules_do_better_and_that_is_said(caplog):
    others = dict(zip(CUES, [*CUES.values()][1:] + [*CUES.values()][:1], strict=True))
    dud = SayingTeacher(lambda label: rule_for(label) | {"rule": f"If it tells of {others[label]}, answer {label}"})
    with caplog.at_level("WARNING", logger="mlflow.pld"):
        text, output, judge = optimised(dud)
    assert text == PROMPT
    assert output.final_eval_score == output.initial_eval_score
    assert len(judge.prompts) > 1
    assert "stays as it is" in caplog.text


def test_no_record_that_the_teacher_explains_is_one_that_prompts_are_chosen_by():
    teacher = SayingTeacher()
    *_, judge = optimised(teacher)
    explained = {text for text in {record["inputs"]["text"] for record in records()} if _asked(teacher, text)}
    assert explained
    assert judge.seen
    assert not explained & judge.seen
    assert explained | judge.seen == {record["inputs"]["text"] for record in records()}


def _asked(teacher, text):
    return any(json.dumps(text) in request.prompt for request in teacher.asked)


def test_more_records_move_none_of_the_others():
    few, more = Judge(), Judge()
    optimised(judge=few, data=records(30))
    optimised(judge=more, data=[*records(91)[30:], *records(30)])
    assert few.seen == more.seen & {record["inputs"]["text"] for record in records(30)}


def test_another_clusterer_is_named_as_in_conf():
    dbscan = {
        "_target_": "pld.adapters.clusterers.dbscan.DbscanClusterer",
        "eps": 0.1,
        "min_samples": 2,
        "grow_from": None,
    }
    text, output, _ = optimised(clusterer=dbscan)
    assert text.count("- If it tells of") == 3
    assert output.final_eval_score == 1.0


def test_limits_hold_on_what_is_explained_scored_and_tried():
    teacher = SayingTeacher()
    *_, judge = optimised(teacher, max_examples=7, max_validation=5, max_trials=2)
    assert (len(teacher.asked), len(judge.seen), len(judge.prompts)) == (7, 5, 3)


def test_the_same_data_and_seed_make_the_same_prompt():
    assert optimised()[0] == optimised(data=list(reversed(records())))[0]


def test_a_rule_that_holds_template_markup_never_reaches_the_prompt():
    def say(label):
        extra = {"refund": "{{text}}", "delivery": "{% if text %}"}.get(label, "")
        return rule_for(label) | {"rule": f"If it tells of {CUES[label]} {extra}, answer {label}"}

    text, _, judge = optimised(SayingTeacher(say))
    assert all(prompt.count("{{") == 2 and "{%" not in prompt for prompt in judge.prompts)
    assert "answer praise" in text
    with pytest.raises(ExtractionError, match="template_markup"):
        optimised(SayingTeacher(lambda label: rule_for(label) | {"rule": f"If {{{{ text }}}} so, answer {label}"}))


def test_rules_of_a_chat_prompt_go_to_its_system_message():
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


def test_the_teacher_merges_the_rules_of_a_cluster_where_that_is_wanted():
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


def test_one_of_several_prompts_has_to_be_named_and_the_others_are_left_alone():
    several = {"mail": PROMPT, "other": "{{ text }}"}
    judge = Judge()
    with pytest.raises(ConfigError, match=r"found 2 \(mail, other\)"):
        PldPromptOptimizer(SayingTeacher(), **LIGHT).optimize(judge, records(), several, False)
    output = PldPromptOptimizer(SayingTeacher(), prompt="mail", **LIGHT).optimize(judge, records(), several, False)
    assert list(output.optimized_prompts) == ["mail"]
    with pytest.raises(ConfigError, match="wanted the prompt 'no'"):
        PldPromptOptimizer(SayingTeacher(), prompt="no", **LIGHT).optimize(judge, records(), several, False)


def _failing(prompt, text):
    raise ValueError("no key")


FAULTS = {
    "predict_fn fails": ({"judge": Judge(_failing)}, DataError, "found an error on each: no key"),
    "no scorers": ({"judge": Judge(score=False)}, ConfigError, "scorers="),
    "no data": ({"data": []}, DataError, "wanted labelled records"),
    "one label": ({"data": records()[::3]}, DataError, "two or more labels"),
    "too few": ({"data": records(3)}, DataError, "wanted a few labels that repeat"),
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
    "undeclared label": ({"labels": ["refund", "praise"]}, DataError, r"train_data\[1\].*found 'delivery'"),
    "two labels of one input": (
        {"data": [*records(), records()[0] | {"expectations": {"expected_response": "praise"}}]},
        DataError,
        r"train_data\[60\]: wanted one label per input",
    ),
    "nothing on one side": (
        {"data": [{"inputs": {"text": "t"}, "outputs": "a"}], "labels": ["a", "b"]},
        DataError,
        "half and half",
    ),
    "no rules": (
        {"teacher": SayingTeacher(lambda label: rule_for(label) | {"label": "praise", "rule": ""})},
        ExtractionError,
        "found none",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_work_is_one_line(fault):
    arguments, kind, words = FAULTS[fault]
    teacher = arguments.get("teacher") or SayingTeacher()
    with pytest.raises(kind, match=words) as caught:
        optimised(**{**arguments, "teacher": teacher})
    assert "\n" not in str(caught.value)
    assert bool(teacher.asked) == (fault == "no rules")  # all else is found before the Teacher is paid


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"teacher": "claude"}, "anthropic:/MODEL or a YAML file"),
        ({"teacher": {"_target_": "os.system"}}, "wanted a _target_ inside pld.adapters"),
        ({"teacher": prompt_optimizer.ANTHROPIC | {"model": "m", "wrong": 1}}, "unknown key 'teacher.wrong'"),
        ({"embedder": "none.yaml"}, "like those of conf/embedder/"),
        ({"labels": ["a", "a"]}, "two or more different labels"),
        ({"max_trials": 0}, "max_trials: wanted 1 or more"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments, words):
    with pytest.raises(PldError, match=words) as caught:
        PldPromptOptimizer(**{"teacher": SayingTeacher(), **arguments})
    assert "\n" not in str(caught.value)


def test_the_defaults_are_those_of_the_project():
    def option(role, name):
        return yaml.safe_load(open(f"conf/{role}/{name}.yaml").read())  # noqa: PTH123

    whole = yaml.safe_load(open("conf/config.yaml").read())  # noqa: SIM115, PTH123
    teacher = option("teacher", "anthropic")
    assert {**prompt_optimizer.ANTHROPIC, "model": teacher["model"]} == teacher
    assert option("embedder", "minilm") == prompt_optimizer.EMBEDDER
    assert option("clusterer", "umap_hdbscan") == prompt_optimizer.CLUSTERER
    assert prompt_optimizer.MEDOID.model_dump() == option("consolidator", "medoid")
    assert prompt_optimizer.MERGING.model_dump() == option("consolidator", "teacher")
    for section in ("asking", "extraction", "clustering", "rendering"):
        assert getattr(prompt_optimizer, section.upper()).model_dump() == whole[section]


@given(st.text(max_size=40), st.lists(st.text(max_size=20).filter(lambda text: not has_markup(text)), max_size=3))
@settings(max_examples=200, deadline=None)
def test_the_text_of_a_prompt_survives_byte_for_byte(text, lines):
    template = Template.of(text)
    assert template.text == text or text.startswith("[")
    around = "\n".join([*lines, template.text, *lines])
    assert text in template.with_text(around) or template.messages
    chat = json.dumps([{"role": "user", "content": "{{x}}"}, {"role": "system", "content": text, "name": "n"}])
    assert Template.of(chat).text == text
    made = messages_of(Template.of(chat).with_text(around))
    assert made == [{"role": "user", "content": "{{x}}"}, {"role": "system", "content": around, "name": "n"}]
