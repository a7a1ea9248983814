"""Prompt-Level Distillation: compile labelled data and a Teacher into a Student's system prompt.

    import pld

    distilled = pld.distill(frame, teacher="anthropic:/MODEL")
    print(distilled.prompt)
    distilled.predict(["a new text"])

See `pld.distill`, `pld.Distilled` and `pld.load`; docs/tutorial/python-api.md is an example to run. They are imported
on first use, so that `import pld` takes no time.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pld.api import Distilled, distill, load

__all__ = ["Distilled", "distill", "load"]


class _Package(ModuleType):
    """Keeps `pld.distill` the function: importing the subpackage pld.distill would set that attribute to the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pld.api"), name)
    raise AttributeError(f"module 'pld' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
