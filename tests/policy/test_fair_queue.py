"""A fair queue against a plain model: order, weights, turns, and what is counted."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policy.fair_queue import WEIGHTS, FairQueue
from schemas.vocabulary import Priority

Flow = tuple[str, str]

ROUND = sum(WEIGHTS.values())
priorities = st.sampled_from(Priority)
flows = st.tuples(st.sampled_from("abc"), st.sampled_from(["m1", "m2"]))


@dataclass(frozen=True)
class Item:
    """One thing that waits. Numbers grow in the order of arrival."""

    number: int
    priority: Priority
    flow: Flow
    size_bytes: int = 1


def anybody(_flow: Flow, _item: Item) -> bool:
    return True


def make_queue(*, max_items: int = 1_000, max_bytes: int = 1_000_000) -> FairQueue[Flow, Item]:
    return FairQueue(max_items=max_items, max_bytes=max_bytes)


def put(queue: FairQueue[Flow, Item], item: Item) -> None:
    queue.push(item, priority=item.priority, tenant_id=item.flow[0], flow=item.flow, size_bytes=item.size_bytes)


def take(queue: FairQueue[Flow, Item], count: int) -> list[Item]:
    taken = [queue.pop(anybody) for _ in range(count)]
    return [item for item in taken if item is not None]


class QueueMachine(RuleBasedStateMachine):
    """Random arrivals, admissions and removals. The model is one list in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_queue()
        self.waiting: list[Item] = []
        self.arrived = 0
        self.passed_over: Counter[Priority] = Counter()
        self.turns_passed: Counter[tuple[Priority, str]] = Counter()

    @rule(priority=priorities, flow=flows, size=st.integers(0, 50), count=st.integers(1, 8))
    def arrive(self, priority: Priority, flow: Flow, size: int, count: int) -> None:
        for _ in range(count):
            item = Item(self.arrived, priority, flow, size)
            self.arrived += 1
            self.waiting.append(item)
            put(self.queue, item)

    @rule(closed=st.sets(flows))
    def leave(self, closed: set[Flow]) -> None:
        asked: list[tuple[Priority, Flow]] = []

        def admit(flow: Flow, first: Item) -> bool:
            assert first.flow == flow
            asked.append((first.priority, flow))
            return flow not in closed

        able = [item for item in self.waiting if item.flow not in closed]
        item = self.queue.pop(admit)
        assert len(asked) == len(set(asked)), "a flow was asked twice for one item"
        if item is None:
            assert not able
            return
        assert item == next(w for w in self.waiting if (w.priority, w.flow) == (item.priority, item.flow))
        self.waiting.remove(item)
        self.note_who_waits(item, able)

    def note_who_waits(self, item: Item, able: list[Item]) -> None:
        """Between two turns of a priority that can go: one round of the others, and a tie with each of them. Between
        two of a tenant: one of each other tenant."""
        able_priorities = {other.priority for other in able}
        for priority in Priority:
            if priority == item.priority or priority not in able_priorities:
                self.passed_over[priority] = 0
            else:
                self.passed_over[priority] += 1
            assert self.passed_over[priority] <= ROUND - WEIGHTS[priority] + 2
        able_tenants = {other.flow[0] for other in able if other.priority == item.priority}
        for tenant in "abc":
            key = (item.priority, tenant)
            self.turns_passed[key] = (
                0 if tenant == item.flow[0] or tenant not in able_tenants else 1 + self.turns_passed[key]
            )
            assert self.turns_passed[key] <= 2

    @precondition(lambda self: self.waiting)
    @rule(flow=flows, odd=st.booleans())
    def purge(self, flow: Flow, odd: bool) -> None:
        def unwanted(item: Item) -> bool:
            return item.flow == flow and item.number % 2 == odd

        removed = self.queue.remove_if(unwanted)
        assert sorted(item.number for item in removed) == [item.number for item in self.waiting if unwanted(item)]
        self.waiting = [item for item in self.waiting if not unwanted(item)]

    @invariant()
    def everything_is_counted(self) -> None:
        assert len(self.queue) == len(self.waiting)
        for priority in Priority:
            held = [item.size_bytes for item in self.waiting if item.priority == priority]
            assert self.queue.count(priority) == len(held)
            assert self.queue.size_bytes(priority) == sum(held)

    def teardown(self) -> None:
        """Nothing is lost, nothing comes twice."""
        rest = take(self.queue, len(self.waiting) + 1)
        assert sorted(item.number for item in rest) == [item.number for item in self.waiting]


TestQueueMachine = QueueMachine.TestCase


@given(st.integers(0, 100), st.integers(1, 10))
def test_weights_hold_in_every_stretch_of_rounds_while_all_priorities_wait(start: int, rounds: int) -> None:
    queue = make_queue(max_items=10_000)
    total = start + rounds * ROUND
    for number in range(total):
        for priority in Priority:
            put(queue, Item(number, priority, ("a", "m")))
    order = [item.priority for item in take(queue, total)]
    assert Counter(order[start:]) == {priority: weight * rounds for priority, weight in WEIGHTS.items()}


@pytest.mark.parametrize("idle", [Priority.HIGH, Priority.LOW])
@pytest.mark.parametrize("turned_away", [True, False])
def test_time_without_service_is_no_credit(idle: Priority, turned_away: bool) -> None:
    """A priority that had nothing to do for long, or was not let in, does not keep the others waiting afterwards."""
    queue = make_queue(max_items=10_000)
    for number in range(1_200):
        put(queue, Item(number, Priority.NORMAL, ("a", "m")))
        if turned_away:
            put(queue, Item(number, idle, ("a", "other")))
    for _ in range(1_000):
        assert queue.pop(lambda flow, _: flow == ("a", "m")) is not None
    if not turned_away:
        for number in range(200):
            put(queue, Item(number, idle, ("a", "other")))
    order = Counter(item.priority for item in take(queue, 110))
    share = 110 * WEIGHTS[idle] / (WEIGHTS[idle] + WEIGHTS[Priority.NORMAL])
    assert abs(order[idle] - share) <= 2


def test_one_tenants_ten_thousand_delay_another_by_one() -> None:
    queue = make_queue(max_items=20_000)
    for number in range(10_000):
        put(queue, Item(number, Priority.NORMAL, ("a", f"m{number % 40}")))
    take(queue, 500)
    put(queue, Item(10_000, Priority.NORMAL, ("b", "m0")))
    assert [item.flow[0] for item in take(queue, 2)] == ["a", "b"]


def test_many_models_are_no_larger_share() -> None:
    queue = make_queue()
    for number in range(100):
        put(queue, Item(number, Priority.NORMAL, ("a", f"m{number % 10}")))
        put(queue, Item(number, Priority.NORMAL, ("b", "m0")))
    assert Counter(item.flow[0] for item in take(queue, 40)) == {"a": 20, "b": 20}


def test_a_flow_that_is_not_admitted_keeps_its_turn() -> None:
    queue = make_queue()
    for number, tenant in enumerate("aabbcc"):
        put(queue, Item(number, Priority.NORMAL, (tenant, "m")))
    closed_to_a = queue.pop(lambda flow, _: flow[0] != "a")
    assert closed_to_a is not None
    assert closed_to_a.flow[0] == "b"
    assert [item.flow[0] for item in take(queue, 5)] == ["a", "c", "b", "a", "c"]


@pytest.mark.parametrize(("sizes", "full_after"), [([1] * 5, 3), ([40, 70, 1], 2), ([500], 1)])
def test_each_priority_is_full_by_count_or_by_bytes(sizes: list[int], full_after: int) -> None:
    queue = make_queue(max_items=3, max_bytes=100)
    for number, size in enumerate(sizes[:full_after]):
        assert not queue.is_full(Priority.LOW)
        put(queue, Item(number, Priority.LOW, ("a", "m"), size))
    assert queue.is_full(Priority.LOW)
    assert not queue.is_full(Priority.HIGH)
    take(queue, 1)
    assert not queue.is_full(Priority.LOW)
