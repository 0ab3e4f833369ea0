"""A service whose address the user gave: it is checked and used, never started, stopped or recorded."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sluice.stack.errors import ExternalUnreachable, NotOurs
from sluice.stack.probes import NotReady
from sluice.stack.service import Condition, Launch
from sluice.stack.state import ServiceName, Source


class ExternalService:
    """Kafka or Redis at an address from the environment."""

    def __init__(self, name: ServiceName, *, variable: str, address: str, probe: Callable[[str], object]) -> None:
        self.name = name
        self.source = Source.EXTERNAL
        self.started_here = False
        self.address = address
        self.shown_address = without_password(address)
        self.description = f"yours, from {variable}"
        self._variable = variable
        self._probe = probe

    def ensure(self, launch: Launch) -> None:
        launch.on_progress(f"{self.name.label}: connecting to {self.shown_address}")
        try:
            self._probe(self.address)
        except NotReady as error:
            raise ExternalUnreachable(variable=self._variable, address=self.shown_address, reason=str(error)) from error

    def condition(self) -> Condition:
        try:
            self._probe(self.address)
        except NotReady:
            return Condition.CRASHED
        return Condition.RUNNING

    def log_path(self) -> Path | None:
        return None

    def start(self) -> None:
        raise self._not_ours()

    def stop(self) -> bool:
        raise self._not_ours()

    def kill(self) -> None:
        raise self._not_ours()

    def restart(self) -> None:
        raise self._not_ours()

    def _not_ours(self) -> NotOurs:
        return NotOurs(service=self.name.label, address=self.shown_address)


def without_password(address: str) -> str:
    """The address as it may be shown: `redis://user:***@host`."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return "(not an address)"
    return address.replace(f":{password}@", ":***@", 1) if password else address
