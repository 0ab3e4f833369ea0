"""Commands: every text becomes a command or the error that answers it."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from websocket_bridge.commands import CommandError, Ping, Subscribe, Unsubscribe, parse_command

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
ALMOST_COMMANDS = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON_VALUES,
        "type": st.sampled_from(["subscribe", "unsubscribe", "ping"]) | JSON_VALUES,
        "request_ids": st.lists(st.sampled_from(["a", "b"])) | JSON_VALUES,
        "all": st.booleans() | JSON_VALUES,
        "deltas": st.booleans() | JSON_VALUES,
        "more": JSON_VALUES,
    },
)


@given(st.text() | ALMOST_COMMANDS.map(json.dumps) | JSON_VALUES.map(json.dumps))
@example("[" * 60_000)
@example('{"id":1,"type":"ping"' + "}" * 60_000)
@example("\ud800")
@example('{"id":"\\ud800","type":"ping"}')
@example('{"id":1e999,"type":"ping"}')
@example("9" * 60_000)
def test_no_text_makes_the_parser_raise(text: str) -> None:
    """Whatever the text, the outcome is a command or an error whose message can be sent."""
    outcome = parse_command(text)
    if isinstance(outcome, CommandError):
        outcome.message.encode()
        assert len(outcome.field or "") <= 100


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("nope", "invalid_json", None),
        ("[]", "invalid_json", None),
        ('{"id":1}', "unknown_type", "type"),
        ('{"id":1,"type":"shout"}', "unknown_type", "type"),
        ('{"type":"ping"}', "invalid_command", "id"),
        ('{"id":-1,"type":"ping"}', "invalid_command", "id"),
        ('{"id":true,"type":"ping"}', "invalid_command", "id"),
        ('{"id":1,"type":"ping","loud":true}', "invalid_command", "loud"),
        ('{"id":1,"type":"subscribe"}', "invalid_command", "request_ids"),
        ('{"id":1,"type":"subscribe","all":true,"request_ids":["a"]}', "invalid_command", "request_ids"),
        ('{"id":1,"type":"subscribe","request_ids":["a","b c"]}', "invalid_command", "request_ids.1"),
        ('{"id":1,"type":"subscribe","all":"yes"}', "invalid_command", "all"),
        ('{"id":1,"type":"unsubscribe","request_ids":"a"}', "invalid_command", "request_ids"),
    ],
)
def test_an_error_names_the_field_at_fault(text: str, code: str, field: str | None) -> None:
    """A command that breaks a rule is answered with the rule's code and the field."""
    outcome = parse_command(text)
    assert isinstance(outcome, CommandError)
    assert (outcome.code, outcome.field) == (code, field)


def test_an_error_repeats_the_id_where_it_can_be_read() -> None:
    """Even a command of unknown type is answered by its id."""
    outcome = parse_command('{"id":"q7","type":"shout"}')
    assert isinstance(outcome, CommandError)
    assert outcome.id == "q7"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"id":1,"type":"subscribe","request_ids":["a"],"deltas":true}', Subscribe),
        ('{"id":"x","type":"subscribe","all":true}', Subscribe),
        ('{"id":2,"type":"unsubscribe","request_ids":["a"]}', Unsubscribe),
        ('{"id":3,"type":"ping"}', Ping),
    ],
)
def test_the_documented_commands_are_read(text: str, kind: type) -> None:
    """Each command of docs/websocket.md parses to its type."""
    assert isinstance(parse_command(text), kind)
