"""Layer 6, what people type and import: the command line, the Python client, the local stack. May import all below."""

__version__ = "0.1.0"
