"""What aiokafka repeats while a broker is away is said once a minute."""

import logging

from bridge_support import Clock

from websocket_bridge.kafka_log import REPEATED_AFTER_SECONDS, RepeatFilter


def line(name: str, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "file", 1, message, values, None)


def test_a_repeated_line_of_aiokafka_passes_once_a_minute() -> None:
    """By its wording, whatever the values; other lines and other programs are not held back."""
    clock = Clock()
    keep = RepeatFilter(clock=clock).filter
    lines = [line("aiokafka.client", "Unable connect to node with id %s", number) for number in range(5)]
    assert [keep(record) for record in lines] == [True, False, False, False, False]
    assert keep(line("aiokafka.client", "Topic %s is not available", "a"))
    assert [keep(line("websocket_bridge.feed", "bridge_lost_kafka")) for _ in range(3)] == [True] * 3
    clock.seconds += REPEATED_AFTER_SECONDS
    assert keep(lines[0])
