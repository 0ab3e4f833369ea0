"""Shared state of requests, behind one protocol (`store.StateStore`): in Redis, or in memory for tests."""
