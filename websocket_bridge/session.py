"""The protocol `sluice.v1` for one client, without I/O: commands in, frames out.

A client's view is monotone: of a request it follows by id it is told no version older than, or equal to, one it was
told before, in whatever order events arrive. For a client that follows everything the board gives that guarantee, so
that such a client costs no memory per request.
"""

from dataclasses import dataclass

from websocket_bridge.board import Board
from websocket_bridge.closing import Close
from websocket_bridge.commands import CommandError, Ping, Subscribe, Unsubscribe, parse_command
from websocket_bridge.frames import DeltaRun, Frame, Status, answer, refusal, snapshots
from websocket_bridge.transcripts import Transcripts

MAX_COMMAND_BYTES = 64 * 1024
MAX_INVALID_COMMANDS_IN_A_ROW = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """What one client may ask for."""

    max_subscriptions: int
    allow_all: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What a command leads to: frames for the client, and the requests that it follows now, or no longer."""

    frames: tuple[Frame, ...]
    followed: tuple[str, ...] = ()
    unfollowed: tuple[str, ...] = ()


@dataclass(slots=True)
class _Told:
    """What a client was told of one request."""

    deltas: bool = False
    version: int = 0
    attempt: int = 0
    next_seq: int = 0


class Session:
    """One client. `receive` takes its commands; `on_status` and `on_delta` say whether a push is for it."""

    def __init__(self, *, board: Board, transcripts: Transcripts, limits: SessionLimits) -> None:
        self._board = board
        self._transcripts = transcripts
        self._limits = limits
        self._told: dict[str, _Told] = {}
        self._invalid_in_a_row = 0
        self.follows_all = False
        self._deltas_of_all = False

    @property
    def request_ids(self) -> tuple[str, ...]:
        """The requests that are followed by id."""
        return tuple(self._told)

    def receive(self, message: str | bytes) -> Turn:
        """Carries out a command, or says why not. Never raises, whatever the message."""
        if isinstance(message, bytes):
            return Turn(frames=(Close.NOT_TEXT,))
        if len(message) > MAX_COMMAND_BYTES:
            return Turn(frames=(Close.TOO_BIG,))
        command = parse_command(message)
        outcome = command if isinstance(command, CommandError) else self._carry_out(command)
        if isinstance(outcome, CommandError):
            return self._refuse(outcome)
        self._invalid_in_a_row = 0
        return outcome

    def on_status(self, status: Status) -> tuple[Frame, ...]:
        told = self._told.get(status.request_id)
        if told is None:
            return (status,) if self.follows_all else ()
        if status.version <= told.version:
            return ()
        told.version = status.version
        return (status,)

    def on_delta(self, run: DeltaRun) -> tuple[Frame, ...]:
        told = self._told.get(run.request_id)
        if told is None or not told.deltas:
            return (run,) if self._deltas_of_all else ()
        if (run.attempt, run.seq) < (told.attempt, told.next_seq):
            return ()
        told.attempt, told.next_seq = run.attempt, run.last_seq + 1
        return (run,)

    def _refuse(self, error: CommandError) -> Turn:
        self._invalid_in_a_row += 1
        if self._invalid_in_a_row >= MAX_INVALID_COMMANDS_IN_A_ROW:
            return Turn(frames=(refusal(error), Close.INVALID_COMMANDS))
        return Turn(frames=(refusal(error),))

    def _carry_out(self, command: Subscribe | Unsubscribe | Ping) -> Turn | CommandError:
        match command:
            case Ping():
                return Turn(frames=(answer(command.id, "pong"),))
            case Unsubscribe():
                return self._unsubscribe(command)
            case Subscribe(all=True):
                return self._subscribe_to_all(command)
            case Subscribe():
                return self._subscribe(command)

    def _subscribe_to_all(self, command: Subscribe) -> Turn | CommandError:
        if not self._limits.allow_all:
            return CommandError(
                code="all_refused",
                id=command.id,
                field="all",
                message="this bridge lets clients follow requests by id only (bridge.allow_all is off)",
            )
        self.follows_all = True
        self._deltas_of_all = command.deltas
        texts = self._transcripts.all() if command.deltas else []
        parts = snapshots([s for s in self._board.newest_first() if self._is_no_step_back(s)], texts, ())
        return Turn(frames=(self._subscribed(command), *parts))

    def _subscribe(self, command: Subscribe) -> Turn | CommandError:
        wanted = tuple(dict.fromkeys(command.request_ids))
        added = tuple(request_id for request_id in wanted if request_id not in self._told)
        if len(self._told) + len(added) > self._limits.max_subscriptions:
            return CommandError(
                code="too_many_subscriptions",
                id=command.id,
                field="request_ids",
                message=f"a connection follows at most {self._limits.max_subscriptions} requests by id",
            )
        statuses, texts, unknown = [], [], []
        for request_id in wanted:
            told = self._told.setdefault(request_id, _Told())
            told.deltas = command.deltas
            status = self._board.get(request_id)
            if status is None:
                unknown.append(request_id)
            elif self._is_no_step_back(status):
                told.version = status.version
                statuses.append(status)
            run = self._transcripts.get(request_id) if command.deltas else None
            if run is not None:
                told.attempt, told.next_seq = run.attempt, run.last_seq + 1
                texts.append(run)
        return Turn(frames=(self._subscribed(command), *snapshots(statuses, texts, unknown)), followed=added)

    def _unsubscribe(self, command: Unsubscribe) -> Turn:
        if command.all:
            removed: tuple[str, ...] = ()
            self.follows_all = self._deltas_of_all = False
        else:
            removed = tuple(r for r in dict.fromkeys(command.request_ids) if self._told.pop(r, None) is not None)
        done = answer(command.id, "unsubscribed", all=self.follows_all, subscriptions=len(self._told))
        return Turn(frames=(done,), unfollowed=removed)

    def _subscribed(self, command: Subscribe) -> Frame:
        return answer(command.id, "subscribed", all=self.follows_all, subscriptions=len(self._told))

    def _is_no_step_back(self, status: Status) -> bool:
        told = self._told.get(status.request_id)
        return told is None or status.version >= told.version
