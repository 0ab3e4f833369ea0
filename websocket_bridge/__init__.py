"""Layer 5, the live view: statuses and tokens from Kafka to browsers, and the page that shows them.

May import schemas, and of connectors: settings, kafka, ops, logs. From the inside out:

    closing, commands, frames      words of the protocol `sluice.v1` (docs/websocket.md)
    board, transcripts, progress   what the bridge remembers; pure
    session, outbox                one client: what it follows, and what waits to be sent to it; pure
    hub                            all clients: who gets what; no I/O of its own
    feed, server                   the two shells: Kafka on one side, WebSockets and the page on the other
    bridge                         all of it together, as the command line runs it
"""
