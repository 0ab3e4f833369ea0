"""Who gets what: every client with its session and outbox, and the index from subjects to those who follow them.

No I/O of its own. Frames wait in outboxes until `flush`; then each client's peer sends what its network takes. One
client's troubles never reach another.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from schemas.dead_letter import DeadLetterMark
from schemas.delta import Delta
from schemas.lane_report import LaneReport
from schemas.result import LLMResult
from schemas.status import StatusEvent
from websocket_bridge.closing import Close
from websocket_bridge.commands import Authenticate, Refresh, Resume
from websocket_bridge.cursor import Cursor
from websocket_bridge.frames import (
    Body,
    DeltaRun,
    Notice,
    Outgoing,
    Push,
    Status,
    dead_letter_notice,
    feed_notice,
    hello,
    mark_notice,
    position_notice,
)
from websocket_bridge.lanes import PUSH_END, PUSH_START, encoded
from websocket_bridge.memory import Memory, queue_json
from websocket_bridge.messages import DeadLetterEntry, FeedState, Gap, Lane, Limits
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.outbox import Outbox
from websocket_bridge.position import Place, Position, read_token
from websocket_bridge.recent import Spot
from websocket_bridge.resuming import PATIENCE_SECONDS, Recovery, Resuming
from websocket_bridge.roster import Client, HubLimits, Peer, Roster
from websocket_bridge.session import MAX_COMMAND_BYTES, Session, Turn
from websocket_bridge.subjects import DEAD_LETTERS, LANES, Subject
from websocket_bridge.viewer import Viewer


@dataclass(frozen=True, slots=True)
class Waiting:
    """A resume that cannot be answered yet."""

    command: Resume
    position: Position
    followed: tuple[Subject, ...]
    since: float


class Hub:
    """Takes events and commands, fills outboxes, and has them sent."""

    def __init__(
        self,
        limits: HubLimits,
        metrics: BridgeMetrics,
        *,
        default_viewer: Viewer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.limits = limits
        self.memory = Memory(requests=limits.remembered_requests, replay_bytes=limits.replay_bytes)
        self.cursor = Cursor()
        self._metrics = metrics
        self.default_viewer = default_viewer
        self._now = now
        self._clock = clock
        self.roster = Roster(limits)
        self._dirty: list[Client] = []
        self._waiting: dict[Client, Waiting] = {}
        self.on_waiting: Callable[[], None] = lambda: None
        """Called when a client's resume has to wait until Kafka was asked how far it is."""
        self.on_dirty: Callable[[], object] = lambda: None
        """Called when there is something to `flush` again."""
        self._feed = FeedState.STARTING
        self.resuming = Resuming(self.memory.recent, self.cursor, resume_events=limits.resume_events)
        metrics.watch_requests(lambda: self.memory.board.counts)

    @property
    def feed(self) -> FeedState:
        return self._feed

    def join(self, peer: Peer, *, address: str = "", viewer: Viewer | None = None) -> Client:
        """A new client, with a greeting in its outbox."""
        viewer = viewer or self.default_viewer
        session = Session(memory=self.memory, limits=self.limits.session, viewer=viewer)
        outbox = Outbox(max_events=self.limits.outbox_events, max_bytes=self.limits.outbox_bytes)
        now = self._clock()
        client = Client(session, outbox, peer, address, now, now)
        self.roster.add(client)
        info = None if viewer is None else viewer.info
        self._metrics.accepted.inc()
        self._metrics.connections.set(len(self.roster))
        self._push(client, (hello(self._now(), self._feed, info, self._announced_limits()),))
        self.flush()
        return client

    def leave(self, client: Client) -> None:
        """Forgets a client. Nothing of it stays."""
        client.is_ending = True
        client.outbox.clear()
        if client not in self.roster:
            return
        self._waiting.pop(client, None)
        self.roster.remove(client)
        self._metrics.connections.set(len(self.roster))

    def receive(self, client: Client, message: str | bytes) -> Authenticate | Refresh | None:
        """A command of a client. Returns it where its ticket has to be verified, and `admit` be called."""
        if client.is_ending:
            return None
        turn = client.session.receive(message, token=self.cursor.token)
        if turn.resume is not None:
            self._resume(client, turn.resume, turn.followed)
        else:
            self._apply(client, turn)
        self.flush()
        return turn.ticket

    def admit(self, client: Client, command: Authenticate | Refresh, viewer: Viewer | str | None) -> None:
        """The verdict on a ticket: whom it is of, or why it is not good. None: nobody knows at the moment."""
        if client.is_ending:
            return
        before = client.session.viewer
        if viewer is None or isinstance(viewer, str):
            self._apply(client, client.session.turn_away(command, viewer))
        elif not _is_same_user(before, viewer) and (refused := self.roster.too_many_of(viewer)) is not None:
            self._push(client, (refused,))
        else:
            self._apply(client, client.session.admit(command, viewer))
            self.roster.count_as(before, client.session.viewer)
        self.flush()

    def owes(self, client: Client) -> bool:
        """Whether an answer to the client is not sent yet: its next command has to wait."""
        return client.outbox.owes_replies or client in self._waiting

    def on_status(self, event: StatusEvent, spot: Spot | None = None) -> bool:
        """Tells a change of state to those who follow it. False for one that says nothing new."""
        known = self.memory.board.get(event.request_id)
        told = self.memory.on_status(event)
        self._advance(spot)
        if told is None:
            return False
        status, void = told
        if void is not None:
            self._tell(void, spot, known, with_token=False)
        self._tell(status, spot, known)
        if known is None:
            self._tell_late(status)
        return True

    def on_delta(self, delta: Delta, spot: Spot | None = None) -> bool:
        """Tells a piece of an answer to those who want it. False for a superseded or repeated one."""
        told = self.memory.on_delta(delta)
        self._advance(spot)
        if told is None:
            return False
        run, void = told
        known = self.memory.board.get(delta.request_id)
        if void is not None:
            self._tell(void, spot, known, with_token=False)
        self._tell(run, spot, known)
        return True

    def on_result(self, result: LLMResult, spot: Spot | None = None) -> bool:
        """Tells how a request ended to those who follow it. False for a repeat."""
        summary = self.memory.on_result(result)
        self._advance(spot)
        if summary is None:
            return False
        self._tell(summary, spot, self.memory.board.get(result.request_id))
        return True

    def on_lane_report(self, report: LaneReport, *, age_seconds: float = 0.0) -> bool:
        """Tells how a lane fares, and where its queued requests stand. `age_seconds`: of a report of before."""
        lane = self.memory.on_lane_report(report, now=self._clock() - age_seconds)
        if lane is not None:
            self._tell_lane(lane)
        return lane is not None

    def on_dead_letter(self, entry: DeadLetterEntry) -> None:
        """Tells operators of a dead letter."""
        self._notify(DEAD_LETTERS, dead_letter_notice(self.memory.on_dead_letter(entry)))

    def on_dead_letter_mark(self, record: DeadLetterMark) -> bool:
        """Tells operators that a dead letter was redriven or purged. False for what was known."""
        mark = self.memory.on_dead_letter_mark(record)
        if mark is not None:
            self._notify(DEAD_LETTERS, mark_notice(record.partition, record.offset, mark))
        return mark is not None

    def on_feed(self, feed: FeedState) -> None:
        """Tells everybody that the bridge's own view of Kafka changed."""
        if feed is self._feed:
            return
        self._feed = feed
        notice = feed_notice(feed)
        for client in self.roster:
            self._push(client, (notice,))
        self.flush()

    def begin(self, epoch: bytes, offsets: Mapping[Place, int]) -> None:
        """The bridge reads from here on. What it read before, if it did, goes on."""
        self.memory.recent.begin(offsets)
        self.cursor.begin(epoch, offsets)
        self.flush()

    def forget_log(self) -> None:
        """Kafka's log is another one: what was read of it answers no resume, and tokens of before are none any more."""
        self.memory.recent.clear()
        self.cursor.clear()
        self.resuming.clear()

    def on_ends(self, ends: Mapping[Place, int], *, looked_up_at: float) -> None:
        """How far Kafka was when it was asked, by the hub's clock."""
        self.cursor.see_ends(ends, now=looked_up_at)
        self.flush()

    def wanted_back(self) -> dict[Place, int]:
        """From where on clients that wait need to have Kafka read back to them."""
        return self.resuming.wanted_back([waiting.position for waiting in self._waiting.values()])

    def sweep(self, clients: Iterable[Client] | None = None) -> None:
        """What time alone brings about, for some clients or for all. Each wants it every few seconds."""
        now, moment = self._clock(), self._now()
        for lane in self.memory.lanes.forget_silent(now=now):
            self._tell_lane(lane)
        for client in self.roster if clients is None else clients:
            if not client.is_ending:
                self._look_after(client, now, moment)
        self.flush()

    def flush(self) -> None:
        """Looks again what those who wait have missed, and has everything sent that networks take now."""
        for client in tuple(self._waiting):
            self._settle(client)
        dirty, self._dirty = self._dirty, []
        for client in dirty:
            client.is_dirty = False
            client.peer.flush()

    def _look_after(self, client: Client, now: float, moment: datetime) -> None:
        limits, viewer = self.limits, client.session.viewer
        waiting = self._waiting.get(client)
        if waiting is not None and now - waiting.since > PATIENCE_SECONDS:
            self._resolve(client, waiting, Gap.UNAVAILABLE)
        if viewer is None:
            if now - client.idle_since > limits.authenticate_seconds:
                self._push(client, (Close.NOT_AUTHENTICATED,))
        elif viewer.expires_at is not None and viewer.expires_at <= moment:
            self._push(client, (Close.TICKET_EXPIRED,))
        elif not client.session.followed:
            if 0 < limits.idle_seconds < now - client.idle_since:
                self._push(client, (Close.IDLE,))
        elif now - client.token_at > limits.position_seconds and waiting is None:
            token = self.cursor.token
            client.token_at = now
            if token is not None:
                self._push(client, (position_notice(token),))

    def _apply(self, client: Client, turn: Turn) -> None:
        self.roster.follow(client, turn.followed)
        self.roster.unfollow(client, turn.unfollowed)
        if turn.unfollowed and not client.session.followed:
            client.idle_since = self._clock()
        self._push(client, turn.frames)

    def _resume(self, client: Client, command: Resume, followed: tuple[Subject, ...]) -> None:
        position = read_token(command.token)
        waiting = Waiting(command, position or Position(b"", {}), followed, self._clock())
        self._waiting[client] = waiting
        if position is None:
            self._resolve(client, waiting, Gap.INVALID)
        else:
            self._settle(client)
        if client in self._waiting:
            self.on_waiting()

    def _settle(self, client: Client) -> None:
        waiting = self._waiting[client]
        outcome = self.resuming.recover(waiting.position, client.session, asked_at=waiting.since)
        if outcome is not None:
            self._resolve(client, waiting, outcome)

    def _resolve(self, client: Client, waiting: Waiting, outcome: Recovery | Gap) -> None:
        del self._waiting[client]
        self.roster.follow(client, waiting.followed)
        self._metrics.resumes.labels(outcome if isinstance(outcome, Gap) else "recovered").inc()
        session, command = client.session, waiting.command
        if isinstance(outcome, Gap):
            self._push(client, session.resumed(command, outcome, token=self.cursor.token))
            return
        self._push(client, session.resumed(command, len(outcome.frames), token=None))
        self._push(client, outcome.frames)
        if outcome.token is not None:
            self._push(client, (position_notice(outcome.token), *session.beside(command, token=outcome.token)))

    def _advance(self, spot: Spot | None) -> None:
        if spot is not None:
            self.cursor.advance(spot)

    def _tell(self, body: Body, spot: Spot | None, known: Status | None, *, with_token: bool = True) -> None:
        """`with_token`: the last of what a record leads to. A token says that all of the record was sent."""
        subjects = body.who.subjects
        if spot is not None:
            self.memory.recent.append(spot, body, subjects)
        groups = [(subject, found) for subject in subjects if (found := self.roster.followers(subject))]
        if not groups:
            return
        now = self._clock()
        push = Push(body, self.cursor.token_for_push(now=now) if spot is not None and with_token else None)
        reached: set[Client] = set()
        for subject, followers in groups:
            for client, options in tuple(followers.items()):
                if client in reached:
                    continue
                if client.session.takes(body, subject, options, known):
                    self._put(client, push)
                    if push.token is not None:
                        client.token_at = now
                    if len(groups) > 1:
                        reached.add(client)

    def _tell_late(self, status: Status) -> None:
        """Text that came before its request was known goes to those of whom it was not known that it is for them."""
        run = self.memory.transcripts.get(status.who.request_id)
        if run is None:
            return
        run = DeltaRun(status.who, run.attempt, run.seq, run.last_seq, run.text)
        push = Push(run)
        for subject in status.who.subjects:
            for client, options in tuple(self.roster.followers(subject).items()):
                session = client.session
                if session.follows_late(subject, options) and session.takes(run, subject, options, status):
                    self._put(client, push)

    def _tell_lane(self, lane: Lane) -> None:
        self._notify(LANES, Notice(PUSH_START + encoded(lane) + PUSH_END, key=f"lane:{lane.provider}"))
        for place in self.memory.queue.refresh(lane, self.roster.followed_requests):
            followers = self.roster.followers(Subject("request", place.request_id))
            status = self.memory.board.get(place.request_id)
            if not followers or status is None:
                continue
            notice = Notice(queue_json(place), key=f"queue:{place.request_id}")
            for client in tuple(followers):
                if client.session.viewer is not None and client.session.viewer.may_see(status.who):
                    self._put(client, notice)

    def _notify(self, subject: Subject, notice: Notice) -> None:
        for client in tuple(self.roster.followers(subject)):
            self._put(client, notice)

    def _push(self, client: Client, frames: Iterable[Outgoing]) -> None:
        for frame in frames:
            if client.is_ending:
                return
            self._put(client, frame)
            if isinstance(frame, Close):
                client.is_ending = True

    def _put(self, client: Client, frame: Outgoing) -> None:
        if client.is_ending:
            return
        compaction = client.outbox.put(frame)
        if not client.is_dirty:
            client.is_dirty = True
            self._dirty.append(client)
            if len(self._dirty) == 1:
                self.on_dirty()
        if compaction is None:
            return
        self._metrics.statuses_compacted.inc(compaction.statuses_dropped)
        self._metrics.deltas_joined.inc(compaction.deltas_joined)
        if not compaction.fits:
            self.leave(client)
            client.peer.end(Close.SLOW_CLIENT)

    def _announced_limits(self) -> Limits:
        return Limits(
            subscriptions=self.limits.session.max_subscriptions,
            command_bytes=MAX_COMMAND_BYTES,
            commands_per_second=self.limits.commands_per_second,
        )


def _is_same_user(before: Viewer | None, after: Viewer) -> bool:
    return before is not None and (before.tenant_id, before.user_id) == (after.tenant_id, after.user_id)
