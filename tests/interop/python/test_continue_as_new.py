"""Continue-as-new: generations, what they inherit and what they must not see."""

from datetime import timedelta

from durabletask import task

from sdk import Gates, Program, Sdk, Status, Tally, eventually

program = Program()
gates = Gates()
left_behind = Tally()


@program.activity
def add_one(_, number):
    return number + 1


@program.activity
def return_through_gate(_, call):
    gates[call["gate"]].pass_through()
    return call["value"]


@program.activity
def note(_, key):
    left_behind.add(key)


@program.orchestrator
def count_generations(context: task.OrchestrationContext, number):
    number = yield context.call_activity(add_one, input=number)
    if number < 50:
        context.continue_as_new(number)
        return None
    return number


@program.orchestrator
def spin(context: task.OrchestrationContext, number):
    if number < 50:
        context.continue_as_new(number + 1)
        return None
    return number


@program.orchestrator
def collect_one_event_per_generation(context: task.OrchestrationContext, values):
    values.append((yield context.wait_for_external_event("number")))
    if len(values) < 50:
        context.continue_as_new(values, save_events=True)
        return None
    return values


@program.orchestrator
def forget_buffered_events(context: task.OrchestrationContext, generation):
    if generation == 1:
        yield context.wait_for_external_event("go")
        context.continue_as_new(2, save_events=False)
        return None
    return (yield context.wait_for_external_event("number"))


@program.orchestrator
def collect_random_ids(context: task.OrchestrationContext, ids):
    ids = [*ids, context.new_uuid()]
    if len(ids) < 10:
        context.continue_as_new(ids)
        return None
    return ids


@program.orchestrator
def leave_a_timer_behind(context: task.OrchestrationContext, generation):
    if generation == 1:
        context.create_timer(timedelta(milliseconds=100))
        yield context.wait_for_external_event("go")
        context.continue_as_new(2)
        return None
    yield context.create_timer(timedelta(milliseconds=400))
    return "second"


@program.orchestrator
def leave_an_activity_behind(context: task.OrchestrationContext, generation):
    if generation == 1:
        context.call_activity(
            return_through_gate, input={"gate": f"{context.instance_id}/1", "value": "stale"}
        )
        yield context.wait_for_external_event("go")
        context.continue_as_new(2)
        return None
    return (
        yield context.call_activity(
            return_through_gate, input={"gate": f"{context.instance_id}/2", "value": "fresh"}
        )
    )


@program.orchestrator
def fire_and_forget_each_time(context: task.OrchestrationContext, generation):
    if generation < 3:
        context.call_activity(note, input=context.instance_id)
        context.continue_as_new(generation + 1)
        return None
    return "done"


@program.orchestrator
def set_status_once(context: task.OrchestrationContext, generation):
    if generation == 1:
        context.set_custom_status("from the first generation")
        context.continue_as_new(2)
        return None
    yield context.wait_for_external_event("go")
    return "done"


@program.orchestrator
def keep_child_link(context: task.OrchestrationContext, generation):
    if generation < 3:
        context.continue_as_new(generation + 1)
        return None
    return context.parent_instance_id


@program.orchestrator
def call_renewing_child(context: task.OrchestrationContext, _):
    return (yield context.call_sub_orchestrator(keep_child_link, input=1))


@program.orchestrator
def renew_on_request(context: task.OrchestrationContext, generation):
    yield context.wait_for_external_event("next")
    context.continue_as_new(generation + 1)


def test_fifty_generations_follow_one_another(sdk: Sdk):
    """S-3.17, S-3.21, S-11.8: the wait ends only with the last of them."""
    instance = sdk.start(count_generations, 0)
    created = sdk.state(instance).created_at
    state = sdk.finish(instance)
    assert state.get_output() == 50
    assert state.get_input() == 49, "the input is that of the last generation, S-11.3"
    assert state.created_at == created, "S-2.6"


def test_fifty_generations_without_any_work_are_dispatched_like_others(sdk: Sdk):
    """S-3.21."""
    assert sdk.run(spin, 0) == 50


def test_the_history_shows_the_current_generation_alone(sdk: Sdk):
    """S-3.22."""
    instance = sdk.start(count_generations, 47)
    sdk.output(instance)
    assert sdk.kinds(instance) == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "TaskScheduled",
        "OrchestratorStarted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]


def test_unread_events_are_carried_over_in_order_through_fifty_generations(sdk: Sdk):
    """S-3.18, S-3.19: the SDK stamps them all with time zero."""
    instance = sdk.start(collect_one_event_per_generation, [])
    for number in range(50):
        sdk.client.raise_orchestration_event(instance, "number", data=number)
    assert sdk.output(instance) == list(range(50))


def test_events_read_by_a_generation_that_does_not_save_them_are_gone(sdk: Sdk):
    """S-3.18: only what was not yet in a history stays in the inbox."""
    instance = sdk.start(forget_buffered_events, 1)
    sdk.until_running(instance)
    sdk.client.raise_orchestration_event(instance, "number", data="buffered in the first")
    eventually(
        lambda: "EventRaised" in sdk.kinds(instance), "the first generation has read the event"
    )
    sdk.client.raise_orchestration_event(instance, "go")
    eventually(lambda: sdk.state(instance).get_input() == 2, "the second generation runs")
    sdk.client.raise_orchestration_event(instance, "number", data="for the second")
    assert sdk.output(instance) == "for the second"


def test_no_random_id_repeats_over_generations(sdk: Sdk):
    """S-0.4, S-3.6: the logical clock rises across generations."""
    ids = sdk.run(collect_random_ids, [])
    assert len(set(ids)) == 10


def test_a_timer_of_an_ended_generation_never_fires_into_the_next(sdk: Sdk):
    """S-3.20, S-0.3: both timers have id 1."""
    instance = sdk.start(leave_a_timer_behind, 1)
    sdk.client.raise_orchestration_event(instance, "go")
    assert sdk.output(instance) == "second"
    created, fired = sdk.events(instance, "TimerCreated"), sdk.events(instance, "TimerFired")
    assert [event.fire_at for event in fired] == [event.fire_at for event in created]


def test_a_late_result_of_an_ended_generation_is_dropped(sdk: Sdk):
    """S-0.3, S-3.20: both activities have task id 1."""
    instance = sdk.start(leave_an_activity_behind, 1)
    first, second = gates[f"{instance}/1"], gates[f"{instance}/2"]
    first.wait_until_reached()
    sdk.client.raise_orchestration_event(instance, "go")
    second.wait_until_reached()
    first.open()
    # A whole other orchestration fits between the stale result and the fresh one.
    assert sdk.run(count_generations, 48) == 50
    assert sdk.status(instance) == Status.RUNNING
    second.open()
    assert sdk.output(instance) == "fresh"
    assert len(sdk.events(instance, "TaskCompleted")) == 1


def test_an_activity_scheduled_with_continue_as_new_still_runs(sdk: Sdk):
    """S-3.20, S-4.1."""
    instance = sdk.start(fire_and_forget_each_time, 1)
    assert sdk.output(instance) == "done"
    eventually(lambda: left_behind[instance] == 2, "both activities ran")
    assert "TaskCompleted" not in sdk.kinds(instance)


def test_a_custom_status_outlives_its_generation(sdk: Sdk):
    """S-3.23."""
    instance = sdk.start(set_status_once, 1)
    eventually(lambda: sdk.state(instance).get_input() == 2, "the second generation runs")
    sdk.client.raise_orchestration_event(instance, "go")
    state = sdk.finish(instance)
    assert state.get_custom_status() == "from the first generation"


def test_a_child_keeps_its_parent_over_generations(sdk: Sdk):
    """S-7.1, S-3.17."""
    instance = sdk.start(call_renewing_child)
    assert sdk.output(instance) == instance


def test_tags_are_inherited_and_the_execution_id_is_new_in_each_generation(sdk: Sdk):
    """S-3.17, S-3.3."""
    instance = sdk.start(renew_on_request, 1, tags={"team": "blue"})
    execution_ids = set()
    for generation in (1, 2, 3):
        eventually(lambda: sdk.state(instance).get_input() == generation, f"generation {generation}")
        started = eventually(lambda: sdk.events(instance, "ExecutionStarted"), "its first episode")[0]
        assert started.tags == {"team": "blue"}
        execution_ids.add(started.orchestration_instance.execution_id)
        sdk.client.raise_orchestration_event(instance, "next")
    sdk.client.terminate_orchestration(instance)
    assert len(execution_ids) == 3
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in execution_ids)
