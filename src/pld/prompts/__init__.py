"""Prompt templates (`templates/*.j2`) and their strict loader.

Jinja with StrictUndefined, rendered once: what is passed in is a value, so `{{ … }}` inside a user's data stays text.
"""

import json
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pld.errors import ConfigError
from pld.prompts.markup import escaped
from pld.records import sha256

_FOLDER = Path(__file__).with_name("templates")
_SUFFIX = ".j2"
# autoescape is for HTML; prompts are plain text and their data is delimited where a template places it
_FILES = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
# a template of conf/ gets no attribute that starts with an underscore and can't change what it is given
_STRINGS = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


def names() -> list[str]:
    """Every template's name (the file's name without `.j2`), sorted."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


@cache
def template_text(name: str) -> str:
    """The template as it stands in its file. Raises ConfigError, which lists what is there, for an unknown name."""
    if name not in names():
        raise ConfigError(f"prompts: wanted a template, found {name!r}; templates: {', '.join(names()) or 'none'}")
    return (_FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def render(name: str, /, **values: object) -> str:
    """Fill the template `name`; the file's last newline is dropped.

    Raises ConfigError for an unknown template and for a missing or a surplus variable.
    """
    return _fill(_FILES, template_text(name), f"prompt template {name!r}", values)


def render_string(template: str, values: dict[str, str]) -> str:
    """Fill a template of conf/ (a task's `input_template`) in a sandbox; as strict as `render`."""
    return _fill(_STRINGS, template, f"template {template!r:.80}", values)


def _fill(environment: Environment, text: str, what: str, values: dict[str, str] | dict[str, object]) -> str:
    try:
        template, wanted = _compiled(environment, text)
        _check_variables(what, wanted, set(values))
        return template.render(values)
    # a filter can fail on a value with any of these (`{{ text | round }}`)
    except (TemplateError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise ConfigError(f"{what}: can't be rendered: {str(error) or type(error).__name__}") from None


@cache
def _compiled(environment: Environment, text: str) -> tuple[Template, frozenset[str]]:
    return environment.from_string(text), frozenset(meta.find_undeclared_variables(environment.parse(text)))


def _check_variables(what: str, wanted: frozenset[str], given: set[str]) -> None:
    problems = []
    if missing := sorted(wanted - given):
        problems.append(f"Missing variables: {', '.join(missing)}")
    if surplus := sorted(given - wanted):
        problems.append(f"Surplus variables: {', '.join(surplus)}")
    if problems:
        raise ConfigError(f"{what}: {'; '.join(problems)}; it takes: {', '.join(sorted(wanted)) or 'none'}")


def data_block(kind: str, value: object) -> str:
    """`value` as JSON between tags that carry the hash of that JSON: no text inside can know them, so none can close
    the block and speak as the prompt. Chat markup in it is escaped, for servers that would act on it."""
    text = escaped(json.dumps(value, ensure_ascii=False, indent=1))
    tag = f"{kind}-{sha256(text)[:16]}"
    return f"<{tag}>\n{text}\n</{tag}>"
