"""From the settings to a Teacher that works on the task's account, and what it cost."""

import inspect
from pathlib import Path

from pld.adapters.teachers.paid import PaidTeacher, Terms
from pld.artifacts import write_json
from pld.config.build import build, target_of
from pld.params import Config
from pld.ports import Teacher
from pld.records import RoleSpending, Spending

FOLDER = Path("artifacts/spending")


def hire(config: Config) -> Teacher:
    """The Teacher of `config`. Raises ConfigError as `build` does."""
    on_account = "terms" in inspect.signature(target_of(config.teacher, "teacher")).parameters
    extra = {"terms": Terms(config.task.name, config.budget, config.prices)} if on_account else {}
    teacher: Teacher = build(config.teacher, "teacher", **extra)
    return teacher


def spending_of(teacher: Teacher | None) -> tuple[RoleSpending, ...]:
    """What the answers that `teacher` gave out cost; nothing for recorded ones."""
    return teacher.spent() if isinstance(teacher, PaidTeacher) else ()


def write_spending(stage: str, teacher: Teacher | None) -> None:
    """artifacts/spending/<stage>.json; None: the stage asked nobody."""
    write_json(FOLDER / f"{stage}.json", Spending(stage=stage, roles=spending_of(teacher)))
