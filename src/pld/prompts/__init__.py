"""Prompt templates (`templates/*.j2`) and their strict loader.

Jinja with StrictUndefined, rendered once: arguments are values, so `{{ … }}` inside a user's data stays text.
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
# autoescape is for HTML; prompts are plain text, and templates delimit the data they place
_FILES = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
# a template of conf/ can't read attributes that start with an underscore and can't change its arguments
_STRINGS = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


def names() -> list[str]:
    """The names of all templates (file names without `.j2`), sorted."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


@cache
def template_text(name: str) -> str:
    """The text of a template. Raises ConfigError, which lists the known names, for an unknown one."""
    if name not in names():
        raise ConfigError(f"expected a prompt template ({', '.join(names()) or 'none'}), got {name!r}")
    return (_FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def render(name: str, /, **values: object) -> str:
    """Fill the template `name`, without the file's last newline.

    Raises ConfigError for an unknown template and for a missing or surplus variable.
    """
    return _fill(_FILES, template_text(name), f"prompt template {name!r}", values)


def render_string(template: str, values: dict[str, str]) -> str:
    """Fill a template of conf/ (a task's `input_template`) in a sandbox, as strictly as `render`."""
    return _fill(_STRINGS, template, f"template {template!r:.80}", values)


def _fill(environment: Environment, text: str, what: str, values: dict[str, str] | dict[str, object]) -> str:
    try:
        template, variables = _compiled(environment, text)
        _check_variables(what, variables, set(values))
        return template.render(values)
    # a filter can fail on a value with any of these (`{{ text | round }}`)
    except (TemplateError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise ConfigError(
            f"expected a template that renders, got: {str(error) or type(error).__name__} ({what})"
        ) from None


@cache
def _compiled(environment: Environment, text: str) -> tuple[Template, frozenset[str]]:
    return environment.from_string(text), frozenset(meta.find_undeclared_variables(environment.parse(text)))


def _check_variables(what: str, variables: frozenset[str], given: set[str]) -> None:
    problems = []
    if missing := sorted(variables - given):
        problems.append(f"missing {', '.join(missing)}")
    if surplus := sorted(given - variables):
        problems.append(f"surplus {', '.join(surplus)}")
    if problems:
        raise ConfigError(
            f"expected the variables {', '.join(sorted(variables)) or 'none'}, got {' and '.join(problems)} ({what})"
        )


def data_block(kind: str, value: object) -> str:
    """`value` as JSON between tags that contain its hash. No text inside can know the hash, so none can close the block
    and pose as the prompt. Chat markup is escaped, for servers that would act on it."""
    text = escaped(json.dumps(value, ensure_ascii=False, indent=1))
    tag = f"{kind}-{sha256(text)[:16]}"
    return f"<{tag}>\n{text}\n</{tag}>"
