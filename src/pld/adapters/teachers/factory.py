"""Creates the configured Teacher, and writes what its answers cost."""

import inspect
from pathlib import Path

from pld.adapters.teachers.paid_teacher import PaidTeacher, Terms
from pld.artifacts import write_json
from pld.config.build import build, target_of
from pld.params import Config
from pld.ports import Teacher
from pld.reports import RoleSpending, Spending


def create_teacher(config: Config) -> Teacher:
    """The Teacher of `config`. Raises ConfigError as `build` does."""
    takes_terms = "terms" in inspect.signature(target_of(config.teacher, "teacher")).parameters
    extra = {"terms": Terms(config.task.name, config.budget, config.prices)} if takes_terms else {}
    teacher: Teacher = build(config.teacher, "teacher", **extra)
    return teacher


def spending_of(teacher: Teacher | None) -> tuple[RoleSpending, ...]:
    """What the answers that `teacher` gave out cost; nothing for recorded ones."""
    return teacher.spent() if isinstance(teacher, PaidTeacher) else ()


def write_spending(stage: str, teacher: Teacher | None, folder: Path = Path("artifacts")) -> None:
    """Write `folder`/spending/<stage>.json; None: the stage asked no Teacher."""
    write_json(folder / f"spending/{stage}.json", Spending(stage=stage, roles=spending_of(teacher)))
