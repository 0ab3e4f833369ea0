"""Where the local stack keeps its state (per checkout) and its downloads (per user)."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

import platformdirs

APPLICATION = "sluice"


def state_dir(environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Path:
    """`SLUICE_STATE_DIR`, else `.state/` of the Sluice checkout we are in, else the user's state folder."""
    if given := environ.get("SLUICE_STATE_DIR"):
        return Path(given).expanduser().absolute()
    if checkout := _checkout_around(cwd or Path.cwd()):
        return checkout / ".state"
    return platformdirs.user_state_path(APPLICATION)


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`SLUICE_CACHE_DIR`, else the user's cache folder: downloads are shared by all checkouts."""
    if given := environ.get("SLUICE_CACHE_DIR"):
        return Path(given).expanduser().absolute()
    return platformdirs.user_cache_path(APPLICATION)


def _checkout_around(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file():
            return folder if _project_name(pyproject) == APPLICATION else None
    return None


def _project_name(pyproject: Path) -> object:
    try:
        return tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {}).get("name")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
