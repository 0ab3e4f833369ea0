"""What workers before have ended alone: looked for in Kafka together, and never with an answer from before."""

import asyncio

from aiokafka.errors import KafkaConnectionError

from streams.own_claims import EndsOfOthers


async def test_looks_for_ends_of_others_are_shared_and_none_is_older_than_its_record() -> None:
    reading = asyncio.Event()
    looks = 0

    async def until_confirmed() -> None:
        nonlocal looks
        looks += 1
        await reading.wait()

    ends = EndsOfOthers(until_confirmed)
    assert not ends.are_known("before")
    await asyncio.sleep(0)  # that look has begun
    assert not any(ends.are_known(name) for name in ("meanwhile", "meanwhile too", "before"))
    reading.set()
    while not ends.are_known("before"):
        await asyncio.sleep(0)
    assert not ends.are_known("meanwhile")
    while not ends.are_known("meanwhile"):
        await asyncio.sleep(0)
    assert ends.are_known("meanwhile too")
    assert looks == 2
    await ends.close()


async def test_a_look_that_failed_is_made_again() -> None:
    answers = iter([KafkaConnectionError(), None])

    async def until_confirmed() -> None:
        error = next(answers)
        if error is not None:
            raise error

    ends = EndsOfOthers(until_confirmed)
    while not ends.are_known("r"):
        await asyncio.sleep(0)
    assert next(answers, "none left") == "none left"
