"""Hypothesis strategies for the records of the contract, read from their pydantic models."""

import json
import types
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas import Command, LLMRequest, Record
from schemas.base import ID_PATTERN, LONG_MAX, LONG_MIN, Part
from schemas.request import Message, ResponseFormat
from schemas.vocabulary import Kind

Limits = dict[str, Any]
Fields = Mapping[str, SearchStrategy[Any]]

_LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
_LARGEST_COLLECTION = 3


def records(model: type[Record]) -> SearchStrategy[Record]:
    """Valid records of one type, with all their fields in play."""
    if model is LLMRequest:
        return st.one_of(_build(model, _CHAT), _build(model, _COMPARISON))
    return _build(model)


def json_values() -> SearchStrategy[Any]:
    """Anything that Python's json module writes, numbers beyond 64 bits, NaN and infinity among it."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )


def _build(model: type[Part], fixed: Fields | None = None) -> SearchStrategy[Any]:
    fields = {name: _values(field.annotation, _limits(field.metadata)) for name, field in model.model_fields.items()}
    return st.builds(model, **{**fields, **_OWN_FIELDS.get(model, {}), **(fixed or {})})


def _values(annotation: Any, limits: Limits) -> SearchStrategy[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], limits | _limits(arguments[1:]))
    if origin in (Union, types.UnionType):
        return st.one_of(*(_values(argument, limits) for argument in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (list, dict):
        return _collections(origin, arguments, limits)
    return _plain(annotation, limits)


def _collections(origin: Any, arguments: tuple[Any, ...], limits: Limits) -> SearchStrategy[Any]:
    build = st.lists if origin is list else st.dictionaries
    return build(
        *(_values(argument, {}) for argument in arguments),
        min_size=limits.get("min_length", 0),
        max_size=min(limits.get("max_length", _LARGEST_COLLECTION), _LARGEST_COLLECTION),
    )


def _plain(annotation: Any, limits: Limits) -> SearchStrategy[Any]:
    if annotation is types.NoneType:
        return st.none()
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    if issubclass(annotation, LLMRequest):
        return records(LLMRequest)
    if issubclass(annotation, BaseModel):
        return _build(annotation)
    return _SCALARS[annotation](limits)


def _limits(metadata: Iterable[Any]) -> Limits:
    found: Limits = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _limits(item.metadata)
        found |= {name: value for name in _LIMITS if (value := getattr(item, name, None)) is not None}
    return found


def _integers(limits: Limits) -> SearchStrategy[int]:
    low = max(limits.get("ge", LONG_MIN), limits.get("gt", LONG_MIN - 1) + 1)
    return st.integers(low, min(limits.get("le", LONG_MAX), LONG_MAX))


def _floats(limits: Limits) -> SearchStrategy[float]:
    return st.floats(
        min_value=limits.get("ge", limits.get("gt")),
        max_value=limits.get("le", limits.get("lt")),
        exclude_min="gt" in limits,
        exclude_max="lt" in limits,
        allow_nan=False,
        allow_infinity=False,
    )


def _texts(limits: Limits) -> SearchStrategy[str]:
    low, high = limits.get("min_length", 0), limits.get("max_length")
    if "pattern" not in limits:
        return st.text(min_size=low, max_size=high if high is None else min(high, low + 20))
    # Python's $ also matches before a line feed at the end; pydantic's does not.
    pattern = limits["pattern"].removesuffix("$") + r"\Z"
    return st.from_regex(pattern).filter(lambda text: low <= len(text) <= (high or len(text)))


def _moments(_: Limits) -> SearchStrategy[datetime]:
    zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    # A day from either end of the calendar, so that each zone's local time exists in UTC as well.
    return st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=zones | st.just(UTC))  # noqa: DTZ001


_SCALARS = {
    bool: lambda _: st.booleans(),
    int: _integers,
    float: _floats,
    str: _texts,
    datetime: _moments,
}

_JSON_OBJECTS = st.dictionaries(st.text(max_size=8), st.integers(LONG_MIN, LONG_MAX) | st.text(), max_size=3)
_OWN_FIELDS: Mapping[type[Part], Fields] = {
    ResponseFormat: {"json_schema": _JSON_OBJECTS.map(json.dumps)},
    # At least one of its three names has to be there.
    Command: {"request_id": _texts({"pattern": ID_PATTERN, "min_length": 1, "max_length": 128})},
}
_CHAT: Fields = {"kind": st.just(Kind.CHAT), "messages": st.lists(_build(Message), min_size=1, max_size=3)}
_COMPARISON: Fields = {
    "kind": st.just(Kind.COMPARISON),
    **{name: st.text(min_size=1) for name in ("prompt", "essay_a", "essay_b")},
}
