"""The settings of the local Redis, the same whether a process or Docker runs it."""

# An outcome that is stored and not yet published must survive, or a provider is called and paid again: so an
# append-only file. Redis writes it before it replies, so a killed server loses nothing; `everysec` leaves at
# most a second to a loss of power, which a development machine may risk to save an fsync per call.
# noeviction with a bound: a full Redis refuses writes, it never forgets a claim.
REDIS_OPTIONS: tuple[str, ...] = (
    *("--appendonly", "yes"),
    *("--appendfsync", "everysec"),
    *("--save", ""),
    *("--maxmemory", "512mb"),
    *("--maxmemory-policy", "noeviction"),
)
