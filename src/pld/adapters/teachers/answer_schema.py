"""Does a Teacher's answer fit the JSON schema that it was asked for?"""

import json
from collections.abc import Mapping
from typing import Any


def read_answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `text` and check it against `schema`. Raises ValueError that says, in words, what does not fit."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, but no file can hold it
        raise ValueError("expected text, got a lone surrogate") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    problem = best_match(Draft202012Validator(dict(schema)).iter_errors(value))
    if problem is not None:
        # the message repeats what was found, which can be long
        raise ValueError(f"{problem.json_path}: {problem.message:.200}")
    return value
