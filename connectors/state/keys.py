"""Names of the keys in Redis.

    {<prefix>:<namespace>:<shard>}:request:<id>   hash: one request, see `lua/`; expires by itself
    {<prefix>:<namespace>:<shard>}:deadlines      sorted set: `<size in bytes>:<id>` of all that is counted, by deadline
    {<prefix>:<namespace>:<shard>}:load           hash: bytes counted, and whether admission is closed
    {<prefix>:<namespace>:<shard>}:born           when this store began to know of requests; 0: there was none before
    {<prefix>:<namespace>:<shard>}:restored       the birth after which ends were last read back from Kafka
    {<prefix>:<namespace>:<shard>}:run            the server's run after whose beginning Kafka was last read back
    {<prefix>:<namespace>:<shard>}:cancels        sorted set: cancellations of what has not come yet, by time
    {<prefix>:<namespace>:<shard>}:shared:<name>  hash: a value that workers share, and who wrote it; expires by itself

The braces are a hash tag: Redis Cluster keeps all keys of a shard on one node, so that a script may touch them
together. A deployment that grows past one node needs more shards; changing their number later makes the store forget
what it knows, so choose it at the start. Two deployments on one Redis differ in namespace (their topics' prefix).
An ACL user needs `~{<prefix>:*`.
"""

from zlib import crc32


class KeyLayout:
    """The keys of one deployment. Neither prefix nor namespace may contain a brace."""

    def __init__(self, *, prefix: str, namespace: str, shards: int = 1) -> None:
        self.shards = shards
        tags = [f"{{{prefix}:{namespace}:{shard}}}" for shard in range(shards)]
        self._request_prefixes = [f"{tag}:request:" for tag in tags]
        self._shared_prefixes = [f"{tag}:shared:" for tag in tags]
        self._counts = [(f"{tag}:load", f"{tag}:deadlines") for tag in tags]
        self._births = [(f"{tag}:born", f"{tag}:restored") for tag in tags]
        self._runs = [f"{tag}:run" for tag in tags]
        self._cancels = [f"{tag}:cancels" for tag in tags]

    def shard(self, request_id: str) -> int:
        return crc32(request_id.encode()) % self.shards if self.shards > 1 else 0

    def request(self, request_id: str) -> str:
        return self._request_prefixes[self.shard(request_id)] + request_id

    def shared(self, name: str) -> str:
        """The key of a value of `shared_values`."""
        return self._shared_prefixes[self.shard(name)] + name

    def counted_request(self, request_id: str) -> tuple[str, str, str]:
        """The request's key, and its shard's load and deadlines."""
        shard = self.shard(request_id)
        return (self._request_prefixes[shard] + request_id, *self._counts[shard])

    def arriving_request(self, request_id: str) -> tuple[str, ...]:
        """The request's key, and its shard's load, deadlines, birth, cancellations and restored birth."""
        shard = self.shard(request_id)
        born, restored = self._births[shard]
        return (*self.counted_request(request_id), born, self._cancels[shard], restored)

    def found_request(self, request_id: str) -> tuple[str, ...]:
        """The request's key, and its shard's load, deadlines and cancellations."""
        return (*self.counted_request(request_id), self._cancels[self.shard(request_id)])

    def proved_request(self, request_id: str) -> tuple[str, str, str]:
        """The request's key, and its shard's birth and restored birth."""
        shard = self.shard(request_id)
        return (self._request_prefixes[shard] + request_id, *self._births[shard])

    def births(self) -> list[tuple[str, str]]:
        """Birth, and birth that was restored, of each shard."""
        return self._births

    def runs(self) -> list[str]:
        """Run of the server that was last read back after, of each shard."""
        return self._runs

    def cancels(self) -> list[str]:
        """Cancellations of each shard."""
        return self._cancels

    def counts(self) -> list[tuple[str, str]]:
        """Load and deadlines of each shard."""
        return self._counts
