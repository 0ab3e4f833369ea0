"""Layer 2, decisions: pure functions and small state machines. May import schemas, and nothing that does I/O.

Clock and randomness are arguments; what is decided is returned, and a shell in `streams/` acts on it.
"""
