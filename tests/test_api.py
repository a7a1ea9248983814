"""The Python API: the same stages as `dvc repro`, in a folder of its own."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import pld
from pld.artifacts import SHIPS, read_jsonl, read_text, write_prompt
from pld.config.composition import compose
from pld.config.defaults import CONF, SELECTIONS
from pld.config.settings import load_config
from pld.data.splits import split_of
from pld.distill.render import prompt_messages
from pld.errors import ArtifactError, ConfigError, DataError, ExtractionError, PldError, TeacherError
from pld.ports import Generation, TeacherAnswer
from pld.records import SPLITS, Example, inputs_id
from pld.reporting.provenance import InstructionOrigin
from pld.serving.model import Release
from support.shelf import filled_shelf, fresh_database, shelf  # noqa: F401
from support.word_student import CUES, WordStudent, embed, examples

SMALL = [
    "clusterer=dbscan",
    "consolidator=medoid",
    "sweep.space.clusterer.eps=[0.3]",
    "sweep.space.rendering={frame:[list],exemplars:[0],exemplars_per:[label]}",
    "sweep.finalists=1",
    "evaluation.resamples=100",
    "resolution.gate.resamples=100",
    "resolution.rounds=1",
    "resolution.pool=12",
    "resolution.proposals=3",
    "resolution.candidates=2",
]
EMBEDDER = "pld.adapters.embedders.sentence_transformers.SentenceTransformersEmbedder.embed"


class CueTeacher:
    """Names the gold label's cues in the example."""

    name = "cues"

    def ask(self, requests):
        for request in requests:
            label = re.search(r"Gold label: (\w+)", request.prompt)[1]
            cues = [cue for cue in CUES[label] if cue in request.prompt] or ["nothing"]
            said = {"rationale": "r", "rule": f"If it tells of {' or '.join(cues)}, answer {label}", "label": label}
            yield TeacherAnswer(key=request.key, content=said)


def colours(size=90):
    """A DataFrame with a column of texts, their labels and ids."""
    found = examples("train", size)
    rows = [{"Some Text": e.inputs["text"] + f" {n}", "colour": e.label, "no": f"c{n}"} for n, e in enumerate(found)]
    return pd.DataFrame(rows)


def distilled(data=None, **changes):
    return pld.distill(
        colours() if data is None else data,
        **{
            "teacher": CueTeacher(),
            "student": WordStudent(),
            "text": "Some Text",
            "label": "colour",
            "labels": ["red", "green", "blue"],
            "overrides": SMALL,
            "verbose": False,
            **changes,
        },
    )


@pytest.fixture(scope="module", autouse=True)
def _embed_by_words():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EMBEDDER, lambda self, texts, on_progress=None: embed(texts))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A distilled prompt, whose folder nothing changes."""
    return distilled(folder=tmp_path_factory.mktemp("api") / "made", id="no")


def test_importing_pld_loads_none_of_its_dependencies():
    code = "import sys; before = set(sys.modules); import pld; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pld" in loaded
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == {"pld"}


def test_pld_lists_its_names_and_refuses_others():
    assert {"Distilled", "distill", "load"} <= set(dir(pld))
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        pld.distil  # noqa: B018


def test_the_function_distill_stays_one_when_the_subpackage_of_that_name_is_imported():
    code = (
        "import pld.distill.trial, pld; from pld.distill import trial; print(pld.distill.__doc__[:7], trial.__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "Distil  pld.distill.trial\n"


def test_every_artifact_of_the_stages_is_written(made):
    for name in (
        "config.yaml",
        "splits/test.jsonl",
        "rules/rules.jsonl",
        "embeddings/vectors.npy",
        "trials.csv",
        "best/system_prompt.md",
        "resolve/final/descent.jsonl",
        "review/final/instructions.jsonl",
        "spending/extract.json",
    ):
        assert (made.folder / name).exists(), name
    assert made.prompt == read_text(made.folder / SHIPS / "system_prompt.md")
    assert str(made.folder) not in (made.folder / "config.yaml").read_text()


def test_the_settings_are_those_that_the_stages_compose_for_the_same_task(tmp_path, monkeypatch):
    params = yaml.safe_load(Path("params.yaml").read_text())
    assert {**SELECTIONS, "task": params["groups"]["task"]} == params["groups"]
    params["groups"] |= {"task": "tickets", "teacher": "recorded_tickets", "student": "smollm2-135m"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params | {"overrides": ["resolution.rounds=2"]}))
    stages = compose(Path("conf"), tmp_path / "params.yaml")
    frame = pd.read_csv("assets/corpus/records/tickets.csv")
    monkeypatch.chdir(tmp_path)  # where no recording is: the stage `extract` fails
    with pytest.raises(TeacherError):
        pld.distill(
            frame,
            teacher="recorded_tickets",
            student="smollm2-135m",
            text=["subject", "body"],
            label="outcome",
            id="ticket_id",
            labels=stages.task.labels,
            instruction=stages.task.base_instruction,
            template=stages.task.input_template,
            name="tickets",
            overrides=["resolution.rounds=2"],
            folder="mine",
            verbose=False,
        )
    mine = load_config(tmp_path / "mine/config.yaml")
    reader = stages.task.reader.model_copy(update={"path": "examples.jsonl"})
    assert mine == stages.model_copy(update={"task": stages.task.model_copy(update={"reader": reader})})


def test_instructions_lead_back_to_examples_and_rules(made):
    assert {origin.label for origin in made.lineage} == set(CUES)
    assert [origin.id for origin in made.lineage] == [instruction.id for instruction in made.instructions]
    first = made.lineage[0]
    assert isinstance(made.explain(first.id[:6]), InstructionOrigin)
    assert first.examples[0].example_id.startswith("c")
    assert first.id in made.explain(first.examples[0].example_id).instructions
    assert made.report.result.macro_f1.value >= made.report.came_in.macro_f1.value


def test_texts_records_columns_and_frames_get_the_same_answers(made):
    texts = ["grass moss leaf", "whale sea ink", "fire brick"]
    assert made.predict(texts) == ["green", "blue", "red"]
    assert made.predict(pd.Series(texts)) == ["green", "blue", "red"]
    assert made.predict(pd.DataFrame({"Some Text": texts})) == ["green", "blue", "red"]
    assert made.predict([{"Some Text": text} for text in texts]) == ["green", "blue", "red"]
    assert made.predict({"Some Text": texts}) == ["green", "blue", "red"]
    frame = made.predict(texts, scores=True)
    assert list(frame.columns[:4]) == ["label", "score_red", "score_green", "score_blue"]
    assert frame.score_green.idxmax() == 0


def test_evaluate_measures_the_test_split_or_the_examples_that_it_is_given(made):
    held_out = read_jsonl(made.folder / "splits/test.jsonl", Example)
    report = made.evaluate()
    assert report.n == len(held_out) > 10
    assert report.macro_f1.value > 0.7
    given = [{"Some Text": example.inputs["Some_Text"], "colour": example.label} for example in held_out]
    assert made.evaluate(given) == report
    assert made.evaluate([("sea sky", "blue"), ("sea sky", "red")]).accuracy.value == 0.5
    grouped = made.evaluate(colours(12), group="no")
    assert grouped.n == 12
    with pytest.raises(DataError, match=r"expected a label .*, got 'blu' \(did you mean 'blue'\?\) \(examples\[1\]\)"):
        made.evaluate([("sea", "blue"), ("sky", "blu")])


def test_a_saved_prompt_answers_and_explains_without_the_folder_it_came_from(tmp_path):
    made = distilled()
    answers, report, lineage, folder = made.predict(["sea sky"]), made.evaluate(), made.lineage, made.folder
    saved = made.save(tmp_path / "saved")
    del made
    gc.collect()
    assert not folder.exists()
    with pytest.raises(ConfigError, match=r"the Student that .*WordStudent\), got none \(load\); pass it"):
        pld.load(saved)
    again = pld.load(str(saved), student=WordStudent())
    assert again.predict(["sea sky"]) == answers
    assert again.evaluate() == report
    assert again.lineage == lineage
    assert pld.load(again.save(tmp_path / "twice"), student=WordStudent()).prompt == again.prompt
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        again.save(saved)
    write_prompt(saved / SHIPS, prompt_messages("another"))
    with pytest.raises(ArtifactError, match="expected the prompt of"):
        pld.load(saved, student=WordStudent())


def test_the_current_folder_stays_and_a_temporary_one_goes_when_a_stage_fails(tmp_path, monkeypatch, capsys):
    class Silent(CueTeacher):
        def ask(self, requests):
            for request in requests:
                yield TeacherAnswer(key=request.key, content=None, error="refused: no")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ExtractionError):
        distilled(teacher=Silent())
    assert Path.cwd() == tmp_path
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().out


def test_a_models_uri_names_the_task_and_the_version_in_the_registry(made, monkeypatch):
    asked = []

    def fetch_release(config, wanted):
        asked.append((config.task.name, config.tracking.uri, wanted))
        return Release(made.spec, made.messages, instructions=made.instructions)

    monkeypatch.setattr("pld.api.fetch_release", fetch_release)
    production = pld.load("models:/pld-colours@production", student=WordStudent())
    assert production.predict(["sea sky"]) == ["blue"]
    assert production.evaluate([{"Some_Text": "sea sky", "label": "blue"}]).n == 1
    pld.load("models:/pld-colours/3", student=WordStudent(), tracking_uri="sqlite:///a b.db")
    assert asked == [("colours", None, "production"), ("colours", "sqlite:///a b.db", "3")]
    with pytest.raises(ArtifactError, match="expected the artifacts of a distillation, got a served version alone"):
        production.lineage  # noqa: B018
    with pytest.raises(ConfigError, match="expected models:/pld-<task>@<alias>"):
        pld.load("models:/mail")


@pytest.mark.slow
def test_a_registered_version_is_loaded_by_alias_or_number_and_saved(shelf, tmp_path):  # noqa: F811
    production = pld.load("models:/pld-mail@production", student=WordStudent())
    assert production.prompt == pld.load("models:/pld-mail/2", student=WordStudent()).prompt
    assert production.instructions
    assert repr(production).startswith("<Distilled mail: ")
    assert production.evaluate([("money please", production.spec.task.labels[0])]).n == 1
    saved = production.save(tmp_path / "served")
    again = pld.load(saved, student=WordStudent())
    assert (again.prompt, again.instructions, again.spec) == (
        production.prompt,
        production.instructions,
        production.spec,
    )
    with pytest.raises(ArtifactError, match="got neither"):
        pld.load(tmp_path)


def test_other_shares_move_examples_by_the_same_hash(tmp_path):
    made = distilled(folder=tmp_path / "shares", validation=0.3, test=0.1)
    found = {split: read_jsonl(made.folder / f"splits/{split}.jsonl", Example) for split in SPLITS}
    for split, held in found.items():
        assert all(split_of(inputs_id(example.inputs), 0.6, 0.9) == split for example in held)
    assert len(found["test"]) < 20 < len(found["validation"])


def test_labels_default_to_those_found_and_a_task_is_drafted_from_the_columns(tmp_path):
    frame = colours().rename(columns={"Some Text": "text", "colour": "label"})
    pairs = list(zip(frame.text, frame.label, strict=True))
    made = distilled(pairs, text="text", label="label", labels=None, folder=tmp_path / "pairs")
    assert made.spec.task.labels == ("blue", "green", "red")
    assert made.spec.task.input_template == "{{ text }}"
    assert made.prompt.startswith("Read the text and decide which of the labels fits.\nAnswer with exactly one word: ")


WRONG = {
    "a path": ({"data": "tickets.csv"}, DataError, r"got str \(examples\); read a file first"),
    "no examples": ({"data": []}, DataError, "got none"),
    "another column": ({"text": "body"}, DataError, "expected the columns body, colour, got Some Text, colour, no"),
    "an empty cell": (
        {"data": [{"Some Text": "a", "colour": "red"}, {"Some Text": None, "colour": "red"}]},
        DataError,
        r"expected text, got nothing \(examples\[1\], column 'Some Text'\)",
    ),
    "an undeclared label": ({"labels": ["red", "green"]}, DataError, r"got 'blue'.*\(examples\[2\], column 'colour'\)"),
    "two labels": (
        {"data": [("sea", "blue"), ("sea", "red")], "labels": ["blue", "red"]},
        DataError,
        r"'blue' for the same input in examples\[0\] \(examples\[1\], column 'colour'\)",
    ),
    "the label as a text": ({"text": ["Some Text", "colour"]}, ConfigError, "expected a label column that is no text"),
    "shares": ({"validation": 0.5, "test": 0.5}, ConfigError, "expected shares above 0 that leave some for training"),
    "a Teacher": ({"teacher": "claude"}, ConfigError, r"anthropic:/MODEL, .*got 'claude' \(pld.distill: teacher\)"),
    "a Student": ({"student": {"_target_": "os.system"}}, ConfigError, "expected a _target_ inside pld.adapters"),
    "an override": ({"overrides": ["clusterer.epp=1"]}, ConfigError, "got 'clusterer.epp'"),
    "an option": ({"overrides": ["clusterer=kmeans"]}, ConfigError, "expected one of dbscan, .*got 'kmeans'"),
    "a full folder": ({"folder": "conf"}, ConfigError, "expected a new or empty folder, got conf"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_argument_is_one_line_that_names_its_place(fault):
    arguments, kind, words = WRONG[fault]
    with pytest.raises(kind, match=words) as caught:
        distilled(**arguments)
    assert isinstance(caught.value, PldError)
    assert "\n" not in str(caught.value)
    assert "/tmp" not in str(caught.value)


def test_the_package_holds_every_file_of_conf():
    import tomllib

    assert CONF.resolve() == Path("conf").resolve()
    patterns = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pld"]
    shipped = {path for pattern in patterns for path in Path("src/pld").glob(pattern)}
    assert {path for path in Path("src/pld/conf").resolve().rglob("*") if path.is_file()} <= {
        path.resolve() for path in shipped
    }


class ThinkingStudent(WordStudent):
    def score_chats(self, chats, labels, on_progress=None):
        return np.vstack([self.score(chat[:-1], [chat[-1].content], labels) for chat in chats])

    def generate(self, chats, max_tokens, on_progress=None):
        return [Generation("It is a colour.", 4, True) for _ in chats]


def test_benchmark_compares_the_prompt_with_the_baselines_on_the_test_split(tmp_path):
    made = distilled(student=ThinkingStudent(), folder=tmp_path / "compared")
    report = made.benchmark(verbose=False)
    assert {"zero_shot", "few_shot", "chain_of_thought", "distilled"} <= set(report.systems)
    assert report.systems["distilled"] == made.evaluate()
    assert report.prompt_sha256 == made.spec.prompt_sha256


@pytest.mark.slow
def test_the_page_on_the_python_api_runs_as_it_stands(monkeypatch, capsys):
    monkeypatch.undo()
    page = Path("docs/tutorial/python-api.md").read_text()
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    assert names["distilled"].prompt in printed
    assert "score_technical" in printed
