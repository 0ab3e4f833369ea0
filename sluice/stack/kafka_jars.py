"""The jars of Apache Kafka, fetched once per user by Maven.

They are fetched into a folder beside the final one and renamed, so an interrupted download never counts.
"""

import shutil
import tempfile
import threading
from importlib import resources
from pathlib import Path

import filelock

from sluice.stack.kafka_settings import KAFKA_VERSION
from sluice.stack.processes import run_to_end

_DOWNLOAD_TIMEOUT_SECONDS = 900.0


def jars_dir(cache_dir: Path) -> Path:
    """Where the jars of this version are, or will be."""
    return cache_dir / f"kafka-{KAFKA_VERSION}"


def are_there(cache_dir: Path) -> bool:
    """Whether a start needs no download."""
    return jars_dir(cache_dir).is_dir()


def fetch(cache_dir: Path, *, maven: Path, log_path: Path, cancelled: threading.Event) -> Path:
    """Fetch the jars unless they are there, and return their folder."""
    final = jars_dir(cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Two checkouts share the cache: the second waits for the first one's download and uses it.
    with filelock.FileLock(f"{final}.lock", timeout=_DOWNLOAD_TIMEOUT_SECONDS):
        if final.is_dir():
            return final
        for left_over in cache_dir.glob(f"{final.name}.partial-*"):
            shutil.rmtree(left_over)
        partial = Path(tempfile.mkdtemp(prefix=f"{final.name}.partial-", dir=cache_dir))
        try:
            pom = partial / "pom.xml"
            pom.write_text(resources.files("sluice.stack").joinpath("kafka_pom.xml").read_text())
            run_to_end(
                _maven_command(maven, pom, partial / "lib"),
                cwd=partial,
                log_path=log_path,
                service="Kafka",
                cancelled=cancelled,
                timeout_seconds=_DOWNLOAD_TIMEOUT_SECONDS,
            )
            (partial / "lib").rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def _maven_command(maven: Path, pom: Path, target: Path) -> list[str]:
    return [
        str(maven),
        "--batch-mode",
        "--quiet",
        "--no-transfer-progress",
        "--strict-checksums",
        f"--file={pom}",
        "dependency:copy-dependencies",
        f"-Dkafka.version={KAFKA_VERSION}",
        f"-DoutputDirectory={target}",
        "-DincludeScope=runtime",
    ]
