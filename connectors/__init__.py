"""Layer 3, the outside: settings, Kafka, shared state, providers, logs and metrics. May import schemas, policy."""
