"""The parts of `bench.fanout`: three ways of an event, each with listeners in a process of its own.

    floor    a bare `websockets` server that makes its events itself -> clients
    hop      our producer -> Kafka -> a plain aiokafka consumer
    bridge   our producer -> Kafka -> the bridge -> clients

All three stand at the same time, with as many connections, and take turns in short blocks: what else the machine does
hits all of them. An event carries the moment at which it was made, on the one monotonic clock of the machine; for hop
and bridge that is before it is encoded and sent. Listeners note when they have it.

`child` is how the processes talk, `ears` what listeners note, `sockets` and `hop` are listeners, `floor` is the bare
server, `ways` the three ways, `measure` the blocks, `report` what comes of them.
"""
