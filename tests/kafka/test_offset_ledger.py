"""Which offsets may be committed, whatever the order in which work finishes."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from connectors.kafka.offsets import OffsetLedger

P = "topic-0"


def deliver(ledger: OffsetLedger[str], offsets: range) -> dict[int, object]:
    tokens = {offset: object() for offset in offsets}
    for offset, token in tokens.items():
        ledger.delivered(P, offset, token)
    return tokens


def test_a_fresh_group_with_its_first_record_in_flight_commits_nothing_beyond_it() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    tokens = deliver(ledger, range(20))
    for offset in range(1, 20):
        ledger.acknowledged(P, offset, tokens[offset])
    assert ledger.committable() == {P: 0}


def test_two_slow_records_hold_the_commit_at_the_first_of_them() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    tokens = deliver(ledger, range(20))
    for offset in set(range(20)) - {7, 9}:
        ledger.acknowledged(P, offset, tokens[offset])
    assert ledger.committable() == {P: 7}


def test_when_all_is_done_the_next_offset_is_committed_and_only_once() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    for offset, token in deliver(ledger, range(20)).items():
        ledger.acknowledged(P, offset, token)
    assert ledger.committable() == {P: 20}
    ledger.committed({P: 20})
    assert ledger.committable() == {}


def test_offsets_that_compaction_removed_hold_nothing_up() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    for offset in (3, 9, 40):
        token = object()
        ledger.delivered(P, offset, token)
        ledger.acknowledged(P, offset, token)
    assert ledger.committable() == {P: 41}


def test_what_is_not_done_is_in_flight_or_not_delivered_yet() -> None:
    """Whatever of it is committed: commits come later. Of a partition that gave nothing so far nobody knows."""
    ledger: OffsetLedger[str] = OffsetLedger()
    assert ledger.unfinished(P, 10) is None
    tokens = deliver(ledger, range(5, 15))
    assert ledger.unfinished(P, 20) == 15
    for offset in (5, 6, 9):
        ledger.acknowledged(P, offset, tokens[offset])
    assert ledger.unfinished(P, 20) == 12
    assert ledger.unfinished(P, 12) == 7


def test_an_acknowledgement_of_an_earlier_delivery_counts_for_nothing() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    (before,) = deliver(ledger, range(1)).values()
    ledger.forget([P])
    deliver(ledger, range(1))
    assert not ledger.acknowledged(P, 0, before)
    assert ledger.committable() == {P: 0}


def test_a_commit_that_failed_is_offered_again() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    for offset, token in deliver(ledger, range(3)).items():
        ledger.acknowledged(P, offset, token)
    assert ledger.committable() == ledger.committable() == {P: 3}


@given(st.permutations(range(12)), st.integers(0, 12))
def test_nothing_unfinished_is_ever_below_the_committable_offset(order: list[int], finished: int) -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    tokens = deliver(ledger, range(12))
    for offset in order[:finished]:
        ledger.acknowledged(P, offset, tokens[offset])
    unfinished = order[finished:]
    assert ledger.committable()[P] == min(unfinished, default=12)


class LedgerMachine(RuleBasedStateMachine):
    """A consumer's life: deliveries, acknowledgements, commits that fail or not, rebalances that rewind."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: OffsetLedger[str] = OffsetLedger()
        self.committed = 0
        self.position = 0
        self.done: set[int] = set()
        self.running: list[tuple[int, object]] = []

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        for _ in range(count):
            token = object()
            self.ledger.delivered(P, self.position, token)
            self.running.append((self.position, token))
            self.position += 1

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.running))
        self.running.remove(chosen)
        self.done.add(chosen[0])
        self.ledger.acknowledged(P, *chosen)

    @rule(succeeds=st.booleans())
    def commit(self, succeeds: bool) -> None:
        offsets = self.ledger.committable()
        if offsets and succeeds:
            self.committed = offsets[P]
            self.ledger.committed(offsets)

    @rule()
    def rebalance(self) -> None:
        self.ledger.forget([P])
        self.position = self.committed

    @invariant()
    def nothing_undone_is_committed(self) -> None:
        assert set(range(self.committed)) <= self.done


TestLedgerMachine = LedgerMachine.TestCase
