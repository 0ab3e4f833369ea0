"""Where state and downloads go."""

from pathlib import Path

import platformdirs

from sluice.stack.locations import cache_dir, state_dir


def test_the_environment_decides_first(tmp_path: Path) -> None:
    """SLUICE_STATE_DIR and SLUICE_CACHE_DIR are taken as they are."""
    environ = {"SLUICE_STATE_DIR": str(tmp_path / "s"), "SLUICE_CACHE_DIR": str(tmp_path / "c")}
    assert state_dir(environ) == tmp_path / "s"
    assert cache_dir(environ) == tmp_path / "c"


def test_a_checkout_keeps_its_own_state(tmp_path: Path) -> None:
    """Anywhere inside a checkout of Sluice the state is in its .state, so two checkouts do not meet."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "sluice"\n')
    inside = tmp_path / "sluice" / "stack"
    inside.mkdir(parents=True)
    assert state_dir({}, cwd=inside) == tmp_path / ".state"


def test_the_project_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """In another project, or one whose pyproject.toml is broken, the user's state folder is used."""
    for content in ('[project]\nname = "other"\n', "not toml ["):
        (tmp_path / "pyproject.toml").write_text(content)
        assert state_dir({}, cwd=tmp_path) == platformdirs.user_state_path("sluice")


def test_downloads_are_shared_by_all_checkouts() -> None:
    """Without an own setting the jars go to the user's cache folder."""
    assert cache_dir({}) == platformdirs.user_cache_path("sluice")
