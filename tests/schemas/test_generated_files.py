"""The committed files are those that the models generate, and the command that writes them says what it did."""

from pathlib import Path

import pytest

from schemas import RECORDS, avro_schemas, generate
from schemas.avro_schemas import as_text, generated_schema
from schemas.generate import drifted, generated_files, main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of where the generated files live, up to date."""
    avro = tmp_path / "schemas" / "avro"
    monkeypatch.setattr(generate, "AVRO_FOLDER", avro)
    monkeypatch.setattr(generate, "RELEASED_FOLDER", avro / "released")
    monkeypatch.setattr(generate, "ASYNCAPI_FILE", avro.parent / "asyncapi.json")
    assert main([]) == 0
    return avro


def test_the_committed_files_are_what_the_models_generate() -> None:
    """Whoever changes a record runs `python -m schemas.generate` and commits the result."""
    assert [path.name for path in drifted()] == []


def test_there_is_a_schema_for_every_record() -> None:
    """Each record has its .avsc, and beside them stands the AsyncAPI document."""
    names = {path.name for path in generated_files()}
    assert names == {f"{record.__name__}.avsc" for record in RECORDS} | {"asyncapi.json"}


def test_writing_makes_everything_current(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run in an empty folder it writes all, run again it writes nothing, and the check agrees."""
    assert {path.name for path in folder.iterdir()} == {f"{record.__name__}.avsc" for record in RECORDS}
    capsys.readouterr()
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_check_names_every_file_that_drifted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changed, missing and left over: exit code 1, each by its name, and nothing is written."""
    (folder / "Delta.avsc").write_text("{}")
    (folder / "Attempt.avsc").unlink()
    (folder / "Gone.avsc").write_text("{}")
    assert main(["--check"]) == 1
    told = capsys.readouterr().err
    assert [name for name in ("Attempt", "Delta", "Gone", "LaneTask") if f"schemas/avro/{name}.avsc" in told] == [
        "Attempt",
        "Delta",
        "Gone",
    ]
    assert (folder / "Delta.avsc").read_text() == "{}"


def test_writing_mends_what_drifted(folder: Path) -> None:
    """A changed file is rewritten and one that no record stands behind is removed."""
    (folder / "Delta.avsc").write_text("{}")
    (folder / "Gone.avsc").write_text("{}")
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert not (folder / "Gone.avsc").exists()


def test_a_release_keeps_the_schemas_of_its_day(folder: Path) -> None:
    """The snapshot holds every record, and counts as no drift."""
    assert main(["--release", "0.1.0"]) == 0
    kept = {path.stem: path.read_text() for path in (folder / "released" / "0.1.0").iterdir()}
    assert kept == {record.__name__: as_text(generated_schema(record)) for record in RECORDS}
    assert main(["--check"]) == 0


def test_a_release_is_never_rewritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second snapshot of the same version is refused: records with the first one's schemas may be anywhere."""
    assert main(["--release", "0.1.0"]) == 0
    kept = folder / "released" / "0.1.0" / "Delta.avsc"
    kept.write_text("as it was")
    assert main(["--release", "0.1.0"]) == 1
    assert "released/0.1.0" in capsys.readouterr().err
    assert kept.read_text() == "as it was"


def test_a_release_of_drifted_schemas_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is released is what is committed."""
    (folder / "Delta.avsc").write_text("{}")
    assert main(["--release", "0.1.0"]) == 1
    assert "Delta.avsc" in capsys.readouterr().err
    assert not (folder / "released").exists()


@pytest.mark.parametrize("version", ["", "next", "../0.1.0", "0.1"])
def test_a_release_needs_a_version(folder: Path, version: str) -> None:
    """Anything but a version is wrong usage, exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(["--release", version])
    assert exit_.value.code == 2


def test_readers_look_for_releases_where_they_are_written() -> None:
    """The command and the codec agree on the folder."""
    assert generate.RELEASED_FOLDER == avro_schemas.RELEASED_FOLDER
