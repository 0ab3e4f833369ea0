"""How much work a user's JSON schema can ask for: a short one can refer to itself twice, level upon level."""

from collections.abc import Mapping
from typing import Any

MAX_EXPANDED_PARTS = 10_000


def expanded_parts(schema: Mapping[str, Any]) -> int:
    """Parts of the schema with each local reference written out, counting a reference in a circle once.

    Stops counting above `MAX_EXPANDED_PARTS`: validating an answer takes time in proportion to this.
    """
    sizes: dict[str, int] = {}
    return _count(schema, schema, sizes, frozenset())


def _count(node: Any, root: Mapping[str, Any], sizes: dict[str, int], open_references: frozenset[str]) -> int:
    total = 1
    if isinstance(node, Mapping):
        reference = node.get("$ref")
        if isinstance(reference, str):
            total += _referred(reference, root, sizes, open_references)
        # What stands under $defs costs only where it is referred to.
        children = [value for name, value in node.items() if name not in {"$defs", "definitions"}]
    elif isinstance(node, list):
        children = node
    else:
        return total
    for child in children:
        total += _count(child, root, sizes, open_references)
        if total > MAX_EXPANDED_PARTS:
            break
    return min(total, MAX_EXPANDED_PARTS + 1)


def _referred(reference: str, root: Mapping[str, Any], sizes: dict[str, int], open_references: frozenset[str]) -> int:
    if reference in open_references:
        return 1
    if reference not in sizes:
        target = _resolve(reference, root)
        sizes[reference] = 1 if target is None else _count(target, root, sizes, open_references | {reference})
    return sizes[reference]


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """A JSON pointer within the schema; None for anything else."""
    if not reference.startswith("#"):
        return None
    node: Any = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node
