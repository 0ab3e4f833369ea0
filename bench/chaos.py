"""Nothing lost, nothing paid twice, shown: a system of many processes under load, while things die around it.

    python -m bench.chaos [--requests 20000] [--rounds 30] [--seed 1] [--faults NAME,NAME] [--json] [--keep FOLDER]

Each round sends its share of the requests and does one thing to the system: kill -9, SIGSTOP beyond a lease, a deploy,
a broker or a Redis that dies, a Redis that comes back empty, a cut network, a provider that fails, a storm of
rebalances, a clock that is wrong. In the end a checker that shares no code with Sluice reads the topics and the
providers' own journals.

The bar: no request lost, none with two different terminal events, every call that the provider saw beyond those that
answered recorded as possibly billed; and none of the further promises broken that --help lists.

Kafka and Redis are this run's own, on free ports, and end with it; so do all processes, also on Ctrl-C.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from bench.chaos_run.checker import FINDINGS
from bench.chaos_run.clocks import HOW_TO_GET_IT, find_library
from bench.chaos_run.faults import FAULTS, needs_clocks, needs_role, sequence
from bench.chaos_run.report import as_json, show
from bench.chaos_run.rounds import Options, Outcome, run
from bench.chaos_run.system import BrokenSystemError
from sluice.commands.interrupts import Interrupts
from sluice.commands.run import Role
from sluice.stack import StackError

EXIT_MISSED = 1
EXIT_MISUSED = 2
EXIT_INTERRUPTED = 130
_EXAMPLES = """
examples:
  python -m bench.chaos                                             the whole bar, some 15 minutes on two cores
  python -m bench.chaos --requests 300 --rounds 4 --seed 7          what CI runs
  python -m bench.chaos --faults redis-flush,kill-lane --rounds 6   these two in turn
  python -m bench.chaos --keep /tmp/chaos                           keep logs and journals there

exit codes: 0 the bar was met; 1 missed; 2 called wrongly; 130 interrupted
"""


def possible_faults() -> list[str]:
    """Those that have somebody to befall in this version."""
    roles = {role.value for role in Role}
    return [name for name in FAULTS if needs_role(name) is None or needs_role(name) in roles]


def main() -> None:
    """Entry point."""
    parser = _parser()
    given = parser.parse_args()
    names = given.faults.split(",") if given.faults else possible_faults()
    unknown = sorted(set(names) - set(possible_faults()))
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}; there are: {', '.join(possible_faults())}")
    clock_faults = [name for name in names if needs_clocks(name)]
    if clock_faults and find_library() is None:
        if given.faults:
            parser.error(f"{', '.join(clock_faults)}: no clock can be stepped here without {HOW_TO_GET_IT}")
        print(f"left out: {', '.join(clock_faults)}, which need {HOW_TO_GET_IT}", file=sys.stderr)
        names = [name for name in names if name not in clock_faults]
    rounds = given.rounds or (len(names) if given.faults else 30)
    if given.requests < rounds:
        parser.error("--requests: at least one for each round")
    options = Options(
        requests=given.requests,
        faults=sequence(names, rounds=rounds, seed=given.seed),
        seed=given.seed,
        rate=given.rate,
        workers=given.workers,
        patience_seconds=given.patience,
    )
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        if any(given.keep.iterdir()):
            parser.error(f"--keep: {given.keep} is not empty")
    raise SystemExit(_run(options, given.keep, is_json=given.as_json))


def _run(options: Options, folder: Path | None, *, is_json: bool) -> int:
    progress = Console(stderr=True)
    outcome: Outcome
    try:
        with Interrupts(lambda: progress.print("stopping everything ...")) as interrupts:
            outcome = interrupts.run(run(options, on_progress=progress.print, folder=folder))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (StackError, BrokenSystemError) as error:
        progress.print(f"{error}", style="red", markup=False)
        return EXIT_MISSED
    if is_json:
        json.dump(as_json(outcome), sys.stdout, indent=2)
        print()
    else:
        show(outcome, Console())
    return 0 if outcome.is_passed else EXIT_MISSED


def _parser() -> argparse.ArgumentParser:
    promises = "\n".join(f"  {name:30} {meaning}" for name, meaning in FINDINGS.items())
    faults = "\n".join(f"  {name}" for name in possible_faults())
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos",
        description=__doc__,
        epilog=f"faults:\n{faults}\n\nwhat the checker looks for:\n{promises}\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=20_000, help="in all (20000)")
    parser.add_argument("--rounds", type=int, help="faults, one a round (30; with --faults, each once)")
    parser.add_argument("--seed", type=int, default=1, help="draws requests, faults and victims (1)")
    parser.add_argument("--faults", help="only these, separated by commas")
    parser.add_argument("--rate", type=float, default=80.0, help="requests a second while a round sends (80)")
    parser.add_argument("--workers", type=int, default=2, help="processes of each kind (2)")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds without any end before giving up (120)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty folder for logs and journals")
    return parser


if __name__ == "__main__":
    main()
