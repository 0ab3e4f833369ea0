"""Layer 6, what people type and import: the command line, the Python client, the local stack. May import all below.

from sluice import Client, LLMRequest, Settings
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connectors.settings import Settings
    from schemas import LLMRequest, LLMResult
    from sluice.client import Client

__all__ = ["Client", "LLMRequest", "LLMResult", "Settings", "__version__"]
__version__ = "0.1.0"

_HOMES = {"Client": "sluice.client", "LLMRequest": "schemas", "LLMResult": "schemas", "Settings": "connectors.settings"}


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: `import sluice` alone stays light."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
