"""Writes what is generated from the record models, and says what has drifted from them.

    python -m schemas.generate                   write schemas/avro/*.avsc and schemas/asyncapi.json
    python -m schemas.generate --check           write nothing; exit 1 and name the files that differ
    python -m schemas.generate --release 0.1.0   keep today's schemas as those that release 0.1.0 writes

Exit codes: 0 done, or nothing differs; 1 a file differs, or the release exists already; 2 wrong usage.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas import RECORDS
from schemas.asyncapi import document
from schemas.avro_schemas import AVRO_FOLDER, RELEASED_FOLDER, as_text, generated_schema

ASYNCAPI_FILE = AVRO_FOLDER.parent / "asyncapi.json"

_VERSION = re.compile(r"\d+\.\d+\.\d+[a-z0-9.+-]*")


class ReleaseError(Exception):
    """A snapshot cannot be taken."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m schemas.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")
    action.add_argument("--release", metavar="VERSION", type=_version, help="keep today's schemas under this version")
    options = parser.parse_args(arguments)
    if options.check:
        return _check()
    try:
        done = release(options.release) if options.release else write()
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.writelines(f"{_shown(path)}\n" for path in done)
    return 0


def generated_files() -> dict[Path, str]:
    """Every generated file, and what belongs into it."""
    files = {AVRO_FOLDER / f"{record.__name__}.avsc": as_text(generated_schema(record)) for record in RECORDS}
    files[ASYNCAPI_FILE] = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    return files


def drifted() -> list[Path]:
    """The files that differ from what would be generated: changed, missing, or left over from a record now gone."""
    wanted = generated_files()
    differing = [
        path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    return sorted([*differing, *_left_over(wanted)])


def write() -> list[Path]:
    """Brings every file up to date, and returns those that were not."""
    wanted = generated_files()
    changed = drifted()
    AVRO_FOLDER.mkdir(parents=True, exist_ok=True)
    for path in changed:
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return changed


def release(version: str) -> list[Path]:
    """Keeps the current schemas as those of a release. What was released never changes."""
    differing = drifted()
    if differing:
        names = ", ".join(_shown(path) for path in differing)
        raise ReleaseError(f"run `python -m schemas.generate` first: {names} differ from the models")
    folder = RELEASED_FOLDER / version
    if folder.exists():
        raise ReleaseError(f"{_shown(folder)} exists: records of that release may be anywhere, so it stays as it is")
    folder.mkdir(parents=True)
    written = []
    for record in RECORDS:
        path = folder / f"{record.__name__}.avsc"
        path.write_text(as_text(generated_schema(record)), encoding="utf-8")
        written.append(path)
    return written


def _check() -> int:
    differing = drifted()
    if not differing:
        return 0
    sys.stderr.writelines(f"{_shown(path)} differs from the models\n" for path in differing)
    sys.stderr.write("run `python -m schemas.generate` and commit what it writes\n")
    return 1


def _left_over(wanted: dict[Path, str]) -> list[Path]:
    return [path for path in AVRO_FOLDER.glob("*.avsc") if path not in wanted]


def _shown(path: Path) -> str:
    return path.relative_to(AVRO_FOLDER.parents[1]).as_posix()


def _version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version such as 0.1.0")
    return text


if __name__ == "__main__":
    sys.exit(main())
