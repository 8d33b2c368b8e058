"""ListInstanceIds: the ids of finished instances in the order of their end.

The hub `lists` is this file's own; each test looks at what finished after it began.
"""

from datetime import datetime

import pytest
from durabletask import task

from sdk import Program, Sdk, Status

program = Program()


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def fail_with_input(_, value):
    raise ValueError(value)


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@pytest.fixture(scope="module")
def lists(managed: Sdk):
    with managed.in_hub("lists") as hub, hub.worker(program):
        yield hub


def finished(hub: Sdk, count: int) -> tuple[list[str], datetime]:
    """Instances that ended one after the other, and the time at which the first of them was created."""
    ids = [hub.run_and_keep(return_input, number) for number in range(count)]
    return ids, hub.state(ids[0]).created_at


def walk(hub: Sdk, since: datetime, page_size: int) -> list[tuple[list[str], bool]]:
    """Each page's ids, and whether it came with a key."""
    walked, key = [], None
    while True:
        page = hub.client.list_instance_ids(
            completed_time_from=since, page_size=page_size, continuation_token=key
        )
        walked.append((page.items, page.continuation_token is not None))
        if page.continuation_token is None:
            return walked
        key = page.continuation_token


def test_ids_come_in_the_order_of_their_end(lists: Sdk):
    """S-11.15, S-0.6."""
    ids, since = finished(lists, 5)
    assert lists.client.list_instance_ids(completed_time_from=since).items == ids


def test_a_short_last_page_carries_a_key_and_an_empty_page_none(lists: Sdk):
    """S-11.17."""
    ids, since = finished(lists, 7)
    assert walk(lists, since, 3) == [(ids[:3], True), (ids[3:6], True), (ids[6:], True), ([], False)]


def test_a_full_last_page_carries_no_key_for_this_sdk(lists: Sdk):
    """S-11.17, the exception for Python."""
    ids, since = finished(lists, 6)
    assert walk(lists, since, 3) == [(ids[:3], True), (ids[3:], False)]


def test_a_kept_key_finds_what_ended_later(lists: Sdk):
    """S-11.15, S-11.17: as a continuous export polls."""
    ids, since = finished(lists, 2)
    page = lists.client.list_instance_ids(completed_time_from=since, page_size=10)
    assert page.items == ids
    later, _ = finished(lists, 2)
    page = lists.client.list_instance_ids(
        completed_time_from=since, page_size=10, continuation_token=page.continuation_token
    )
    assert page.items == later


def test_only_finished_instances_are_listed_and_status_narrows_them(lists: Sdk):
    """S-11.14."""
    waiting = lists.start(wait_for_release)
    since = lists.until_running(waiting).created_at
    completed = lists.run_and_keep(return_input, 1)
    failed = lists.start(fail_with_input, "x")
    lists.finish(failed)
    listed = lists.client.list_instance_ids
    assert listed(completed_time_from=since).items == [completed, failed]
    assert listed([Status.FAILED], completed_time_from=since).items == [failed]
    assert listed([Status.RUNNING], completed_time_from=since).items == []
    lists.client.terminate_orchestration(waiting)
    assert listed(completed_time_from=since).items == [completed, failed, waiting]
    assert listed([Status.TERMINATED], completed_time_from=since).items == [waiting]


def test_a_page_without_a_size_holds_a_hundred(lists: Sdk):
    """S-11.14."""
    first = lists.start(return_input, 0)
    since = lists.state(first).created_at
    rest = [lists.start(return_input, number) for number in range(1, 110)]
    for each in [first, *rest]:
        lists.output(each)
    page = lists.client.list_instance_ids(completed_time_from=since)
    assert len(page.items) == 100
    more = lists.client.list_instance_ids(
        completed_time_from=since, continuation_token=page.continuation_token
    )
    assert sorted([*page.items, *more.items]) == sorted([first, *rest])
