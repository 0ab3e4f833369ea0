"""The matrix in the docs says what the suite holds providers to, and leaves nothing out."""

import pytest

from tests.providers.contract.adapters import ADAPTERS, BY_TYPE, Adapter
from tests.providers.contract.cases import CASES
from tests.providers.contract.matrix import PATH, page


def test_the_committed_matrix_is_the_suite_s() -> None:
    """Whoever changes the contract changes the docs with it: `make matrix`."""
    assert PATH.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("adapter", ADAPTERS, ids=BY_TYPE)
def test_no_cell_is_empty(adapter: Adapter) -> None:
    """Each is a tested category, or says why it cannot be."""
    for case in CASES:
        assert adapter.expected(case, streamed=True) or adapter.cannot.get(case.name)


def test_every_row_of_the_matrix_is_full() -> None:
    """As it is printed."""
    rows = [line for line in page().splitlines() if line.startswith("| ") and line.count("|") == len(ADAPTERS) + 2]
    assert len([row for row in rows if not row.startswith("|  |")]) == len(CASES)
    for row in rows:
        assert all(cell.strip() for cell in row.split("|")[2:-1])
