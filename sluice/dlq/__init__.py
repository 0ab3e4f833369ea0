"""Dead letters for operators: found in Kafka, shown, redriven and purged. What `sluice dlq` does without its words."""
