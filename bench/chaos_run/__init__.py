"""The parts of `bench/chaos.py`: a system of many processes under load, what happens to it, and who judges it.

    load.py               what is sent, drawn from a seed
    provider.py           a provider in a process of its own, with a journal; `network.py`: the way to it
    system.py             Kafka, Redis, providers and the roles, and how each is killed
    faults.py             what befalls them, one a round
    rounds.py             sends, disturbs, waits for the end
    evidence.py           what was left behind: topics and journals, read without Sluice's own models and codecs
    logs.py               that, as plain values
    checker.py            judges it. Pure, and imports nothing else of ours
    report.py             says so

The checker shares no code with what it checks. `tests/bench/test_chaos_checker.py` shows it logs with each fault in
turn.
"""
