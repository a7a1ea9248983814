"""Write the report: one HTML page that opens from disk without a network, and its charts as PNG files."""

from pathlib import Path

from pld.artifacts import atomic_folder, write_text
from pld.config.settings import load_config
from pld.params import Config
from pld.reporting.chart import draw_pictures
from pld.reporting.charts import charts_of, confusion_chart
from pld.reporting.importances import importances
from pld.reporting.outputs import read_outputs
from pld.reporting.page import page
from pld.reporting.rows import shown_rules

ARTIFACTS = Path("artifacts")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path) -> None:
    """Write `folder`/report/ from the outputs of all earlier stages."""
    out = folder / "report"
    outputs = read_outputs(config, folder)
    rules = shown_rules(outputs.rules)
    charts, no_tree = charts_of(outputs, rules)
    mattered = importances(outputs.result.trials, outputs.config.evaluation.seed)
    text = page(outputs, charts, rules, mattered, no_tree)
    with atomic_folder(out) as written:
        write_text(written / "index.html", text)
        draw_pictures(written / "pictures", [*charts, confusion_chart(outputs.result.report)])
    print(f"report: {out}/index.html, {len(text.encode()) / 1e6:.1f} MB; open it in any browser, no network needed")
