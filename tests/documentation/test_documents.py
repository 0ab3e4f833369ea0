"""What the documents name exists, and what they quote is what it is."""

import re
from pathlib import Path
from typing import Any

import faust
import pytest
import typer.main
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from connectors import metrics
from connectors.settings import Settings
from docs import generate_configuration
from docs.generate_quotes import quoted_files, with_quotes
from policy.lifecycle import Standing, Step, advance
from schemas import LLMRequest
from schemas.codec import single_object_header
from schemas.topics import DAY_MS, HOUR_MS, MIB, Topics
from schemas.vocabulary import State
from sluice.cli import app
from tests.documentation.markdown import anchors, links, shell_lines, spans

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = ("schemas", "policy", "connectors", "streams", "websocket_bridge", "sluice")
README, ARCHITECTURE = (ROOT / "README.md").read_text(), (ROOT / "ARCHITECTURE.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def commands_in(text: str, name: str) -> list[str]:
    """What stands behind a program's name in shell blocks and inline code."""
    places = [*shell_lines(text), *spans(text)]
    return [found for place in places for found in re.findall(rf"(?:^|[\s/(\"]){name} ([^|;)\"]*)", place)]


@each_document
def test_every_quoted_file_is_as_it_stands(path: Path) -> None:
    """A code block below `<!-- quote PATH -->` is that file (python -m docs.generate_quotes brings it up to date)."""
    text = path.read_text()
    assert with_quotes(text) == text


def test_the_readme_quotes_the_examples() -> None:
    """Those that are tested are those that people copy."""
    names = ("python_producer.py", "python_client.py", "python_results.py", "request.json")
    assert {f"examples/{name}" for name in names} <= set(quoted_files(README))


def test_the_settings_are_documented_as_they_are() -> None:
    """docs/configuration.md is what the models say (python -m docs.generate_configuration writes it)."""
    assert generate_configuration.DOCUMENT.read_text() == generate_configuration.document()


@each_document
def test_every_link_within_the_repository_leads_somewhere(path: Path) -> None:
    """To a file or folder that exists, and to a heading in it where one is named."""
    for link in links(path.read_text()):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@each_document
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    """`make x` is not told of where there is no x."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {command.split()[0] for command in commands_in(path.read_text(), "make") if command.strip()}
    assert named <= targets


@each_document
def test_every_sluice_command_and_option_that_is_named_exists(path: Path) -> None:
    """`sluice x --y` is not told of where x has no --y."""
    for line in commands_in(path.read_text(), "sluice"):
        words = line.split()
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        assert {word for word in words if word.startswith("--")} <= known, line


@each_document
def test_every_file_that_is_named_exists(path: Path) -> None:
    """Named from the root, or within the folder that the sentence is about, or in Faust's own sources."""
    connectors = ROOT / "connectors"
    folders = (connectors, connectors / "state", connectors / "state" / "lua", *(ROOT / "tests").iterdir())
    places = (ROOT, path.parent, *folders, Path(faust.__file__).parent)
    for span in spans(path.read_text()):
        if re.fullmatch(r"[\w./-]+\.(py|lua|avsc|json|yml|md)|[\w-]+(/[\w.-]+)*/", span):
            assert any((place / span).exists() for place in places), span


@each_document
def test_every_setting_that_is_named_exists(path: Path) -> None:
    """Both as `section.name` and as SLUICE_SECTION__NAME."""
    known = set(re.findall(r"`([A-Za-z_.]+)`", generate_configuration.document()))
    text = path.read_text()
    sections = [name for name, field in Settings.model_fields.items() if is_section(field.annotation)]
    dotted = {span for span in spans(text) if re.fullmatch(rf"({'|'.join(sections)})\.[a-z_.]+", span)}
    variables = set(re.findall(r"\bSLUICE_[A-Z_]*[A-Z]\b", text))
    assert dotted | variables <= known


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    """The pipeline's; those of the bridge have a table of their own in docs/websocket.md."""
    described = [
        next(iter(found.describe())) for found in vars(metrics).values() if isinstance(found, MetricWrapperBase)
    ]
    existing = {metric.name + ("_total" if metric.type == "counter" else "") for metric in described}
    rows = re.findall(r"^\| `((?:sluice|gen_ai)_\w+)", OPERATIONS, flags=re.MULTILINE)
    assert set(rows) == existing


def test_every_documented_log_line_is_written_somewhere() -> None:
    """Its event stands in the code as it stands in the table."""
    code = "".join(path.read_text() for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    table = OPERATIONS.split("## Log lines")[1].split("\n## ")[0]
    events = [event for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for event in spans(row)]
    assert len(events) > 10
    assert [event for event in events if event != "event" and f'"{event}"' not in code] == []


def test_the_topics_are_documented_as_they_are_created() -> None:
    """Value, retention, cleanup and size of each."""
    for spec in Topics().specs(["<provider>"]):
        days = spec.retention_ms / DAY_MS
        kept = f"{days:g} d" if days >= 1 else f"{spec.retention_ms / HOUR_MS:g} h"
        value = spec.record.__name__ if spec.record else "the bytes that came in"
        row = f"| `{spec.name}` | {value} | {kept} | {spec.cleanup} | {spec.max_message_bytes // MIB} MiB |"
        assert row in ARCHITECTURE


def test_the_diagram_of_states_shows_steps_that_are_possible() -> None:
    """Each arrow is a transition of policy.lifecycle."""
    arrows = re.findall(r"^    (\S+) --> (\S+): (\w+)$", ARCHITECTURE, flags=re.MULTILINE)
    assert len(arrows) > 5
    for before, after, step in arrows:
        standing = None if before == "[*]" else Standing(State(before), 1)
        assert advance(standing, Step(step)).state == after


def test_the_worked_example_of_a_header_is_that_of_the_schema() -> None:
    """Ten bytes, and the fingerprint as a number."""
    mark, fingerprint = single_object_header(LLMRequest)[:2], single_object_header(LLMRequest)[2:]
    for shown in (mark.hex(" "), fingerprint.hex(" "), f"0x{int.from_bytes(fingerprint, 'little'):016x}"):
        assert f"`{shown}`" in README
