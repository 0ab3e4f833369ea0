"""The protocol `sluice.v1` for one client, without I/O: commands in, frames out.

A client's view is monotone: of a request it follows by id it is told no version older than, or equal to, one it was
told before, in whatever order events arrive. For a client that follows more than that the board gives that guarantee,
so that such a client costs no memory per request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from websocket_bridge.closing import Close
from websocket_bridge.commands import (
    Authenticate,
    Command,
    CommandError,
    CommandId,
    Ping,
    Refresh,
    Resume,
    Subscribe,
    Subscription,
    Unsubscribe,
    Where,
    parse_command,
)
from websocket_bridge.frames import Body, DeltaRun, Outgoing, Snapshot, Status, Summary, Void, answer, refusal
from websocket_bridge.memory import Memory
from websocket_bridge.messages import Gap
from websocket_bridge.picture import Picture, fits
from websocket_bridge.subjects import Options, Subject, options_of, subjects_of
from websocket_bridge.viewer import Viewer

MAX_COMMAND_BYTES = 64 * 1024
MAX_INVALID_COMMANDS_IN_A_ROW = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """What one client may ask for."""

    max_subscriptions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What a command leads to: frames, what the client follows now and no longer, and what only others can do.

    `ticket`: to be verified, and then `admit` or `turn_away`. `resume`: what was missed has to be looked up, and is
    answered with `resumed`.
    """

    frames: tuple[Outgoing, ...] = ()
    followed: tuple[Subject, ...] = ()
    unfollowed: tuple[Subject, ...] = ()
    ticket: Authenticate | Refresh | None = None
    resume: Resume | None = None


@dataclass(slots=True)
class _Told:
    """What a client was told of one request."""

    version: int = 0
    attempt: int = 0
    next_seq: int = 0
    summary_version: int = 0

    def take(self, body: Body) -> bool:
        """Whether something is newer than what was told; then it is what was told."""
        match body:
            case Status(version=version) if version > self.version:
                self.version = version
            case Summary(version=version) if version > self.summary_version:
                self.summary_version = version
            case DeltaRun() if (body.attempt, body.seq) >= (self.attempt, self.next_seq):
                self.attempt, self.next_seq = body.attempt, body.last_seq + 1
            case Void(superseded_by=attempt) if attempt > self.attempt:
                self.attempt, self.next_seq = attempt, 0
            case _:
                return False
        return True


class Session:
    """One client. `receive` takes its commands; `takes` says whether something that happened is for it."""

    __slots__ = ("_invalid_in_a_row", "_limits", "_memory", "_told", "followed", "viewer")

    def __init__(self, *, memory: Memory, limits: SessionLimits, viewer: Viewer | None) -> None:
        self._memory = memory
        self._limits = limits
        self._invalid_in_a_row = 0
        self._told: dict[str, _Told] | None = None
        self.followed: dict[Subject, Options] = {}
        self.viewer = viewer

    def receive(self, message: str | bytes, *, token: str | None = None) -> Turn:
        """Carries out a command, or says why not. Never raises, whatever the message. `token`: of this moment."""
        if isinstance(message, bytes):
            return Turn(frames=(Close.NOT_TEXT,))
        if len(message) > MAX_COMMAND_BYTES:
            return Turn(frames=(Close.TOO_BIG,))
        command = parse_command(message)
        if isinstance(command, CommandError):
            return self._refuse(command)
        outcome = self.carry_out(command, token=token)
        if isinstance(outcome, CommandError):
            return self._refuse(outcome)
        if outcome.ticket is None:
            self._invalid_in_a_row = 0
        return outcome

    def carry_out(self, command: Command, *, token: str | None = None) -> Turn | CommandError:
        """What a valid command leads to."""
        match command:
            case Ping():
                return Turn(frames=(answer(command.id, "pong"),))
            case Authenticate() | Refresh():
                return Turn(ticket=command)
        if self.viewer is None:
            return CommandError(code="unauthenticated", id=command.id, message="authenticate first")
        match command:
            case Unsubscribe():
                return self._unsubscribe(command)
            case Subscribe():
                return self._subscribe(command, self.viewer, token)
            case Resume():
                return self._resume(command, self.viewer)

    def admit(self, command: Authenticate | Refresh, viewer: Viewer) -> Turn:
        """The ticket of a command is good."""
        if self.viewer is not None and isinstance(command, Refresh) and not self.viewer.is_same(viewer):
            return self.turn_away(command, "the ticket is of another user, tenant or scope")
        if self.viewer is not None and isinstance(command, Authenticate) and self.followed:
            return self.turn_away(command, "authenticate before subscribing, or refresh")
        self._invalid_in_a_row = 0
        self.viewer = viewer
        kind = "refreshed" if isinstance(command, Refresh) else "authenticated"
        return Turn(frames=(answer(command.id, kind, viewer=viewer.info.model_dump(mode="json")),))

    def turn_away(self, command: Authenticate | Refresh, reason: str | None) -> Turn:
        """The ticket of a command is not good, for a reason; or nobody knows at the moment."""
        if reason is None:
            message = "the keys of tickets cannot be fetched at the moment: try again"
            error = CommandError(code="tickets_unavailable", id=command.id, field="ticket", message=message)
            return Turn(frames=(refusal(error),))
        return self._refuse(CommandError(code="bad_ticket", id=command.id, field="ticket", message=reason))

    def resumed(self, command: Resume, outcome: int | Gap, *, token: str | None) -> tuple[Outgoing, ...]:
        """The answer to a resume: so many events are recovered, or a gap. And the snapshot that goes with it."""
        gap = None if isinstance(outcome, int) else outcome
        said = answer(
            command.id,
            "resumed",
            recovered=gap is None,
            events=outcome if isinstance(outcome, int) else 0,
            gap=gap,
            subscriptions=len(self.followed),
        )
        if gap is None or self.viewer is None:
            return (said,)
        return (said, *self._snapshot(command.subscriptions, self.viewer, token))

    def beside(self, command: Resume, *, token: str) -> tuple[Outgoing, ...]:
        """For a resume that was recovered: what is not replayed (lanes and the like)."""
        if self.viewer is None:
            return ()
        return tuple(self._picture(command.subscriptions, self.viewer).side_frames(token=token))

    def takes(self, body: Body, subject: Subject, options: Options, known: Status | None) -> bool:
        """Whether something that happened is for this client, by one of the subjects that it follows.

        `known` is the request's status of before, for a `Status`; else its newest.
        """
        viewer = self.viewer
        if viewer is None or not (viewer.sees_all or viewer.may_see(body.who)):
            return False
        if isinstance(body, DeltaRun | Void) and not options.deltas:
            return False
        if options.where is not None and not _fits(options.where, body, known):
            return False
        return subject.kind != "request" or self._is_news(body)

    def follows_late(self, subject: Subject, options: Options) -> bool:
        """Whether deltas by this subject could not be told before the request's first status was known."""
        if not options.deltas or self.viewer is None:
            return False
        return subject.kind in {"user", "correlation"} or options.where is not None or not self.viewer.sees_all

    def _is_news(self, body: Body) -> bool:
        if self._told is None:
            self._told = {}
        told = self._told.get(body.who.request_id)
        if told is None:
            told = self._told[body.who.request_id] = _Told()
        return told.take(body)

    def _refuse(self, error: CommandError) -> Turn:
        self._invalid_in_a_row += 1
        if self._invalid_in_a_row >= MAX_INVALID_COMMANDS_IN_A_ROW:
            return Turn(frames=(refusal(error), Close.INVALID_COMMANDS))
        return Turn(frames=(refusal(error),))

    def _subscribe(self, command: Subscribe, viewer: Viewer, token: str | None) -> Turn | CommandError:
        error = self._follow((command,), command.id, viewer)
        if error is not None:
            return error
        said = answer(command.id, "subscribed", subscriptions=len(self.followed))
        return Turn(frames=(said, *self._snapshot((command,), viewer, token)), followed=subjects_of(command))

    def _resume(self, command: Resume, viewer: Viewer) -> Turn | CommandError:
        error = self._follow(command.subscriptions, command.id, viewer)
        if error is not None:
            return error
        followed = dict.fromkeys(subject for sub in command.subscriptions for subject in subjects_of(sub))
        return Turn(followed=tuple(followed), resume=command)

    def _follow(
        self, subscriptions: Sequence[Subscription], command_id: CommandId, viewer: Viewer
    ) -> CommandError | None:
        wanted: dict[Subject, Options] = {}
        for subscription in subscriptions:
            field = viewer.refused_field(subscription)
            if field is not None:
                message = f"is outside of what the scope {viewer.scope} may follow"
                return CommandError(code="forbidden", id=command_id, field=field, message=message)
            options = options_of(deltas=subscription.deltas, where=subscription.where)
            wanted |= dict.fromkeys(subjects_of(subscription), options)
        if len(self.followed.keys() | wanted.keys()) > self._limits.max_subscriptions:
            message = f"a connection follows at most {self._limits.max_subscriptions}"
            return CommandError(code="too_many_subscriptions", id=command_id, field="request_ids", message=message)
        self.followed |= wanted
        return None

    def _unsubscribe(self, command: Unsubscribe) -> Turn:
        removed = tuple(subject for subject in subjects_of(command) if self.followed.pop(subject, None) is not None)
        for subject in removed:
            if subject.kind == "request" and self._told is not None:
                self._told.pop(subject.value, None)
        done = answer(command.id, "unsubscribed", subscriptions=len(self.followed))
        return Turn(frames=(done,), unfollowed=removed)

    def _picture(self, subscriptions: Sequence[Subscription], viewer: Viewer) -> Picture:
        shown = Picture(self._memory, viewer, self._is_old)
        for subscription in subscriptions:
            shown.add(subscription)
        return shown

    def _snapshot(self, subscriptions: Sequence[Subscription], viewer: Viewer, token: str | None) -> list[Snapshot]:
        frames = list(self._picture(subscriptions, viewer).frames(token=token))
        for frame in frames:
            bodies: tuple[Body, ...] = (*frame.parts.statuses, *frame.parts.summaries, *frame.parts.texts)
            for body in bodies:
                if Subject("request", body.who.request_id) in self.followed:
                    self._is_news(body)
        return frames

    def _is_old(self, status: Status) -> bool:
        told = self._told.get(status.who.request_id) if self._told is not None else None
        return told is not None and status.version < told.version


def _fits(where: Where, body: Body, known: Status | None) -> bool:
    """Whether a filter lets something through: what fits, and what has just left the filter."""
    if isinstance(body, Status) and fits(where, body):
        return True
    return known is not None and fits(where, known)
