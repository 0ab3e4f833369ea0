"""Writes docs/websocket.schema.json from the models of commands, answers and pushes, or says that it has drifted.

.venv/bin/python -m websocket_bridge.generate_schema            write it
.venv/bin/python -m websocket_bridge.generate_schema --check    write nothing; exit 1 where it differs
"""

import json
import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from websocket_bridge.commands import Authenticate, Ping, Refresh, Resume, Subscribe, Unsubscribe
from websocket_bridge.messages import (
    SUBPROTOCOL,
    Authenticated,
    DeadLetterMarkPush,
    DeadLetterPush,
    DeltaPush,
    Error,
    Feed,
    Hello,
    LanePush,
    Pong,
    Position,
    QueuePush,
    Refreshed,
    ResultPush,
    Resumed,
    Snapshot,
    StatusPush,
    Subscribed,
    Unsubscribed,
    VoidPush,
)

DOCUMENT = Path(__file__).parents[1] / "docs" / "websocket.schema.json"

COMMANDS: tuple[type[BaseModel], ...] = (Authenticate, Refresh, Subscribe, Unsubscribe, Resume, Ping)
ANSWERS: tuple[type[BaseModel], ...] = (Authenticated, Refreshed, Subscribed, Unsubscribed, Resumed, Pong, Error)
PUSHES: tuple[type[BaseModel], ...] = (
    Hello,
    Feed,
    Snapshot,
    StatusPush,
    DeltaPush,
    VoidPush,
    ResultPush,
    QueuePush,
    LanePush,
    DeadLetterPush,
    DeadLetterMarkPush,
    Position,
)


def document() -> str:
    """The whole schema. A frame of a client is a `Command`; one of the bridge an `Answer` or a `Push`."""
    groups: dict[str, tuple[JsonSchemaMode, tuple[type[BaseModel], ...]]] = {
        "Command": ("validation", COMMANDS),
        "Answer": ("serialization", ANSWERS),
        "Push": ("serialization", PUSHES),
    }
    every = [(model, mode) for mode, models in groups.values() for model in models]
    references, schema = models_json_schema(
        every, ref_template="#/$defs/{model}", title=SUBPROTOCOL, description="Frames of the live view, by direction."
    )
    for name, (mode, models) in groups.items():
        schema["$defs"][name] = {"oneOf": [references[model, mode] for model in models]}
    schema["oneOf"] = [{"$ref": f"#/$defs/{name}"} for name in groups]
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """The command. Returns the exit code."""
    text = document()
    if arguments == ["--check"]:
        if DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write("docs/websocket.schema.json differs: run `python -m websocket_bridge.generate_schema`\n")
        return 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
