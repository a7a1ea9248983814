"""The page that a person reads and decides on → report/."""

from pathlib import Path

from pld.artifacts import atomic_folder, write_text
from pld.params import load_config
from pld.reporting.charts import drawn
from pld.reporting.importances import importances
from pld.reporting.outputs import read_outputs
from pld.reporting.page import page
from pld.reporting.pictures import draw
from pld.reporting.rows import shown_rules

ARTIFACTS = Path("artifacts")
FOLDER = ARTIFACTS / "report"


def run() -> None:
    outputs = read_outputs(load_config(), ARTIFACTS)
    rules = shown_rules(outputs.rules)
    charts, no_tree = drawn(outputs, rules)
    mattered = importances(outputs.result.trials, outputs.config.evaluation.seed)
    text = page(outputs, charts, rules, mattered, no_tree)
    with atomic_folder(FOLDER) as folder:
        write_text(folder / "index.html", text)
        draw(folder / "pictures", charts)
    print(
        f"report: {FOLDER}/index.html, {len(text.encode()) / 1e6:.1f} MB; open it in any browser, it needs no network"
    )
