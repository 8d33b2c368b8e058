"""Custom status: set, changed, cleared, kept."""

from durabletask import task

from sdk import Program, Sdk, Status, eventually

program = Program()


@program.orchestrator
def follow_orders(context: task.OrchestrationContext, _):
    while True:
        order = yield context.wait_for_external_event("status")
        if order == "finish":
            return "finished"
        if order == "fail":
            raise ValueError("told to fail")
        context.set_custom_status(None if order == "clear" else order)


@program.orchestrator
def report_progress(context: task.OrchestrationContext, _):
    context.set_custom_status({"step": 1, "text": "läuft – 進行中"})
    return "done"
    yield


def tell(sdk: Sdk, instance: str, order: str) -> None:
    sdk.client.raise_orchestration_event(instance, "status", data=order)


def shows(sdk: Sdk, instance: str, status: str | None) -> None:
    eventually(lambda: sdk.state(instance).get_custom_status() == status, f"custom status {status}")


def test_a_status_is_visible_while_the_orchestration_waits(sdk: Sdk):
    """S-3.23."""
    instance = sdk.start(follow_orders)
    for status in ("packing", "shipping"):
        tell(sdk, instance, status)
        shows(sdk, instance, status)
    tell(sdk, instance, "finish")
    assert sdk.finish(instance).get_custom_status() == "shipping"


def test_a_cleared_status_is_absent(sdk: Sdk):
    """S-3.23."""
    instance = sdk.start(follow_orders)
    tell(sdk, instance, "packing")
    shows(sdk, instance, "packing")
    tell(sdk, instance, "clear")
    shows(sdk, instance, None)
    tell(sdk, instance, "finish")
    assert sdk.finish(instance).serialized_custom_status is None


def test_a_status_set_in_the_last_episode_stays(sdk: Sdk):
    """S-3.23, S-0.5."""
    instance = sdk.start(report_progress)
    assert sdk.finish(instance).get_custom_status() == {"step": 1, "text": "läuft – 進行中"}


def test_a_failed_orchestration_keeps_its_status(sdk: Sdk):
    """S-3.23, S-3.24."""
    instance = sdk.start(follow_orders)
    tell(sdk, instance, "packing")
    shows(sdk, instance, "packing")
    tell(sdk, instance, "fail")
    state = sdk.finish(instance)
    assert state.runtime_status == Status.FAILED
    assert state.get_custom_status() == "packing"


def test_the_empty_json_text_is_a_status(sdk: Sdk):
    """S-3.25."""
    instance = sdk.start(follow_orders)
    tell(sdk, instance, "")
    eventually(lambda: sdk.state(instance).serialized_custom_status == '""', "the empty text")
    tell(sdk, instance, "finish")
    assert sdk.finish(instance).serialized_custom_status == '""'


def test_a_status_is_withheld_when_payloads_are_not_asked_for(sdk: Sdk):
    """S-11.2."""
    instance = sdk.start(report_progress)
    sdk.finish(instance)
    state = sdk.client.get_orchestration_state(instance, fetch_payloads=False)
    assert state.serialized_custom_status is None
