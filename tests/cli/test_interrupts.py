"""Signals end a command in order: the first ends the work, later ones do not disturb the cleaning up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import wait_until

PROGRAM = """
import asyncio, sys, time
from pathlib import Path
from sluice.commands.interrupts import Interrupts

folder = Path(sys.argv[1])

async def work():
    (folder / "working").touch()
    try:
        await asyncio.Event().wait()
    finally:
        (folder / "cleaning").touch()
        while not (folder / "go on").exists():
            await asyncio.sleep(0.01)
        print("clean")

with Interrupts(on_interrupt=lambda: print("heard", flush=True)) as interrupts:
    try:
        if sys.argv[2] == "asyncio":
            interrupts.run(work())
        elif sys.argv[2] == "afterwards":
            interrupts.run(asyncio.sleep(0))
            (folder / "working").touch()
            while not (folder / "go on").exists():
                time.sleep(0.01)
            print("clean")
        else:
            (folder / "working").touch()
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(130)
"""


def start(folder: Path, kind: str) -> subprocess.Popen[str]:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), kind], stdout=subprocess.PIPE, text=True)
    wait_until((folder / "working").exists)
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_cancels_and_later_ones_are_ignored(number: signal.Signals, tmp_path: Path) -> None:
    """The work cleans up in its own time, and the exit code is the command's own."""
    program = start(tmp_path, "asyncio")
    os.kill(program.pid, number)
    wait_until((tmp_path / "cleaning").exists)
    for another in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(program.pid, another)
    (tmp_path / "go on").touch()
    stdout, _ = program.communicate(timeout=20)
    assert stdout.split() == ["heard", "clean", "interrupted"]
    assert program.returncode == 130


def test_a_signal_interrupts_what_is_not_asyncio(tmp_path: Path) -> None:
    """Such as the start of the stack: as Ctrl-C does it."""
    program = start(tmp_path, "plain")
    os.kill(program.pid, signal.SIGTERM)
    stdout, _ = program.communicate(timeout=20)
    assert (stdout.split(), program.returncode) == (["heard", "interrupted"], 130)


def test_a_signal_after_the_work_does_not_disturb_the_cleaning_up(tmp_path: Path) -> None:
    """Such as the stopping of the stack: it would leave servers behind."""
    program = start(tmp_path, "afterwards")
    os.kill(program.pid, signal.SIGINT)
    (tmp_path / "go on").touch()
    stdout, _ = program.communicate(timeout=20)
    assert (stdout.split(), program.returncode) == (["clean"], 0)
