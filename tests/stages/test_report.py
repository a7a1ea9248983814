"""The report as a reader has it: opened from disk in a browser without a network."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pld.artifacts import SHIPS, read_jsonl, read_record, write_json, write_jsonl
from pld.distill.render import example_turns
from pld.params import Config
from pld.records import Example, Reviewed, Rule, sha256
from pld.reports import TrialReport
from pld.resolve.records import Descent, Step
from pld.stages import report
from support.artifact_tree import composed, write_artifacts
from support.mails import LABELS, TASK, mails
from support.stories import MAIL, Story, cluster, effect, instruction

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
TEST_TEXT = mails("test", 1)[0].inputs["text"]
HOSTILE = '</script><script>window.broken = 1</script><img src="https://example.org/x.png" onerror="window.broken = 2">'
ODD = ("<b>bold</b>", 'it\'s "odd"', "a, b & {{ c }}", "日本語", "…", "$x_1$", "\\n", "7", "null", "a/b", "x" * 60, "-")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def hostile_story(labels: tuple[str, ...], rules: int, instructions: int, trials: Sequence[dict[str, Any]]) -> Story:
    """`rules` in clusters by label, all of them hostile, around one axis for each label; `instructions` rest on them in
    turn, but for the last rule."""
    of_label = [labels[n % len(labels)] for n in range(rules)]
    made = [
        Rule(
            id=f"rule-{n}",
            example_id=f"train-{n}",
            label=label,
            rationale="It says so.",
            text=f"As in {n}, answer {label}. {HOSTILE}",
            teacher="t",
            doubtful=n == 1,
        )
        for n, label in enumerate(of_label)
    ]
    held = [[rule for rule in made if rule.label == label] for label in labels]
    ships = [
        instruction(
            labels[n % len(labels)],
            f"{HOSTILE} as in {n}" if n == 1 else f"If it is as in {n}, answer so.",
            made[n:-1:instructions] or made[:1],
            f"i{n}",
        )
        for n in range(instructions)
    ]
    rows = np.eye(16)[[labels.index(label) for label in of_label]]
    rows = rows + np.random.default_rng(0).normal(scale=0.15, size=(rules, 16))
    return replace(
        MAIL,
        labels=labels,
        rules=made,
        clusters=[cluster(place, own) for place, own in enumerate(held) if own],
        came_in=ships,
        rounds=[[]],
        effects=[effect(own, 0.1 - 0.08 * n, n, fixed=70) for n, own in enumerate(ships)],
        vectors=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32),
        trials=trials,
    )


def write_tree(
    folder: Path,
    labels: tuple[str, ...] = LABELS,
    rules: int = 36,
    instructions: int = 3,
    resolver: str = "search",
    clusterer: str = "umap_hdbscan",
    reviewed: bool = False,
    **options: bool,
) -> None:
    """`reviewed`: a reviewer reworded the first instruction."""
    target = {"_target_": "pld.adapters.clusterers.dbscan.DbscanClusterer"}
    clusterers = {"dbscan": {**target, "eps": 0.4, "min_samples": 2, "grow_from": None}}
    config = composed().model_dump(mode="python") | {"resolver": {"kind": resolver}}
    config = Config.model_validate(config | ({"clusterer": clusterers[clusterer]} if clusterer in clusterers else {}))
    trials = [{"rendering.order": order} for order in ("label", "support")] if clusterer == "dbscan" else MAIL.trials
    story = hostile_story(labels, rules, instructions, trials)
    write_artifacts(folder, config, story, right=0.7, rival=1.0, **{"timed": True, **options})
    trial = read_record(folder / "best/trial.json", TrialReport)
    write_json(folder / "best/trial.json", trial.model_copy(update={"by_size": {"sample": 2000}, "stability": 0.83}))
    if reviewed:
        left = story.came_in[0].model_copy(update={"id": "before", "text": "As the loop left it."})
        write_jsonl(folder / "resolve/final/instructions.jsonl", [left, *story.came_in[1:]])
        step = Step(
            round=0, edit_id="sheet 2", op="revise", proposer="Ada", reason="reads better", from_id="before",
            verdict="decided",
        )  # fmt: skip
        first, *rest = read_jsonl(folder / SHIPS / "descent.jsonl", Descent)
        write_jsonl(folder / SHIPS / "descent.jsonl", [first.model_copy(update={"edits": (step,)}), *rest])
        ships = sha256((folder / SHIPS / "system_prompt.md").read_text())
        write_json(folder / "review/review.json", Reviewed(came_in=sha256("x"), ships=ships, sheets=(1, 2)))


def made(folder: Path, **tree: object) -> Path:
    """The stage's folder for a tree that is written to `folder`."""
    write_tree(folder / "artifacts", **tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report.run()
    return folder / "artifacts/report"


class Projection:
    """A fast replacement for UMAP: the first columns."""

    def __init__(self, n_components: int, **_settings: object) -> None:
        self.n_components = n_components

    def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
        return vectors[:, : self.n_components]


@pytest.fixture(scope="module", autouse=True, params=["projection", pytest.param("UMAP", marks=pytest.mark.slow)])
def _umap(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "projection":
            patch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Projection))
        yield


@pytest.fixture(scope="module")
def written(_umap: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("report"), reviewed=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A report in a page of its own, with what went wrong and what was asked for beside the file."""

    def __init__(self, browser: Browser, folder: Path, width: int = 1280, scheme: str = "light") -> None:
        self.wrong: list[str] = []
        self.page: Page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        address = f"file://{folder}/index.html"
        self.page.on("request", lambda asked: asked.url == address or self.wrong.append(f"asks for {asked.url}"))
        self.page.goto(address)
        self.drawn(scheme)

    def drawn(self, scheme: str) -> None:
        self.page.locator(f"html[data-drawn={scheme}]").wait_for(state="attached")

    @property
    def overflow(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def on_the_map(self) -> tuple[str, float, float]:
        """The rule whose mark is furthest from all others, and where that is on the screen: by the map's linear scales,
        with 17 pixels at each end."""
        rows = json.loads(self.page.text_content("#charts") or "")["charts"]["rules"]["rows"]
        self.page.locator(".plot-rules").scroll_into_view_if_needed()
        box = self.page.locator(".plot-rules canvas").bounding_box()
        assert box is not None
        places = np.array([[row["x"], -row["y"]] for row in rows])
        shares = (places - places.min(axis=0)) / np.ptp(places, axis=0)
        marks = np.array([box["x"], box["y"]]) + 17 + shares * (np.array([box["width"], box["height"]]) - 34)
        apart = np.linalg.norm(marks[:, None] - marks[None], axis=2) + 1e9 * np.eye(len(marks))
        loneliest = int(apart.min(axis=1).argmax())
        return rows[loneliest]["rule"], *marks[loneliest].tolist()


def test_the_page_opens_from_disk_without_errors_requests_or_foreign_scripts(browser, written, capsys):
    opened = Opened(browser, written)
    assert opened.wrong == []
    assert (written / "index.html").stat().st_size < 5_000_000
    names = ["systems", "rules", "tree", "trials", "lists"]
    assert opened.page.locator(".plot :is(svg, canvas)").count() == len(names)
    assert sorted(path.stem for path in (written / "pictures").glob("*.png")) == sorted([*names, "confusion"])

    # the Teacher's text is text, whatever it says
    assert opened.page.evaluate("window.broken") is None
    assert opened.page.locator("[data-rule=rule-0] span").text_content() == f"As in 0, answer refund. {HOSTILE}"
    assert opened.page.locator("#instruction-2 .text").text_content() == f"{HOSTILE} as in 1"
    assert opened.page.locator("img").count() == 0
    opened.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'broken = 3'}))")
    assert opened.page.evaluate("window.broken") is None
    assert any("Content Security Policy" in said for said in opened.wrong)
    assert TEST_TEXT not in opened.page.content()


def test_the_page_starts_with_what_ships_and_what_is_better(browser, written):
    opened = Opened(browser, written)
    decision = opened.page.locator(".verdict").text_content()
    why, instead = opened.page.locator(".why").all_text_contents()
    assert decision == "The distilled prompt passes its gates, but tfidf_logreg does better with no more labels."
    assert why.startswith("On 60 test examples it is clearly better than zero_shot")
    assert instead.startswith("Use tfidf_logreg: it needs no LLM and is clearly better (macro-F1 +0.")
    said = opened.page.locator(".figures").text_content()
    assert said.startswith("On 60 test examples, what ships (distilled) reaches macro-F1 0.")
    assert " more than zero_shot (0." in said
    assert "tfidf_logreg (by 0." in said
    assert said.endswith("better.")
    body = " ".join(opened.page.locator("main").inner_text().split())
    for words in (
        "edited by sheets 1, 2",
        "Reworded i0: As the loop left it. If it is as in 0, answer so. sheet 2, Ada: reads better",
        "1 rule behind no instruction",
        "Latency is the p50 of 50 requests a prompt",
        "Nothing was spent on a Teacher now: its recorded answers were played back",
        "Not said: 2 finished, and 4 are the fewest that say something",
        "40 training examples that it was asked about (7 more were not: extraction.examples)",
        "Chosen by their number: sample 2000.",
        "Stability of the clusters: 0.83, the mean adjusted Rand index between",
        "A part of the text is left out in 1 of 9 validation and 2 of 9 test examples, as set in task.reader",
    ):
        assert words in body
    opened.page.locator("#instruction-1 summary").nth(1).click()
    assert "and 10 more, in artifacts/review/final/ablation.jsonl" in opened.page.locator("#instruction-1").inner_text()


def test_the_map_shows_a_rule_on_hover_and_filters_by_legend_with_the_keyboard(browser, written):
    opened = Opened(browser, written)
    rule, *place = opened.on_the_map()
    opened.page.mouse.move(*place)
    tooltip = opened.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert rule in tooltip.inner_text()
    assert rule.replace("rule", "train") in tooltip.inner_text()
    assert opened.page.locator(f"[data-rule={rule}] span").text_content() in tooltip.inner_text()
    assert HOSTILE in tooltip.inner_text()
    assert opened.page.evaluate("window.broken") is None

    opened.page.mouse.move(0, 0)
    canvas = opened.page.locator(".plot-rules canvas")
    whole = canvas.screenshot()
    button = opened.page.get_by_role("button", name="praise")
    button.focus()
    opened.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    chosen = canvas.screenshot()
    assert chosen != whole
    opened.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert canvas.screenshot() == whole
    assert opened.wrong == []


def test_keyboard_focus_starts_at_the_verdict_and_is_visible(browser, written):
    opened = Opened(browser, written)
    opened.page.keyboard.press("Tab")
    focused = opened.page.locator(":focus")
    assert focused.inner_text() == "Skip to the verdict"
    assert focused.bounding_box()["x"] >= 0
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate("document.activeElement.id") == "verdict"
    opened.page.keyboard.press("Tab")
    assert focused.get_attribute("aria-label") == "Quality on test"
    assert focused.evaluate("own => getComputedStyle(own).outlineStyle") == "solid"
    # every chart and every table has words for those who don't see it
    assert opened.page.locator(".plot:not([role=img][aria-label] > *)").count() == 0
    assert opened.page.locator("table:not(:has(caption))").count() == 0
    assert opened.page.locator("tbody tr:not(:has(th[scope=row]))").count() == 0


def test_the_page_follows_the_dark_colour_scheme(browser, written):
    opened = Opened(browser, written)
    ground = "getComputedStyle(document.body).backgroundColor"
    text = "document.querySelector('.plot-systems svg text').getAttribute('fill')"
    light = [opened.page.evaluate(it) for it in (ground, text)]
    opened.page.get_by_role("button", name="praise").click()
    opened.page.emulate_media(color_scheme="dark")
    opened.drawn("dark")
    dark = [opened.page.evaluate(it) for it in (ground, text)]
    assert light[0] == "rgb(255, 255, 255)"
    assert all(before != after for before, after in zip(light, dark, strict=True))
    assert opened.wrong == []


def test_the_same_artifacts_make_the_same_bytes(written, tmp_path):
    shutil.copytree(written.parent, tmp_path / "artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        report.run()
    assert digests(tmp_path / "artifacts/report") == digests(written)
    assert str(tmp_path) not in (tmp_path / "artifacts/report/index.html").read_text()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"rules": 3, "instructions": 1, "resolver": "none", "timed": False, "clusterer": "dbscan"},
            (
                "No map: 3 rules are too few for UMAP, which needs 6",
                "No tree of clusters: DbscanClusterer makes none",
                "Their latency was not measured",
                "No loop was run (resolver none)",
            ),
        ),
        (
            {"labels": ODD, "rules": 60, "instructions": 40, "ablated": False},
            ("What each one does was not measured", "pld ablate", "日本語", "<b>bold</b>"),
        ),
        (
            {"labels": ("yes", "no"), "rules": 1, "instructions": 1},
            ("No map: 1 rule is too few", "No tree of clusters"),
        ),
    ],
    ids=["no loop", "many labels", "one rule"],
)
def test_missing_parts_are_explained_in_words_on_a_phone(browser, tmp_path, tree, words):
    opened = Opened(browser, made(tmp_path, **tree), width=360)
    body = " ".join(opened.page.locator("main").inner_text().split())
    for own in words:
        assert own in body
    assert opened.overflow == 0
    assert opened.wrong == []


def test_a_phone_never_scrolls_sideways(browser, written):
    opened = Opened(browser, written, width=360)
    opened.page.evaluate("document.querySelectorAll('details').forEach(own => own.open = true)")
    assert opened.overflow == 0
    assert opened.page.locator(".scroll").evaluate_all("all => all.some(own => own.scrollWidth > own.clientWidth)")


def test_the_page_says_how_many_training_examples_the_prompt_shows_and_lists_them(tmp_path: Path) -> None:
    write_tree(tmp_path / "artifacts")
    first, second, *_ = read_jsonl(tmp_path / "artifacts/splits/train.jsonl", Example)
    page = made(tmp_path, turns=example_turns(TASK.bare, [second, first])) / "index.html"
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert "the Student reads 2 example turns: a training example as the user's turn" in text.replace("&#39;", "'")
    assert text.index(f"<code>{second.id}</code> {second.label}: ") < text.index(
        f"<code>{first.id}</code> {first.label}: "
    )
    assert "jq -jcS . artifacts/review/final/messages.json | sha256sum md5sum" in text


def test_the_stage_prints_where_the_page_is(tmp_path, capsys):
    made(tmp_path, rules=3, instructions=1)
    assert capsys.readouterr().out.startswith("report: artifacts/report/index.html, ")
