"""Prompt-Level Distillation: compile labelled data and a Teacher into a Student's system prompt.

    import pld

    distilled = pld.distill(frame, teacher="anthropic:/MODEL")
    print(distilled.prompt)
    distilled.predict(["a new text"])

See `pld.distill`, `pld.Distilled` and `pld.load`; docs/tutorial/python-api.md is an example to run. They are imported
on first use, so that `import pld` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pld.api import Distilled, distill, load

__all__ = ["Distilled", "distill", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pld.api"), name)
    raise AttributeError(f"module 'pld' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
