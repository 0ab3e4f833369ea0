"""Layer 5, the live view: states, tokens and results from Kafka to browsers, and the page that shows them.

May import schemas, and of connectors: settings, kafka, tls, ops, logs. From the inside out:

    closing, commands, messages    words of the protocol `sluice.v1` (docs/websocket.md, generate_schema)
    subjects, viewer, frames       what can be followed, by whom, and what is sent of it
    position, cursor, recent       where in Kafka a client is, where the bridge is, and what happened last
    board, transcripts, lanes, queue_places, memory, progress    what the bridge remembers; pure
    picture, session, resuming, outbox, pace    one client: its snapshot, what it follows, what it missed; pure
    roster, hub                    all clients: who gets what; no I/O of its own
    tickets, access, reception     who may come in
    feed, read_back                the shell towards Kafka
    connection, event_stream, server, assets    the shell towards the network
    bridge, role                   all of it together, as the command line runs it
"""
