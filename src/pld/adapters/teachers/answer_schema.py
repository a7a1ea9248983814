"""Does a Teacher's answer fit the JSON schema that it was asked for? For the keywords that pydantic writes for plain
records; an unknown keyword is an error of the program, so that no constraint is skipped in silence."""

import json
from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_ANNOTATIONS = {"title", "description", "default", "examples", "$defs"}
_KNOWN = _ANNOTATIONS | {
    "$ref", "anyOf", "enum", "const", "type", "properties", "required", "additionalProperties", "items",
    "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum",
}  # fmt: skip


def read_answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `text` and check it against `schema`. Raises ValueError that says, in words, what does not fit."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"wanted an object, found {type(value).__name__}")
    if problem := misfit(value, schema):
        raise ValueError(problem)
    return value


def misfit(value: object, schema: Mapping[str, Any]) -> str | None:
    """The first way in which `value` does not fit `schema` (with its place), or None."""
    return _misfit(value, schema, schema.get("$defs", {}), "answer")


def _misfit(value: object, schema: Mapping[str, Any], defs: Mapping[str, Any], at: str) -> str | None:
    if unknown := set(schema) - _KNOWN:
        raise NotImplementedError(f"JSON schema keywords {sorted(unknown)} at {at}")
    if "$ref" in schema:
        return _misfit(value, defs[schema["$ref"].removeprefix("#/$defs/")], defs, at)
    if "anyOf" in schema:
        problems = [_misfit(value, option, defs, at) for option in schema["anyOf"]]
        return None if None in problems else f"{at}: fits none of {len(problems)} alternatives"
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and not any(value == item and type(value) is type(item) for item in allowed):
        return f"{at}: wanted one of {allowed}, found {value!r:.80}"
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return f"{at}: wanted {kind}, found {type(value).__name__}"
    if isinstance(value, dict):
        return _misfit_object(value, schema, defs, at)
    if isinstance(value, list):
        items = (_misfit(item, schema.get("items", {}), defs, f"{at}[{i}]") for i, item in enumerate(value))
        return _out_of_range(len(value), schema, "Items", at) or next((item for item in items if item), None)
    if isinstance(value, str):
        return _out_of_range(len(value), schema, "Length", at)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _out_of_range(value, schema, "imum", at)
    return None


def _misfit_object(
    value: Mapping[str, object], schema: Mapping[str, Any], defs: Mapping[str, Any], at: str
) -> str | None:
    properties = schema.get("properties", {})
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{at}: wanted {', '.join(missing)}"
    surplus = [name for name in value if name not in properties]
    if surplus and schema.get("additionalProperties") is False:
        return f"{at}: unknown {', '.join(surplus)}"
    problems = (_misfit(value[name], properties[name], defs, f"{at}.{name}") for name in value if name in properties)
    return next((problem for problem in problems if problem), None)


def _out_of_range(size: float, schema: Mapping[str, Any], suffix: str, at: str) -> str | None:
    low, high = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
    if (low is not None and size < low) or (high is not None and size > high):
        return f"{at}: wanted min{suffix} {low}, max{suffix} {high}, found {size}"
    return None
