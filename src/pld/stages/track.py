"""Log the result to MLflow, register what ships, and promote it if the gates hold."""

from dataclasses import dataclass

from pld.params import Config, load_config
from pld.registry.registry import Registry, Standing
from pld.registry.result import read_result
from pld.registry.runs import log_result
from pld.registry.store import connect, dvc_experiment


@dataclass(frozen=True)
class Tracked:
    """`new`: this run logged it; `standing`: None inside a DVC experiment, which registers nothing."""

    run_id: str
    new: bool
    standing: Standing | None
    experiment: str | None
    how_to_open: str

    def lines(self) -> list[str]:
        """What a person is told."""
        logged = f"logged as MLflow run {self.run_id}" if self.new else f"already logged as MLflow run {self.run_id}"
        left_out = (
            f"registry: left out, because DVC experiment {self.experiment} must not move production; "
            f"`dvc exp apply {self.experiment}` and `dvc repro` register it"
        )
        return [logged, str(self.standing or left_out), f"look at the runs: {self.how_to_open}"]


def track(config: Config) -> Tracked:
    """Log, register, promote by the gates. Idempotent."""
    result = read_result(config)
    store = connect(config.tracking.uri)
    run = log_result(store, result)
    experiment = dvc_experiment()
    standing = None if experiment else Registry(store, config.task.name).settle(result, run.run_id)
    return Tracked(run.run_id, run.new, standing, experiment, store.how_to_open())


def run() -> None:
    print("\n".join(track(load_config()).lines()))
