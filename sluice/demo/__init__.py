"""The demo: all pairs of a dozen essays compared through a real Kafka, ranked by wins."""
