"""Whole-system tests: real Kafka and Redis, roles as processes that can be killed."""
