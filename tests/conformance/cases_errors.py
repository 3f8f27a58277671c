"""What a failed call tells, deadlines and cancelling."""

from __future__ import annotations

import pytest

from tests.conformance.cases import case
from tests.conformance.sdk import SdkError
from tests.conformance.world import Case


@case
async def a_refused_field_is_named_with_what_is_wrong(it: Case) -> None:
    user = await it.user()
    with pytest.raises(SdkError) as invalid:
        await user.do("remember", text="")
    error = invalid.value
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [v["field"] for v in error.violations] == ["memory.text"]
    assert error.violations[0]["description"]


@case
async def somebody_elses_thing_is_not_found(it: Case) -> None:
    owner, other = await it.user(), await it.user()
    memory = await owner.do("remember", text="Mine.")
    with pytest.raises(SdkError) as foreign:
        await other.do("forget", memory_id=memory["id"])
    assert (foreign.value.code, foreign.value.reason) == ("NOT_FOUND", "NOT_FOUND")
    assert foreign.value.metadata == {"type": "memory"}


@case
async def an_error_carries_the_trace_that_the_call_began(it: Case) -> None:
    user, door = await it.one_door()
    with pytest.raises(SdkError) as invalid:
        await user.do("remember", text="")
    sent = door.seen("Remember")[-1].metadata["traceparent"]
    version, trace, span, flags = sent.split("-")
    assert (version, len(span), flags) == ("00", 16, "01")
    assert trace == invalid.value.trace_id
    assert len(trace) == 32


@case
async def each_call_is_a_trace_of_its_own(it: Case) -> None:
    user, door = await it.one_door()
    for _ in range(2):
        await user.do("memories")
    first, second = (s.metadata["traceparent"].split("-")[1] for s in door.seen("ListMemories"))
    assert first != second


@case
async def a_deadline_reaches_the_mesh(it: Case) -> None:
    user, door = await it.one_door()
    await user.do("recall", query="tea", timeout_s=20)
    left_s = door.seen("Recall")[-1].time_left_s
    assert left_s is not None
    assert 0 < left_s < 21  # gRPC rounds it up on the way


@case
async def a_call_that_outlasts_its_deadline_fails_as_that(it: Case) -> None:
    user, door = await it.one_door()
    door.holds("Recall")
    with pytest.raises(SdkError) as late:
        await user.do("recall", query="tea", timeout_s=3)
    assert late.value.code == "DEADLINE_EXCEEDED"
    (sent,) = door.seen("Recall")
    assert late.value.trace_id == sent.metadata["traceparent"].split("-")[1]
    assert await user.do("recall", query="tea") == {"hits": [], "degraded": []}


@case
async def a_cancelled_call_ends_in_the_mesh_too(it: Case) -> None:
    user, door = await it.one_door()
    door.holds("Recall")
    call = user.begin("recall", query="tea", timeout_s=it.long_s)
    while not door.seen("Recall"):
        await user.do("memories")
    await call.cancel()
    with pytest.raises(SdkError) as cancelled:
        await call.result()
    assert cancelled.value.code == "CANCELLED"
    await it.until(door.seen("Recall")[0].cancelled, "the mesh was told")
