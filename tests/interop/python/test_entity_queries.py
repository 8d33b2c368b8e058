"""Listing, cleaning and purging entities."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
from durabletask import task
from durabletask.client import CleanEntityStorageResult, EntityQuery, OrchestrationQuery
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import Gates, Program, Sdk, Status, eventually, refused, unique

program = Program()
gates = Gates()


@program.entity
class Shelf(DurableEntity):
    def put(self, article):
        self.set_state(article)

    def clear(self):
        self.set_state(None)

    def hold(self):
        gates[self.entity_context.entity_id.key].pass_through()


@program.entity
class Shelving(Shelf):
    """Its name begins like the other's."""


@program.orchestrator
def hold_lock(context: task.OrchestrationContext, key):
    with (yield context.lock_entities([EntityInstanceId("shelf", key)])):
        yield context.wait_for_external_event("leave")


COUNT = 105
"""More than the default page."""


class Shelves:
    """`COUNT` entities whose keys begin with `prefix`, in the order of their ids."""

    def __init__(self, sdk: Sdk):
        self.prefix = unique("S")
        self.ids = [EntityInstanceId("shelf", f"{self.prefix}-{number:03}") for number in range(COUNT)]
        # Put last to first, so that the order of ids is not the order of arrival.
        for number, shelf in reversed(list(enumerate(self.ids))):
            sdk.client.signal_entity(shelf, "put", number)
        for number, shelf in enumerate(self.ids):
            sdk.until_entity_state(shelf, number)

    def query(self, **fields: Any) -> EntityQuery:
        return EntityQuery(instance_id_starts_with=f"@shelf@{self.prefix}-", **fields)


@pytest.fixture(scope="module")
def shelves(sdk: Sdk) -> Shelves:
    return Shelves(sdk)


def found(sdk: Sdk, query: EntityQuery) -> list[EntityInstanceId]:
    return [metadata.id for metadata in sdk.client.get_all_entities(query)]


def named(ids: list[EntityInstanceId]) -> list[str]:
    return [str(each) for each in ids]


def pages(sdk: Sdk, prefix: str, *sizes: int | None) -> list[tuple[list[str], bool]]:
    """Each page's ids and whether a token came with it, by `sizes`, the last of which goes on to the end."""
    walked: list[tuple[list[str], bool]] = []
    query = pb.EntityQuery(instanceIdStartsWith=StringValue(value=prefix))
    with sdk.stub() as (stub, metadata):
        while True:
            size = sizes[min(len(walked), len(sizes) - 1)]
            query.ClearField("pageSize")
            if size is not None:
                query.pageSize.CopyFrom(Int32Value(value=size))
            answer = stub.QueryEntities(pb.QueryEntitiesRequest(query=query), metadata=metadata)
            more = answer.HasField("continuationToken")
            walked.append(([each.instanceId for each in answer.entities], more))
            if not more:
                return walked
            assert answer.continuationToken.value, "S-11.12: an empty token makes clients ask for ever"
            query.continuationToken.CopyFrom(answer.continuationToken)


def test_entities_come_in_the_order_of_their_ids_with_their_states(sdk: Sdk, shelves: Shelves):
    """S-12.39, S-0.6."""
    listed = sdk.client.get_all_entities(shelves.query())
    assert [each.id for each in listed] == shelves.ids
    assert [each.get_typed_state() for each in listed] == list(range(COUNT))
    assert {each.backlog_queue_size for each in listed} == {0}


def test_states_are_left_out_unless_asked_for(sdk: Sdk, shelves: Shelves):
    """S-12.39."""
    listed = sdk.client.get_all_entities(shelves.query(include_state=False))
    assert [each.id for each in listed] == shelves.ids
    assert {each.includes_state for each in listed} == {False}
    with sdk.stub() as (stub, metadata):
        prefix = StringValue(value=f"@shelf@{shelves.prefix}-00")
        for asked in (False, True):
            query = pb.EntityQuery(instanceIdStartsWith=prefix, includeState=asked)
            answer = stub.QueryEntities(pb.QueryEntitiesRequest(query=query), metadata=metadata)
            assert len(answer.entities) == 10
            assert {each.HasField("serializedState") for each in answer.entities} == {asked}
            assert all(each.HasField("lastModifiedTime") for each in answer.entities)


@pytest.mark.parametrize("written", ["@shelf@{}-", "shelf@{}-", "@SHELF@{}-", "Shelf@{}-"])
def test_a_prefix_may_lack_the_at_sign_and_write_the_name_in_any_case(sdk: Sdk, shelves: Shelves, written: str):
    """S-12.39, S-12.2, S-17.2."""
    query = EntityQuery(instance_id_starts_with=written.format(shelves.prefix))
    assert found(sdk, query) == shelves.ids


def test_a_prefix_ends_anywhere_in_the_name_or_key(sdk: Sdk, shelves: Shelves):
    """S-12.39: up to the second at sign it is a name, and that ignores case."""
    relative = EntityInstanceId("shelving", unique())
    sdk.client.signal_entity(relative, "put", 1)
    sdk.until_entity_state(relative, 1)
    for prefix, both in [("@SHEL", True), ("shelv", None), ("@shelf", False), ("@Shelf@", False)]:
        ids = named(found(sdk, EntityQuery(instance_id_starts_with=prefix)))
        assert ids == sorted(ids)
        assert (str(relative) in ids) == (both is not False)
        assert (set(named(shelves.ids)) <= set(ids)) == (both is not None)
    tens = EntityQuery(instance_id_starts_with=f"@shelf@{shelves.prefix}-01")
    assert found(sdk, tens) == shelves.ids[10:20]
    single = EntityQuery(instance_id_starts_with=str(shelves.ids[7]))
    assert found(sdk, single) == [shelves.ids[7]]


def test_the_key_part_of_a_prefix_respects_case(sdk: Sdk, shelves: Shelves):
    """S-12.39, S-12.2."""
    assert found(sdk, EntityQuery(instance_id_starts_with=f"@shelf@{shelves.prefix.lower()}")) == []


def test_without_a_prefix_all_entities_are_listed(sdk: Sdk, shelves: Shelves):
    """S-12.39: the empty one is none."""
    for query in (None, EntityQuery(), EntityQuery(instance_id_starts_with="")):
        ids = named(found(sdk, query))
        assert set(named(shelves.ids)) <= set(ids)
        assert ids == sorted(set(ids))


@pytest.mark.parametrize("size", [1, 10, 35, 1000])
def test_pages_of_any_size_add_up(sdk: Sdk, shelves: Shelves, size: int):
    """S-12.39."""
    assert found(sdk, shelves.query(page_size=size)) == shelves.ids


def test_a_page_is_full_unless_it_is_the_last_which_carries_no_token(sdk: Sdk, shelves: Shelves):
    """S-11.10, S-11.12, S-12.39: also where the last page is a full one."""
    ids, prefix = named(shelves.ids), f"@shelf@{shelves.prefix}-"
    assert pages(sdk, prefix, 40) == [(ids[:40], True), (ids[40:80], True), (ids[80:], False)]
    assert pages(sdk, prefix, 35) == [(ids[:35], True), (ids[35:70], True), (ids[70:], False)]
    assert pages(sdk, prefix, 105) == [(ids, False)]


def test_a_page_holds_a_hundred_unless_told_otherwise(sdk: Sdk, shelves: Shelves):
    """S-12.39."""
    ids = named(shelves.ids)
    assert pages(sdk, f"@shelf@{shelves.prefix}-", None) == [(ids[:100], True), (ids[100:], False)]


def test_paging_goes_on_with_another_page_size(sdk: Sdk, shelves: Shelves):
    """S-11.12: a token holds nothing but the position."""
    ids = named(shelves.ids)
    assert pages(sdk, f"@SHELF@{shelves.prefix}-", 5, 60) == [
        (ids[:5], True),
        (ids[5:65], True),
        (ids[65:], False),
    ]


def test_a_token_that_is_none_is_refused(sdk: Sdk):
    """S-11.12, S-12.39: an empty one counts as none."""
    with sdk.stub() as (stub, metadata):
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            query = pb.EntityQuery(continuationToken=StringValue(value="garbage"))
            stub.QueryEntities(pb.QueryEntitiesRequest(query=query), metadata=metadata)
        query = pb.EntityQuery(continuationToken=StringValue(value=""))
        stub.QueryEntities(pb.QueryEntitiesRequest(query=query), metadata=metadata)


def test_bounds_of_the_last_modification_are_inclusive(sdk: Sdk, shelves: Shelves):
    """S-12.39."""
    with sdk.stub() as (stub, metadata):
        request = pb.GetEntityRequest(instanceId=str(shelves.ids[50]))
        time = stub.GetEntity(request, metadata=metadata).entity.lastModifiedTime
        query = pb.EntityQuery(
            instanceIdStartsWith=StringValue(value=f"@shelf@{shelves.prefix}-"),
            lastModifiedFrom=time,
            lastModifiedTo=time,
        )
        answer = stub.QueryEntities(pb.QueryEntitiesRequest(query=query), metadata=metadata)
        assert str(shelves.ids[50]) in [each.instanceId for each in answer.entities]


def test_entities_are_found_by_the_time_of_their_last_modification(sdk: Sdk):
    """S-12.39."""
    prefix = unique("aged")
    ids = [EntityInstanceId("shelf", f"{prefix}-{number}") for number in range(3)]
    for each in ids:
        sdk.client.signal_entity(each, "put", 1)
        sdk.until_entity_state(each, 1)
    times = [sdk.entity(each).last_modified for each in ids]
    assert times == sorted(times)

    def between(low: Any, high: Any) -> list[EntityInstanceId]:
        query = EntityQuery(
            instance_id_starts_with=f"@shelf@{prefix}", last_modified_from=low, last_modified_to=high
        )
        return found(sdk, query)

    # The SDK rounds times to microseconds, hence the margin.
    margin = timedelta(microseconds=2)
    assert between(times[1] - margin, None) == ids[1:]
    assert between(None, times[1] + margin) == ids[:2]
    assert between(times[1] - margin, times[1] + margin) == [ids[1]]
    assert between(times[2] + margin, None) == []
    sdk.client.signal_entity(ids[0], "put", 2)
    sdk.until_entity_state(ids[0], 2)
    assert between(times[2] + margin, None) == [ids[0]]


def transient(sdk: Sdk, entity: EntityInstanceId, include: bool) -> list[Any]:
    query = EntityQuery(instance_id_starts_with=str(entity), include_transient=include)
    return sdk.client.get_all_entities(query)


def test_an_entity_with_merely_a_backlog_is_transient(sdk: Sdk):
    """S-12.39, S-12.6, S-12.38: nobody serves this hub."""
    with sdk.in_hub("idle") as idle:
        shelf = EntityInstanceId("shelf", unique())
        assert transient(idle, shelf, True) == []
        for number in range(3):
            idle.client.signal_entity(shelf, "put", number)
        assert idle.client.get_entity(shelf) is None
        assert transient(idle, shelf, False) == []
        (listed,) = transient(idle, shelf, True)
        assert (listed.id, listed.backlog_queue_size) == (shelf, 3)


def test_an_entity_whose_key_is_empty_is_one(sdk: Sdk):
    """S-12.1: other SDKs allow it; this one's client does not, so it is sent by hand."""
    with sdk.in_hub("idle") as idle, idle.stub() as (stub, metadata):
        request = pb.SignalEntityRequest(instanceId="@Nobody@", name="put", requestId=unique())
        stub.SignalEntity(request, metadata=metadata)
        query = pb.EntityQuery(instanceIdStartsWith=StringValue(value="@nobody@"), includeTransient=True)
        answer = stub.QueryEntities(pb.QueryEntitiesRequest(query=query), metadata=metadata)
        assert [each.instanceId for each in answer.entities] == ["@nobody@"]


def test_an_entity_with_merely_a_lock_is_transient(sdk: Sdk):
    """S-12.39, S-12.36."""
    shelf = EntityInstanceId("shelf", unique())
    holder = sdk.start(hold_lock, shelf.key)
    (listed,) = eventually(lambda: transient(sdk, shelf, True), f"a lock on {shelf}")
    assert listed._locked_by == holder
    assert transient(sdk, shelf, False) == []
    assert sdk.client.get_entity(shelf) is None
    sdk.client.raise_orchestration_event(holder, "leave")
    sdk.output(holder)
    assert transient(sdk, shelf, True) == []


def test_an_entity_whose_signals_are_not_yet_due_is_not_listed(sdk: Sdk):
    """S-6.7, S-12.44."""
    shelf = EntityInstanceId("shelf", unique())
    due = datetime.now(timezone.utc) + timedelta(hours=1)
    sdk.client.signal_entity(shelf, "put", 1, signal_time=due)
    assert transient(sdk, shelf, False) == []
    assert transient(sdk, shelf, True) == []


def _put(sdk: Sdk) -> EntityInstanceId:
    """An entity with the state 1."""
    shelf = EntityInstanceId("shelf", unique())
    sdk.client.signal_entity(shelf, "put", 1)
    sdk.until_entity_state(shelf, 1)
    return shelf


def test_a_deleted_entity_is_not_listed(sdk: Sdk):
    """S-12.6, S-12.39, S-0.6."""
    shelf = _put(sdk)
    assert [each.id for each in transient(sdk, shelf, True)] == [shelf]
    sdk.client.signal_entity(shelf, "clear")
    eventually(lambda: sdk.client.get_entity(shelf) is None, f"{shelf} deleted")
    assert transient(sdk, shelf, True) == []


def test_entities_are_no_orchestrations(sdk: Sdk):
    """S-12.3, S-11.1, S-11.9."""
    shelf = _put(sdk)
    assert sdk.client.get_orchestration_state(str(shelf)) is None
    assert sdk.client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix="@")) == []


def test_cleaning_the_storage_returns_zeros_and_takes_nothing_away(sdk: Sdk):
    """S-12.40: what there is to clean is cleaned without being asked."""
    shelf = _put(sdk)
    assert sdk.client.clean_entity_storage() == CleanEntityStorageResult(0, 0)
    assert sdk.entity_state(shelf) == 1
    with sdk.stub() as (stub, metadata):
        request = pb.CleanEntityStorageRequest(removeEmptyEntities=True, releaseOrphanedLocks=True)
        assert stub.CleanEntityStorage(request, metadata=metadata) == pb.CleanEntityStorageResponse()


@pytest.fixture
def purge(sdk: Sdk) -> Iterator[Any]:
    """Purges as an entity, which the SDK's clients cannot ask for, and returns how many were deleted."""
    with sdk.stub() as (stub, metadata):

        def purge(entity: EntityInstanceId | str) -> int:
            request = pb.PurgeInstancesRequest(instanceId=str(entity), isOrchestration=False)
            answer = stub.PurgeInstances(request, metadata=metadata)
            assert answer.isComplete.value
            return answer.deletedInstanceCount

        yield purge


def test_an_entity_is_purged_with_its_state(sdk: Sdk, purge: Any):
    """S-11.23, S-11.24: and begins from scratch if it is signalled again."""
    shelf = _put(sdk)
    assert purge(str(shelf).replace("shelf", "SHELF")) == 1
    assert sdk.client.get_entity(shelf) is None
    assert transient(sdk, shelf, True) == []
    assert purge(shelf) == 0
    sdk.client.signal_entity(shelf, "put", 2)
    sdk.until_entity_state(shelf, 2)


def test_the_purge_of_an_orchestration_spares_entities(sdk: Sdk):
    """S-11.23."""
    shelf = _put(sdk)
    assert sdk.client.purge_orchestration(str(shelf)).deleted_instance_count == 0
    assert sdk.entity_state(shelf) == 1


def test_the_purge_of_an_idle_entity_takes_its_backlog(sdk: Sdk):
    """S-11.23: nobody serves this hub."""
    with sdk.in_hub("idle") as idle, idle.stub() as (stub, metadata):
        shelf = EntityInstanceId("shelf", unique())
        idle.client.signal_entity(shelf, "put", 1)
        request = pb.PurgeInstancesRequest(instanceId=str(shelf))
        assert stub.PurgeInstances(request, metadata=metadata).deletedInstanceCount == 1
        assert transient(idle, shelf, True) == []


def test_an_entity_that_is_locked_or_at_work_is_not_purged(sdk: Sdk, purge: Any):
    """S-11.23."""
    shelf = _put(sdk)
    holder = sdk.start(hold_lock, shelf.key)
    eventually(lambda: sdk.locked_by(shelf) == holder, f"{shelf} locked")
    assert purge(shelf) == 0
    sdk.client.raise_orchestration_event(holder, "leave")
    assert sdk.finish(holder).runtime_status == Status.COMPLETED
    sdk.client.signal_entity(shelf, "hold")
    gates[shelf.key].wait_until_reached()
    assert purge(shelf) == 0
    gates[shelf.key].open()
    eventually(lambda: sdk.entity(shelf).backlog_queue_size == 0, f"{shelf} idle")
    assert sdk.entity_state(shelf) == 1
    assert purge(shelf) == 1
