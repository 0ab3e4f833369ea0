"""The live view: from an event made until a client has it, over thousands of connections, against its floor.

In the same run, with as many connections, in turns: a bare `websockets` server that makes its events itself (the
floor), one raw Kafka hop, and the bridge, which is fed through Kafka. First each event goes to one client; then, where
everybody follows everything, each to all. Memory and CPU are those of the server's process.

    make bench-fanout BENCH_ARGS="--clients 1000 --rate 500"
"""

import argparse
import json
import resource
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from bench.fanout_run.child import ChildError
from bench.fanout_run.measure import Options, measure
from bench.fanout_run.report import show
from bench.fanout_run.ways import PARTITIONS
from connectors.settings import Settings
from sluice import stack
from sluice.commands.interrupts import Interrupts
from sluice.role_process import RoleFailedError

EXIT_BROKEN = 1
EXIT_INTERRUPTED = 130
FILES_BESIDE_CONNECTIONS = 500
WIDTH = 130
_EXAMPLES = """
examples:
  python -m bench.fanout                                       everything, some 8 minutes
  python -m bench.fanout --clients 1000 --rate 500             the first aim alone, a minute and a half
  python -m bench.fanout --clients 5000 --blocks 9             more blocks, for a busy machine
  python -m bench.fanout --json > fanout.json                  for programs; progress goes to standard error

A ratio is the median of the blocks, with the least and the most. "others' CPU" is what processes that are no part of
the measurement took of the machine meanwhile: above some 5 % look at the ratios alone, above 20 % at nothing.

exit codes: 0 measured; 1 something broke; 2 called wrongly; 130 interrupted
"""


def main() -> None:
    """Entry point."""
    parser = _parser()
    given = parser.parse_args()
    try:
        clients = [int(count) for count in given.clients.split(",")]
        rates = [float(rate) for rate in given.rate.split(",")]
    except ValueError:
        parser.error("--clients and --rate: numbers, separated by commas")
    options = Options(clients=clients, rates=rates, blocks=given.blocks, seconds=given.seconds)
    if min(*clients, *rates, options.blocks, options.seconds) <= 0:
        parser.error("all numbers have to be above 0")
    needed, (_, most) = max(clients) + FILES_BESIDE_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed > most:
        parser.error(
            f"--clients: {max(clients):,} need {needed:,} open files, and this shell allows {most:,}: ulimit -n"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    raise SystemExit(_run(options, is_json=given.as_json))


def _run(options: Options, *, is_json: bool) -> int:
    progress = Console(stderr=True)

    def say(line: str) -> None:
        progress.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    say(f"about {max(1.0, options.about_minutes):.0f} min")
    try:
        with (
            Interrupts(lambda: say("stopping everything ...")) as interrupts,
            stack.start(ephemeral=True, on_progress=say) as running,
            tempfile.TemporaryDirectory(prefix="sluice-fanout-") as folder,
        ):
            settings = Settings(
                kafka_bootstrap=running.kafka_bootstrap,
                redis_url=SecretStr(running.redis_url),
                topic_partitions=PARTITIONS,
            )
            report = interrupts.run(measure(settings, options, Path(folder), say))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ChildError, RoleFailedError, stack.StackError) as error:
        progress.print(f"{error}", style="red", markup=False)
        return EXIT_BROKEN
    if is_json:
        json.dump(report.figures, sys.stdout, default=asdict, indent=1)
        print()
    else:
        show(report, Console(width=WIDTH))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fanout",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clients", default="1000,5000,10000", help="connections (1000,5000,10000)")
    parser.add_argument("--rate", default="500,2000", help="events a second (500,2000)")
    parser.add_argument("--blocks", type=int, default=5, help="turns of each way (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each (3)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
