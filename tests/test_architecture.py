"""The rules that keep the code base readable: layers, file sizes, docstrings of packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "policy", "connectors", "streams", "websocket_bridge", "http_api", "sluice")
MAX_LINES = 400


def source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_lower_layers_never_import_higher_ones() -> None:
    """The contracts stand in pyproject.toml under [tool.importlinter]."""
    linted = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(
    "path", source_files(*PACKAGES, "tests", "bench"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", source_files(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_module_evaluates_text_as_code_or_unpickles() -> None:
    forbidden = {"eval", "exec"}
    for path in source_files(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in forbidden, f"{path}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert not any(alias.name in {"pickle", "marshal", "shelve"} for alias in node.names), path
