"""What the project says to its contributors is true, and its licence is whole."""

import hashlib
import re
import tomllib

import yaml

from tests.deploy.compose import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# Of https://www.apache.org/licenses/LICENSE-2.0.txt
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_the_licence_is_the_whole_text_as_published() -> None:
    """Byte for byte, with its appendix; and pyproject.toml names the same licence."""
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


def test_the_make_targets_that_contributors_are_told_of_exist() -> None:
    """`make x` in CONTRIBUTING.md is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"(?:^|`)make ([a-z-]+)", CONTRIBUTING, re.MULTILINE))
    assert {"test", "unit", "schemas"} <= told <= targets


def test_the_files_that_contributors_are_told_of_exist() -> None:
    """Each path in backquotes, with a slash in it, leads to a file or a folder."""
    paths = set(re.findall(r"`((?:\.?[\w-]+/)+[\w.-]*)`", CONTRIBUTING))
    assert len(paths) > 15
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_the_layers_that_contributors_are_told_of_are_those_that_are_held() -> None:
    """In the same order as in the contract of import-linter."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = [set(layer.split(" | ")) for layer in reversed(contracts[0]["layers"])]
    (line,) = re.findall(r"^`schemas` < .*$", CONTRIBUTING, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", layer)) for layer in line.split(" < ")] == held


def test_the_markers_that_contributors_are_told_of_are_those_of_pytest() -> None:
    """No more, and no fewer."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    assert set(re.findall(r"^\| `(\w+)` \|", CONTRIBUTING, re.MULTILINE)) == {
        marker.partition(":")[0] for marker in declared
    }


def test_commit_hooks_use_the_tools_of_the_lock() -> None:
    """Nothing is downloaded: each hook runs out of .venv, and nothing else."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    tools = {hook["entry"].split()[0] for hook in hooks}
    assert tools == {".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/python"}
