"""docs/websocket.md says what the bridge does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from schemas.status import StatusEvent
from websocket_bridge.closing import Close
from websocket_bridge.commands import Command, CommandError, ErrorCode, parse_command
from websocket_bridge.generate_schema import ANSWERS as ANSWER_MODELS
from websocket_bridge.generate_schema import DOCUMENT as SCHEMA
from websocket_bridge.generate_schema import PUSHES as PUSH_MODELS
from websocket_bridge.generate_schema import document
from websocket_bridge.messages import Answer, FeedState, Gap, Push

DOCUMENT = (Path(__file__).parents[2] / "docs" / "websocket.md").read_text()
EXAMPLES: list[dict[str, Any]] = [
    json.loads(line)
    for block in re.findall(r"```json\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    for line in block.splitlines()
]
COMMANDS = {model.model_fields["type"].annotation.__args__[0] for model in Command.__args__}
ANSWERS = {model.model_fields["type"].annotation.__args__[0] for model in ANSWER_MODELS}
PUSHES = {model.model_fields["type"].annotation.__args__[0] for model in PUSH_MODELS}


def test_every_kind_of_frame_has_an_example() -> None:
    """Commands, answers and pushes: each is shown, and nothing else is."""
    assert {example["type"] for example in EXAMPLES} == COMMANDS | ANSWERS | PUSHES


def test_the_documented_commands_are_accepted() -> None:
    """Each example of a command is one."""
    commands = [example for example in EXAMPLES if example["type"] in COMMANDS]
    assert len(commands) >= len(COMMANDS)
    for example in commands:
        assert not isinstance(parse_command(json.dumps(example)), CommandError)


def test_answers_have_an_id_and_pushes_have_none() -> None:
    """That is how a client tells them apart."""
    for example in EXAMPLES:
        assert ("id" in example) == (example["type"] in COMMANDS | ANSWERS)


def test_the_documented_event_is_one_of_the_contract() -> None:
    """The example of a status validates, and comes out as it stands there."""
    (event,) = [example["event"] for example in EXAMPLES if example["type"] == "status"]
    assert json.loads(StatusEvent.model_validate(event).model_dump_json(exclude_none=True)) == event


def test_every_close_code_is_documented_with_whether_to_reconnect() -> None:
    """One line of the table for each code that the bridge uses, and no other."""
    rows = dict(re.findall(r"^\| (\d{4}) \| .*? \| (yes|no)", DOCUMENT, flags=re.MULTILINE))
    assert rows == {str(close.code): "yes" if close.reconnect else "no" for close in Close}


def test_every_error_and_every_state_of_the_feed_is_documented() -> None:
    """The words that a client may meet are all there."""
    for word in (*ErrorCode.__args__, *FeedState, *Gap):
        assert f"`{word}`" in DOCUMENT


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e["type"] not in COMMANDS], ids=lambda e: e["type"])
def test_the_documented_frames_of_the_bridge_are_what_the_models_say(example: dict[str, Any]) -> None:
    """Each field is there and nothing else is."""
    model = TypeAdapter(Answer if "id" in example else Push)
    model.validate_python(example)


def test_the_schema_has_not_drifted_from_the_models() -> None:
    """`python -m websocket_bridge.generate_schema` would write what is there."""
    assert SCHEMA.read_text() == document()
