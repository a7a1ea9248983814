"""Log the result to MLflow, register what ships, and promote it if the gates hold."""

from dataclasses import dataclass

from pld.config.settings import load_config
from pld.params import Config
from pld.registry.registry import Outcome, Registry
from pld.registry.result import read_result
from pld.registry.runs import log_result
from pld.registry.store import connect, dvc_experiment


@dataclass(frozen=True)
class Tracked:
    """`new`: this call logged it; `outcome`: None inside a DVC experiment, which registers nothing."""

    run_id: str
    new: bool
    outcome: Outcome | None
    experiment: str | None
    how_to_open: str

    def lines(self) -> list[str]:
        """Summary for the terminal."""
        logged = f"logged as MLflow run {self.run_id}" if self.new else f"already logged as MLflow run {self.run_id}"
        left_out = (
            f"registry: left out, because DVC experiment {self.experiment} must not move production; "
            f"`dvc exp apply {self.experiment}` and `dvc repro` register it"
        )
        return [logged, str(self.outcome or left_out), f"look at the runs: {self.how_to_open}"]


def track(config: Config) -> Tracked:
    """Log, register, promote by the gates. Idempotent."""
    result = read_result(config)
    store = connect(config.tracking.uri)
    run = log_result(store, result)
    experiment = dvc_experiment()
    outcome = None if experiment else Registry(store, config.task.name).register_and_promote(result, run.run_id)
    return Tracked(run.run_id, run.new, outcome, experiment, store.how_to_open())


def run() -> None:
    print("\n".join(track(load_config()).lines()))
