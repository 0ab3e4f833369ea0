"""The image: what it is built from, and what it may not hold."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from docker.utils import exclude_paths  # type: ignore[import-untyped]

from tests.deploy.compose import ROOT
from tests.deploy.dockerfile import built_extras, global_arguments, stages


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def context(root: Path) -> set[str]:
    """What Docker would send to the build, of the files in a folder."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    found: set[str] = exclude_paths(str(root), patterns, dockerfile="Dockerfile")
    return {path for path in found if (root / path).is_file()}


def test_its_extras_exist() -> None:
    """What the image installs by default are extras of pyproject.toml."""
    assert built_extras()
    assert built_extras() <= toml("pyproject.toml")["project"]["optional-dependencies"].keys()


def test_it_is_built_with_the_locked_uv() -> None:
    """The version in the Dockerfile is that of uv.lock, and the lock is not touched by the build."""
    (locked,) = [package["version"] for package in toml("uv.lock")["package"] if package["name"] == "uv"]
    commands = " ".join(stages()[0].all("RUN"))
    assert re.findall(r"uv==(\S+)", commands) == [locked]
    assert commands.count("uv sync") == commands.count("uv sync --frozen --no-dev") == 2


def test_its_python_is_one_that_the_project_supports() -> None:
    """Both stages take it from one argument, and every package with code of its own has a wheel for it on x86-64."""
    version = global_arguments()["PYTHON_VERSION"]
    assert {stage.base for stage in stages()} == {"python:${PYTHON_VERSION}-slim"}
    low, high = re.findall(r"3\.(\d+)", toml("pyproject.toml")["project"]["requires-python"])
    assert int(low) <= int(version.removeprefix("3.")) < int(high)
    tag = f"-cp{version.replace('.', '')}-"
    (faust,) = [package for package in toml("uv.lock")["package"] if package["name"] == "faust-streaming"]
    assert any(tag in wheel["url"] and "x86_64" in wheel["url"] for wheel in faust["wheels"])


def test_what_ships_has_neither_compilers_nor_root() -> None:
    """The last stage installs nothing, and its user is a number other than 0."""
    assert len(stages()) == 2
    assert not re.search(r"\b(apt|apt-get|pip|uv)\b", " ".join(stages()[-1].all("RUN")))
    user, _, group = stages()[-1].only("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_it_is_asked_for_its_health_by_the_probe() -> None:
    """The health check runs the file that was copied, without a shell, and asks whether the role lives."""
    ships = stages()[-1]
    assert "deploy/probe.py /opt/sluice/probe.py" in ships.all("COPY")
    assert ships.only("HEALTHCHECK").endswith('CMD ["python", "/opt/sluice/probe.py", "/healthz"]')
    assert ships.only("ENTRYPOINT") == '["sluice"]'
    assert ships.only("STOPSIGNAL") == "SIGTERM"


def test_the_build_gets_everything_that_the_wheel_is_made_of() -> None:
    """The packages with their data files, and what pyproject.toml refers to."""
    sent = context(ROOT)
    project = toml("pyproject.toml")
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        files = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.is_file()}
        assert {path for path in files if "__pycache__" not in path} <= sent
    assert {project["project"]["readme"], *project["project"]["license-files"], "uv.lock", "deploy/probe.py"} <= sent


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", ".venv/bin/python", ".state/kafka.log", "tests/test_x.py", "sluice/__pycache__/x.pyc"],
)
def test_the_build_gets_nothing_else(tmp_path: Path, path: str) -> None:
    """Secrets, history, caches and tests stay out of every layer."""
    for name in (path, "sluice/cli.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert context(tmp_path) == {"sluice/cli.py"}
