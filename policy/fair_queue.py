"""Which waiting item goes next: priorities by weight, tenants in turn, first in first out within a flow.

Between priorities: stride scheduling (Waldspurger and Weihl, 1995). Each has a pass, which grows by its stride when it
is served, and the lowest pass goes first; a stride is the inverse of a weight. Served about once in twelve, `low`
cannot starve. Within a priority tenants take turns, and within a tenant its flows: a tenant with many models gets no
larger share than one with a single model.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from math import lcm
from typing import Generic, TypeVar

from schemas.vocabulary import Priority

WEIGHTS: Mapping[Priority, int] = {Priority.HIGH: 8, Priority.NORMAL: 3, Priority.LOW: 1}

F = TypeVar("F", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    item: T
    size_bytes: int


@dataclass(slots=True)
class _Class(Generic[F, T]):
    """One priority. Tenants and flows stand in the order of their turns; an empty one is left out."""

    stride: int
    next_pass: int = 0
    count: int = 0
    size_bytes: int = 0
    tenants: OrderedDict[str, OrderedDict[F, deque[_Waiting[T]]]] = field(default_factory=OrderedDict)

    def push(self, waiting: _Waiting[T], tenant_id: str, flow: F) -> None:
        flows = self.tenants.setdefault(tenant_id, OrderedDict())
        flows.setdefault(flow, deque()).append(waiting)
        self.count += 1
        self.size_bytes += waiting.size_bytes

    def pop(self, admit: Callable[[F, T], bool]) -> T | None:
        for tenant_id, flows in self.tenants.items():
            for flow, items in flows.items():
                if admit(flow, items[0].item):
                    return self._take(tenant_id, flow)
        return None

    def _take(self, tenant_id: str, flow: F) -> T:
        flows = self.tenants[tenant_id]
        waiting = flows[flow].popleft()
        if flows[flow]:
            flows.move_to_end(flow)
        else:
            del flows[flow]
        if flows:
            self.tenants.move_to_end(tenant_id)
        else:
            del self.tenants[tenant_id]
        self.count -= 1
        self.size_bytes -= waiting.size_bytes
        return waiting.item

    def remove_if(self, unwanted: Callable[[T], bool]) -> list[T]:
        removed = []
        for tenant_id, flows in list(self.tenants.items()):
            for flow, items in list(flows.items()):
                kept: deque[_Waiting[T]] = deque()
                gone: list[_Waiting[T]] = []
                for waiting in items:
                    (gone if unwanted(waiting.item) else kept).append(waiting)
                if kept:
                    flows[flow] = kept
                else:
                    del flows[flow]
                self.count -= len(gone)
                self.size_bytes -= sum(waiting.size_bytes for waiting in gone)
                removed += [waiting.item for waiting in gone]
            if not flows:
                del self.tenants[tenant_id]
        return removed


class FairQueue(Generic[F, T]):
    """Items of flows `F`, each flow of one tenant. A flow may stand in several priorities; it is one in each.

    It refuses nothing: whoever pushes asks `is_full` first. What is over the bound is then one item at most.
    """

    def __init__(self, *, max_items: int, max_bytes: int, weights: Mapping[Priority, int] = WEIGHTS) -> None:
        """The bounds hold for each priority by itself. Weights are whole numbers from 1."""
        round_length = lcm(*weights.values())
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._classes: dict[Priority, _Class[F, T]] = {
            # Heaviest first: it goes first where passes are equal.
            priority: _Class(stride=round_length // weight)
            for priority, weight in sorted(weights.items(), key=lambda pair: -pair[1])
        }

    def __len__(self) -> int:
        return sum(entry.count for entry in self._classes.values())

    def count(self, priority: Priority) -> int:
        return self._classes[priority].count

    def size_bytes(self, priority: Priority) -> int:
        return self._classes[priority].size_bytes

    def is_full(self, priority: Priority) -> bool:
        entry = self._classes[priority]
        return entry.count >= self._max_items or entry.size_bytes >= self._max_bytes

    def push(self, item: T, *, priority: Priority, tenant_id: str, flow: F, size_bytes: int) -> None:
        """Puts an item last in its flow. A flow that was empty comes after the other flows of its priority."""
        self._classes[priority].push(_Waiting(item, size_bytes), tenant_id, flow)

    def pop(self, admit: Callable[[F, T], bool]) -> T | None:
        """The next item whose flow is admitted, or None.

        `admit` is asked with a flow and the first item of it, at most once for each flow of a priority, and whatever it
        says yes to is taken out. A flow that is passed over keeps its turn.
        """
        for entry in sorted(self._classes.values(), key=lambda entry: entry.next_pass):
            if not entry.count:
                continue
            due = entry.next_pass
            item = entry.pop(admit)
            if item is None:
                continue
            entry.next_pass += entry.stride
            for other in self._classes.values():
                # To have been empty, or turned away, is no credit: it would keep the others waiting later.
                other.next_pass = max(other.next_pass, due)
            return item
        return None

    def remove_if(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Takes out all items of which `unwanted` is true, and returns them. The others keep their order."""
        return [item for entry in self._classes.values() for item in entry.remove_if(unwanted)]
