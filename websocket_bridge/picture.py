"""Where things stand, for one viewer and what it subscribed to: the snapshot. Pure."""

from collections.abc import Callable, Iterable

from websocket_bridge.commands import Subscription, Where
from websocket_bridge.frames import DeltaRun, Snapshot, SnapshotParts, Status, Summary, snapshots
from websocket_bridge.lanes import encoded
from websocket_bridge.memory import Memory, queue_json
from websocket_bridge.subjects import ALL, subjects_of
from websocket_bridge.viewer import Viewer


class Picture:
    """Gathers what subscriptions show. `is_old`: whether the client was told of something newer than a status."""

    def __init__(self, memory: Memory, viewer: Viewer, is_old: Callable[[Status], bool]) -> None:
        self._memory = memory
        self._viewer = viewer
        self._is_old = is_old
        self._statuses: dict[str, Status] = {}
        self._texts: dict[str, DeltaRun] = {}
        self._queue: list[bytes] = []
        self._lanes: list[bytes] = []
        self._lane_history: list[bytes] = []
        self._dead_letters: list[bytes] = []
        self._unknown: dict[str, None] = {}

    def add(self, subscription: Subscription) -> None:
        if subscription.lanes:
            self._lanes = [encoded(lane) for lane in self._memory.lanes.all.values()]
            self._lane_history = [past.model_dump_json().encode() for past in self._memory.lanes.history]
        elif subscription.dead_letters:
            entries = self._memory.dead_letters.newest_first(subscription.limit)
            self._dead_letters = [entry.model_dump_json(exclude_none=True).encode() for entry in entries]
        elif subscription.request_ids:
            for request_id in dict.fromkeys(subscription.request_ids):
                self._add_request(request_id, deltas=subscription.deltas)
        else:
            self._add_group(subscription)

    def frames(self, *, token: str | None) -> Iterable[Snapshot]:
        """All of it."""
        statuses = [status for status in self._statuses.values() if not self._is_old(status)]
        summaries = [summary for status in statuses if (summary := self._summary(status)) is not None]
        parts = SnapshotParts(
            statuses=statuses,
            summaries=summaries,
            texts=list(self._texts.values()),
            queue=self._queue,
            lanes=self._lanes,
            lane_history=self._lane_history,
            dead_letters=self._dead_letters,
            unknown=list(self._unknown),
        )
        return snapshots(parts, token=token)

    def side_frames(self, *, token: str | None) -> Iterable[Snapshot]:
        """Only what is not replayed: queue places, lanes, dead letters. Nothing where there are none."""
        if not (self._queue or self._lanes or self._dead_letters):
            return ()
        parts = SnapshotParts(
            queue=self._queue, lanes=self._lanes, lane_history=self._lane_history, dead_letters=self._dead_letters
        )
        return snapshots(parts, token=token)

    def _add_request(self, request_id: str, *, deltas: bool) -> None:
        status = self._memory.board.get(request_id)
        if status is None or not self._viewer.may_see(status.who):
            self._unknown[request_id] = None
        else:
            self._statuses[request_id] = status
            place = self._memory.queue.get(status)
            if place is not None:
                self._queue.append(queue_json(place))
        if deltas:
            self._add_text(self._memory.transcripts.get(request_id), status)

    def _add_group(self, subscription: Subscription) -> None:
        (subject,) = subjects_of(subscription)
        added = 0
        for status in self._memory.board.newest_first(subject):
            if added == subscription.limit:
                break
            if self._viewer.may_see(status.who) and fits(subscription.where, status):
                self._statuses[status.who.request_id] = status
                added += 1
                if subscription.deltas:
                    self._add_text(self._memory.transcripts.get(status.who.request_id), status)
        if subscription.deltas and subject == ALL and not subscription.where.narrows:
            for run in self._memory.transcripts.all():
                self._texts.setdefault(run.who.request_id, run)

    def _add_text(self, run: DeltaRun | None, status: Status | None) -> None:
        if run is not None and self._viewer.may_see(run.who if status is None else status.who):
            self._texts[run.who.request_id] = run

    def _summary(self, status: Status) -> Summary | None:
        return self._memory.board.summary(status)


def fits(where: Where, status: Status) -> bool:
    """Whether a request as it stands is let through by a filter."""
    return (
        (not where.states or status.state in where.states)
        and (not where.providers or status.provider in where.providers)
        and (not where.tenant_ids or status.who.tenant_id in where.tenant_ids)
    )
