"""Tasks on their way from one try to the next: to a delay topic, or to another provider's lane."""

from collections.abc import Sequence
from datetime import datetime

from connectors import metrics
from connectors.kafka.producer import Outgoing
from policy import results
from policy.retry import delay_for
from policy.summary import Summary, summary_of
from schemas import Attempt, LaneTask
from schemas.envelope import Header
from schemas.task import RoutingDecision
from schemas.vocabulary import State
from streams.context import StageContext
from streams.records import RecordWriter


class Mover:
    """Publishes a task that goes on, with the event that says so."""

    def __init__(self, context: StageContext, writer: RecordWriter) -> None:
        self._context = context
        self._writer = writer

    async def publish(
        self, task: LaneTask, summary: Summary, state: State, *, version: int, trace: Sequence[Header]
    ) -> None:
        """Sends `task` on, as the shared state has decided: `summary` tells where to, and after which calls.

        Everything follows from the arguments, so that whoever finds it undone later publishes the same.
        """
        following = moved_task(task, summary, version=version)
        made = summary.attempts[len(task.history) :]
        event = results.progress_event(
            summary,
            state,
            version=version,
            attempt=summary.attempts[-1].attempt if summary.attempts else 0,
            now=made[-1].ended_at if made else self._context.now(),
            problem=summary.attempts[-1].problem if summary.attempts else None,
            retry_at=summary.retry_at if state is State.RETRY_SCHEDULED else None,
        )
        await self._context.producer.send_all(
            [self._writer.status(event, trace), *(self._writer.attempt(attempt, trace) for attempt in made)]
        )
        # Last: once it is taken up, `task` causes nothing more, and nobody publishes the rest again.
        await self._context.producer.send(
            self.delayed(following, trace) if following.not_before else self._writer.task(following, trace)
        )

    def delayed(self, task: LaneTask, trace: Sequence[Header]) -> Outgoing:
        """The task for the delay topic that fits what is left of its wait, or for the shortest."""
        if task.not_before is None:
            raise ValueError("a task without not_before has nothing to wait for")
        remaining_seconds = (task.not_before - self._context.now()).total_seconds()
        delay = delay_for(self._writer.topics.retries, remaining_seconds=remaining_seconds)
        metrics.tasks_delayed.labels(str(delay)).inc()
        return self._writer.delayed_task(task, delay, trace)


def moved_task(task: LaneTask, summary: Summary, *, version: int) -> LaneTask:
    """The task that follows from `task`, by its summary after the calls made meanwhile."""
    same_provider = summary.provider == task.decision.provider
    decision = task.decision
    if not same_provider:
        decision = RoutingDecision(provider=summary.provider, model=summary.model, reason="failover")
    return task.model_copy(
        update={
            "decision": decision,
            "attempt": summary.attempts[-1].attempt + 1 if summary.attempts else task.attempt,
            "state_version": version,
            "history": summary.attempts,
            "not_before": summary.retry_at,
        }
    )


def summary_after(
    task: LaneTask,
    attempts: list[Attempt],
    *,
    decision: RoutingDecision | None = None,
    retry_at: datetime | None = None,
) -> Summary:
    """The summary of a task after these calls, with where it goes next."""
    chosen = decision or task.decision
    return summary_of(task).model_copy(
        update={"attempts": attempts, "provider": chosen.provider, "model": chosen.model, "retry_at": retry_at}
    )
