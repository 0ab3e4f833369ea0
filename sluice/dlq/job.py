"""A redrive or a purge as a command: asked for, carried out, and told how far it got."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import typer
from rich.console import Console
from rich.progress import Progress as Bar

from connectors.kafka.client import client_options
from connectors.kafka.record_fetch import RecordFetcher
from connectors.settings import Settings
from schemas.envelope import iso
from schemas.vocabulary import DeadLetterAction
from sluice.commands.endings import fail, kafka_problems, misused, note
from sluice.commands.interrupts import Interrupts
from sluice.dlq.handling import Handle, Handling, Plan, Progress
from sluice.dlq.letters import LetterFilter
from sluice.dlq.mailbox import Found, Mailbox
from sluice.dlq.pace import Pace
from sluice.dlq.redriving import Redriving
from sluice.dlq.views import printable

EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130
SHOWN_REFUSALS = 20


def counted(total: int, categories: Counter[str]) -> str:
    """`3 dead letters: 2 overloaded, 1 deadline`."""
    by_category = ", ".join(f"{number:,} {category}" for category, number in categories.most_common())
    return f"{total:,} dead letter{'' if total == 1 else 's'}" + (f": {by_category}" if by_category else "")


@dataclass(kw_only=True)
class Job:
    """`delete_before`: the records of letters that died before are deleted as well."""

    settings: Settings
    action: DeadLetterAction
    wanted: LetterFilter
    plan: Plan
    limit: int | None = None
    per_second: float | None = None
    delete_before: datetime | None = None
    as_json: bool = False
    progress: Progress = field(default_factory=Progress)
    has_deleted: bool = False

    @property
    def _verb(self) -> str:
        return "redrive" if self.action is DeadLetterAction.REDRIVEN else "purge"

    @property
    def _deletes(self) -> bool:
        return self.delete_before is not None and self.plan.total + self.plan.handled > 0

    def carry_out(self, *, dry_run: bool, yes: bool) -> None:
        """Ends the command with its exit code where that is not 0."""
        if not self.plan.total and not self._deletes:
            handled = f" ({self.plan.handled:,} that match were handled before)" if self.plan.handled else ""
            note(f"Nothing to {self._verb}{handled}.")
        elif dry_run:
            note(f"Would {self._verb} {self._what()}. Nothing was written.")
            if self.plan.to_be_refused:
                note(f"{self.plan.to_be_refused:,} of them cannot be redriven; a run names them.")
        else:
            self._ask(yes=yes)
            self._run()
        self._tell(dry_run=dry_run)
        if self.progress.refused:
            raise typer.Exit(EXIT_REFUSED)

    def _what(self) -> str:
        what = counted(self.plan.total, self.plan.categories)
        if not self._deletes or self.delete_before is None:
            return what
        before = iso(self.delete_before)
        handled = f", also of {self.plan.handled:,} handled before" if self.plan.handled else ""
        return f"{what}; and delete every record from before {before}{handled}"

    def _ask(self, *, yes: bool) -> None:
        """One letter is what was meant. Many may be more than that, and redriven ones cost money."""
        if yes or (self.plan.total <= 1 and not self._deletes):
            return
        if not sys.stdin.isatty():
            misused(f"This would {self._verb} {self._what()}. Say --yes where nobody can be asked.")
        if not typer.confirm(f"{self._verb.capitalize()} {self._what()}?", err=True):
            fail("Nothing was written.", EXIT_INTERRUPTED)

    def _run(self) -> None:
        with Interrupts() as interrupts:
            try:
                with kafka_problems(self.settings), self._told_when_it_breaks():
                    interrupts.run(self._work())
            except KeyboardInterrupt:
                fail(f"Interrupted. {self._how_far()} The same command goes on with the rest.", EXIT_INTERRUPTED)

    async def _work(self) -> None:
        options = client_options(self.settings)
        async with Mailbox(self.settings, writes=True) as mailbox, RecordFetcher(options) as fetcher:
            is_redrive = self.action is DeadLetterAction.REDRIVEN
            handle: Handle = Redriving(mailbox, fetcher).handle if is_redrive else _mark_alone
            handling = Handling(mailbox, self.action, handle, pace=Pace(self.per_second))
            self.progress = handling.progress
            with self._bar(handling):
                await handling.run(self.wanted, self.plan.ends, limit=self.limit)
            if self._deletes and self.delete_before is not None:
                await mailbox.delete_before(await mailbox.ends_before(self.delete_before))
                self.has_deleted = True

    @contextmanager
    def _told_when_it_breaks(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            note(self._how_far())
            raise

    @contextmanager
    def _bar(self, handling: Handling) -> Iterator[None]:
        """On a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        with Bar(console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
            task = bar.add_task(self._verb, total=self.plan.total)
            handling.on_progress = lambda: bar.update(task, completed=handling.progress.settled)
            yield

    def _how_far(self) -> str:
        done, unmarked = self.progress.done, self.progress.begun - self.progress.done
        told = f"{done:,} of {self.plan.total:,} {self.action}."
        if unmarked and self.action is DeadLetterAction.REDRIVEN:
            told += (
                f" {unmarked:,} more were sent and not marked: they are listed again, and intake ignores a second one."
            )
        return told

    def _tell(self, *, dry_run: bool) -> None:
        progress = self.progress
        for stored, reason in progress.refusals[:SHOWN_REFUSALS]:
            note(printable(f"{stored.name}: {reason}."))
        if progress.refused > SHOWN_REFUSALS:
            note(f"{progress.refused - SHOWN_REFUSALS:,} more cannot be redriven either.")
        if self.as_json:
            typer.echo(json.dumps(self._as_json(dry_run=dry_run), indent=2))
        elif progress.settled or self.has_deleted:
            others = f" {progress.handled_by_others:,} were handled by others." if progress.handled_by_others else ""
            deleted = " The records were deleted." if self.has_deleted else ""
            note(f"{self._how_far()}{others}{deleted}")

    def _as_json(self, *, dry_run: bool) -> dict[str, object]:
        progress = self.progress
        return {
            "action": self.action,
            "dry_run": dry_run,
            "matching": self.plan.total,
            "categories": self.plan.categories,
            "done": progress.done,
            "handled_by_others": progress.handled_by_others,
            "refused": progress.refused,
            "records_deleted": self.has_deleted,
            "refusals": [
                {"at": str(stored.position), "request_id": stored.letter.request_id, "reason": reason}
                for stored, reason in progress.refusals
            ],
        }


async def _mark_alone(_: Found) -> None:
    """A purge is its mark."""
