"""Each entry of a configuration by itself: what its JSON schema says, in words. No PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from rglib.plan.mistakes import Key, Mistake, dotted, refused, unknown

Config = Mapping[str, Any]

TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "greater than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}


def _is_mapping(_: Any, value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


# JSON Schema alone takes 3.0 for an integer and NaN for a number below every bound, and stumbles
# over keys that YAML reads as numbers or truth values.
_Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"object": _is_mapping, "integer": _is_integer, "number": _is_number}
    ),
)


def by_schema(config: Config, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    """What the schema does not allow, by the keys in their order."""
    errors = sorted(_Validator(schema).iter_errors(config), key=lambda e: dotted(_key(e)))
    mistyped = {_key(error) for error in errors if error.validator == "type"}
    for error in errors:
        if error.validator == "type" or _key(error) not in mistyped:
            yield from _explain(error, schema)


def _key(error: ValidationError) -> Key:
    return tuple(error.absolute_path)


def _explain(error: ValidationError, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    key, value = _key(error), error.instance
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for name in value:
            if name not in known:
                yield unknown((*key, name), known)
    elif error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        if "degradation" in missing:  # neither a problem of the paper nor one of your own
            known = schema["properties"]["problems"]["properties"]
            yield unknown(key, [*known, "or a problem of your own, with `degradation`"])
        else:
            yield from (Mistake((*key, name), "is missing; it has no default") for name in missing)
    elif "propertyNames" in error.absolute_schema_path:
        yield refused((*key, value), value, _allowed(error))
    else:
        yield refused(key, value, _allowed(error))


def _allowed(error: ValidationError) -> str:
    limit = error.validator_value
    if error.validator in BOUNDS:
        return f"{BOUNDS[error.validator]} {limit}"
    if error.validator == "enum":
        return f"one of {', '.join(limit)}"
    if error.validator == "uniqueItems":
        return "a list without repetitions"
    if error.validator == "type":
        types = [limit] if isinstance(limit, str) else limit
        return " or ".join(TYPES[name] for name in types) + _hint(error.instance, types)
    return str(error.schema["title"])


def _hint(value: Any, types: list[str]) -> str:
    if isinstance(value, Mapping) and "object" in types:
        return " whose keys are text: put numbers, yes, no, on, off and null in quotes"
    if isinstance(value, str) and {"integer", "number"} & set(types) and _reads_as_number(value):
        return (
            ", without quotes, and with dot and sign if it has an exponent: 1.0e-5 (in a file: "
            "nested values of --config are text)"
        )
    return ""


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
