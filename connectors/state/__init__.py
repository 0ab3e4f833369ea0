"""Shared state of requests, behind one protocol (`base.StateStore`): in Redis, or in memory for tests."""
