"""What is remembered of a user."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.conformance.cases import case
from tests.conformance.sdk import SdkError
from tests.conformance.world import Case

WHEN = "2025-03-04T05:06:07+00:00"


@case
async def what_is_remembered_comes_back_as_it_was(it: Case) -> None:
    """Text of any script, speaker, time and metadata."""
    user = await it.user()
    text = "Мій кіт – 猫 🐈 – sleeps on the radiator."
    given = {"text": text, "speaker": "Zoë", "time": WHEN, "metadata": {"Schlüssel": "wert ✓"}}
    kept = await user.do("remember", **given)
    (found,) = await user.do("memories")
    assert found == kept
    assert (found["text"], found["speaker"], found["metadata"]) == (text, "Zoë", given["metadata"])
    assert datetime.fromisoformat(found["time"]) == datetime.fromisoformat(WHEN)
    assert (found["version"], found["kind"]) == (1, "fact")


@case
async def what_is_remembered_is_recalled_at_once(it: Case) -> None:
    user = await it.user()
    await user.do("remember", text="My locker code is 4417.")
    kept = await user.do("remember", text="The bicycle is chained to the blue fence.")
    result = await user.do("recall", query="Where is my bicycle?")
    best = result["hits"][0]
    assert best["memory"]["id"] == kept["id"]
    assert best["score"] > 0
    assert best["scores"]["keyword"] > 0


@case
async def recall_is_narrowed_by_time_speaker_and_limit(it: Case) -> None:
    user = await it.user()
    for year, speaker in ((2023, "Ann"), (2024, "Ann"), (2025, "Ben"), (2025, "Ann")):
        text = f"{speaker} sailed the boat in {year}."
        await user.do("remember", text=text, speaker=speaker, time=f"{year}-06-01T00:00:00+00:00")
    narrow = {"since": "2024-01-01T00:00:00+00:00", "until": "2025-12-31T00:00:00+00:00"}
    hits = (await user.do("recall", query="boat", speaker="Ann", **narrow))["hits"]
    assert sorted(h["memory"]["text"][-5:] for h in hits) == ["2024.", "2025."]
    assert len((await user.do("recall", query="boat", limit=3))["hits"]) == 3


@case
async def recall_is_narrowed_by_metadata(it: Case) -> None:
    user = await it.user()
    kept = await user.do("remember", text="Tea at noon.", metadata={"source": "diary"})
    await user.do("remember", text="Tea at four.", metadata={"source": "letter"})
    hits = (await user.do("recall", query="tea", metadata={"source": "diary"}))["hits"]
    assert [h["memory"]["id"] for h in hits] == [kept["id"]]


@case
async def a_correction_is_recalled_in_place_of_what_it_corrects(it: Case) -> None:
    user = await it.user()
    memory = await user.do("remember", text="My sister is called Lena.")
    corrected = await user.do("correct", memory_id=memory["id"], text="My sister is called Lea.")
    assert (corrected["id"], corrected["version"]) == (memory["id"], 2)
    hits = (await user.do("recall", query="sister"))["hits"]
    assert [h["memory"]["text"] for h in hits] == ["My sister is called Lea."]


@case
async def the_same_request_id_corrects_once(it: Case) -> None:
    user = await it.user()
    memory = await user.do("remember", text="My sister is called Lena.")
    more = {"memory_id": memory["id"], "text": "My sister is called Lea.", "request_id": "lea"}
    first = await user.do("correct", **more)
    assert await user.do("correct", **more) == first
    assert first["version"] == 2


@case
async def what_is_forgotten_is_gone(it: Case) -> None:
    user = await it.user()
    memory = await user.do("remember", text="A secret.")
    await user.do("forget", memory_id=memory["id"])
    assert await user.do("memories") == []
    with pytest.raises(SdkError) as gone:
        await user.do("correct", memory_id=memory["id"], text="A secret again.")
    assert gone.value.reason == "NOT_FOUND"


@case
async def the_same_request_id_is_remembered_once(it: Case) -> None:
    user = await it.user()
    first = await user.do("remember", text="I like tea.", request_id="tea")
    again = await user.do("remember", text="I like tea.", request_id="tea")
    assert again["id"] == first["id"]
    assert len(await user.do("memories")) == 1


@case
async def the_same_request_id_for_something_else_is_refused(it: Case) -> None:
    user = await it.user()
    await user.do("remember", text="I like tea.", request_id="tea")
    with pytest.raises(SdkError) as reused:
        await user.do("remember", text="I like coffee.", request_id="tea")
    assert (reused.value.code, reused.value.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


@case
async def the_index_status_counts_the_users_memories(it: Case) -> None:
    user = await it.user()
    for number in range(3):
        await user.do("remember", text=f"Fact number {number}.")
    status = await user.do("index_status")
    assert status["memories"] == 3
    assert 0 <= status["pending"] <= 3
