"""Kafka: the producer that waits for acknowledgement, the consumer that commits only what is done, client options."""
