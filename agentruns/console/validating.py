"""Validation by somebody else's JSON Schema, within bounds: what would take long is left to the vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

_MOST_STEPS: Final = 20_000
_LEFT_OUT: Final = frozenset({
    "additionalProperties",  # searches by the patterns of its neighbour
    "pattern",
    "patternProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
})
"""Keywords that an expression, or a large value, can make slow without end."""


class TooManyStepsError(ValueError):
    """Tell that a schema asks for more than a form is worth."""


def bounded_validator(schema: Mapping[str, Any]) -> Any:
    """Return a validator whose `iter_errors` raises `TooManyStepsError` when it has taken too many steps."""
    import jsonschema  # type: ignore[import-untyped,unused-ignore]
    from referencing import Registry

    base = jsonschema.Draft202012Validator
    steps = 0

    def counted(check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def checked(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
            nonlocal steps
            steps += 1
            if steps > _MOST_STEPS:
                raise TooManyStepsError
            yield from check(validator, wanted, value, schema) or ()

        return checked

    checks = {name: counted(_nothing if name in _LEFT_OUT else check) for name, check in base.VALIDATORS.items()}
    kept = base.VALIDATORS["additionalProperties"]
    checks["additionalProperties"] = counted(
        lambda validator, wanted, value, schema: (
            () if "patternProperties" in schema else kept(validator, wanted, value, schema)
        )
    )
    made = jsonschema.validators.extend(base, checks)
    # A registry of its own, so that no schema makes this process fetch a thing.
    return made(schema, registry=Registry())


def _nothing(*_: Any) -> tuple[()]:
    return ()
