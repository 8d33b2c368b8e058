"""Payloads: large ones, too large ones, and text that must come back byte for byte."""

from typing import Any

import grpc
import pytest
from durabletask import task
from durabletask.serialization import DataConverter

from sdk import Program, Sdk, Status, refused, unique

LIMIT = 1_048_576
"""Bytes of one payload, S-14.1; a JSON string is two quotes longer than its text."""

MILLION = "m" * (1_000_000 - 2)
LARGEST = "l" * (LIMIT - 2)
TOO_LARGE = LARGEST + "!"

program = Program()


@program.activity
def echo(_, value):
    return value


@program.activity
def make_text(_, length):
    return "t" * length


@program.orchestrator
def echo_through_activity(context: task.OrchestrationContext, value):
    return (yield context.call_activity(echo, input=value))


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def echo_through_child(context: task.OrchestrationContext, value):
    return (yield context.call_sub_orchestrator(return_input, input=value))


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def show_status(context: task.OrchestrationContext, length):
    context.set_custom_status("s" * length)
    return "shown"
    yield


@program.orchestrator
def return_text(_, length):
    return "o" * length


@program.orchestrator
def report_activity_failure(context: task.OrchestrationContext, length):
    try:
        return len((yield context.call_activity(make_text, input=length)))
    except task.TaskFailedError as error:
        return [error.details.error_type, error.details.message]


@program.orchestrator
def send_large_input(context: task.OrchestrationContext, length):
    yield context.call_activity(echo, input="i" * length)
    return "sent"


def test_a_million_bytes_pass_through_input_activity_and_output(sdk: Sdk):
    """S-14.1, S-1.11."""
    instance = sdk.start(echo_through_activity, MILLION)
    state = sdk.finish(instance)
    assert state.get_input() == MILLION
    assert state.get_output() == MILLION
    assert sdk.events(instance, "TaskCompleted")[0].result == f'"{MILLION}"'


def test_a_million_bytes_pass_through_a_child(sdk: Sdk):
    """S-14.1."""
    assert sdk.run(echo_through_child, MILLION) == MILLION


def test_a_million_bytes_pass_through_an_event(sdk: Sdk):
    """S-14.1, S-8.9."""
    instance = sdk.start(wait_for_release)
    sdk.client.raise_orchestration_event(instance, "release", data=MILLION)
    assert sdk.output(instance) == MILLION


def test_a_million_bytes_of_custom_status_are_kept(sdk: Sdk):
    """S-14.1."""
    instance = sdk.start(show_status, len(MILLION))
    assert len(sdk.finish(instance).serialized_custom_status) == 1_000_000


def test_a_payload_of_exactly_the_limit_is_accepted(sdk: Sdk):
    """S-14.2."""
    assert sdk.run(return_input, LARGEST) == LARGEST
    instance = sdk.start(wait_for_release)
    sdk.client.raise_orchestration_event(instance, "release", data=LARGEST)
    assert sdk.output(instance) == LARGEST
    assert sdk.run(report_activity_failure, len(LARGEST)) == len(LARGEST)


def test_an_input_one_byte_over_the_limit_is_refused_with_limit_and_size(sdk: Sdk):
    """S-14.3."""
    instance = unique()
    with refused(grpc.StatusCode.INVALID_ARGUMENT, str(LIMIT), str(LIMIT + 1)):
        sdk.start(return_input, TOO_LARGE, instance_id=instance)
    assert sdk.client.get_orchestration_state(instance) is None


def test_an_event_or_a_last_word_one_byte_over_the_limit_is_refused(sdk: Sdk):
    """S-14.3, S-8.9."""
    instance = sdk.start(wait_for_release)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, str(LIMIT), str(LIMIT + 1)):
        sdk.client.raise_orchestration_event(instance, "release", data=TOO_LARGE)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, str(LIMIT), str(LIMIT + 1)):
        sdk.client.terminate_orchestration(instance, output=TOO_LARGE)
    sdk.client.raise_orchestration_event(instance, "release", data="small")
    assert sdk.output(instance) == "small"


def test_an_activity_result_over_the_limit_fails_the_activity(sdk: Sdk):
    """S-14.4: and is not tried again for ever."""
    error_type, message = sdk.run(report_activity_failure, len(TOO_LARGE))
    assert error_type == "PayloadTooLarge"
    assert str(LIMIT) in message


def test_an_activity_result_of_three_times_the_limit_fails_the_activity(sdk: Sdk):
    """S-14.4, S-1.11."""
    assert sdk.run(report_activity_failure, 3 * LIMIT)[0] == "PayloadTooLarge"


@pytest.mark.parametrize("orchestrator", [return_text, show_status, send_large_input])
def test_an_orchestrator_response_over_the_limit_fails_the_orchestration(sdk: Sdk, orchestrator):
    """S-14.4: output, custom status and the input of an action."""
    state = sdk.finish(sdk.start(orchestrator, len(TOO_LARGE)))
    assert state.runtime_status == Status.FAILED
    assert state.failure_details.error_type == "PayloadTooLarge"
    assert state.serialized_output is None


def test_the_limit_is_a_setting(new_server):
    """S-14.2."""
    server = new_server("--payload-bytes-max", "2000")
    sdk = Sdk("durabletask", "sync", server.address)
    try:
        with sdk.worker(program):
            assert sdk.run(return_input, "x" * 1_998) == "x" * 1_998
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "2000", "2001"):
                sdk.start(return_input, "x" * 1_999)
    finally:
        sdk.close()


class OpaqueText(DataConverter):
    """Sends text as it is, so that tests decide each byte of a payload."""

    def serialize(self, value: Any) -> str | None:
        return value

    def deserialize(self, data: str | None, target_type: type | None = None) -> Any:
        return data

    def coerce(self, value: Any, target_type: type | None = None) -> Any:
        return value


STRANGE = [
    "{not json",
    '  { "a" :  1.0 }\r\n\t',
    "ß 日本語 \U0001f600 e\u0301 é \u202e\ufeff",
    "\x00\x01\x7f\u0085",
    "null",
    "blob:v1:container:name",
]
"""The last one looks like the token of a payload kept elsewhere."""


def test_payloads_come_back_byte_for_byte(sdk: Sdk):
    """S-0.5, S-14.6."""
    opaque = OpaqueText()
    with sdk.in_hub("second") as hub, hub.worker(program, data_converter=opaque):
        client = hub.new_client(data_converter=opaque)
        for text in STRANGE:
            instance = client.schedule_new_orchestration(
                echo_through_activity, input=text, instance_id=unique()
            )
            state = hub.finish(instance)
            assert (state.serialized_input, state.serialized_output) == (text, text)
            assert hub.events(instance, "TaskScheduled")[0].input == text
            waiting = client.schedule_new_orchestration(wait_for_release, instance_id=unique())
            client.raise_orchestration_event(waiting, "release", data=text)
            assert hub.finish(waiting).serialized_output == text


def test_an_empty_payload_is_not_an_absent_one(sdk: Sdk):
    """S-0.5: histories keep the difference that this SDK's states do not show."""
    opaque = OpaqueText()
    with sdk.in_hub("second") as hub, hub.worker(program, data_converter=opaque):
        client = hub.new_client(data_converter=opaque)
        for sent in ("", None):
            instance = client.schedule_new_orchestration(
                wait_for_release, input=sent, instance_id=unique()
            )
            client.raise_orchestration_event(instance, "release", data=sent)
            hub.finish(instance)
            assert hub.events(instance, "ExecutionStarted")[0].input == sent
            assert hub.events(instance, "EventRaised")[0].input == sent


def test_the_limit_counts_bytes_and_not_characters(sdk: Sdk):
    """S-14.2."""
    with sdk.in_hub("idle") as idle:
        client = idle.new_client(data_converter=OpaqueText())
        fits, over = "é" * (LIMIT // 2), "é" * (LIMIT // 2) + "e"
        instance = client.schedule_new_orchestration("nobody", input=fits, instance_id=unique())
        assert idle.state(instance).serialized_input == fits
        idle.client.terminate_orchestration(instance)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, str(LIMIT), str(LIMIT + 1)):
            client.schedule_new_orchestration("nobody", input=over, instance_id=unique())


def test_names_tags_versions_and_reasons_may_be_in_any_script(sdk: Sdk):
    """S-0.5, S-4.9, S-4.10."""

    def greet(_, name):
        return f"Grüß dich, {name}"

    def welcome(context: task.OrchestrationContext, _):
        name = yield context.wait_for_external_event("Ereigniß")
        return (yield context.call_activity("挨拶", input=name))

    greet.__name__, welcome.__name__ = "挨拶", "歓迎"
    greeting = Program()
    greeting.activity(greet)
    greeting.orchestrator(welcome)
    with sdk.in_hub("second") as hub, hub.worker(greeting):
        instance = hub.start("歓迎", instance_id=unique("語"), tags={"équipe": "青"}, version="β")
        hub.until_running(instance)
        hub.client.suspend_orchestration(instance, reason="Mittagessen für 二人")
        hub.client.resume_orchestration(instance)
        hub.client.raise_orchestration_event(instance, "Ereigniß", data="Zoë")
        assert hub.output(instance) == "Grüß dich, Zoë"
        started = hub.events(instance, "ExecutionStarted")[0]
        assert (started.name, started.tags, started.version) == ("歓迎", {"équipe": "青"}, "β")
        assert hub.events(instance, "ExecutionSuspended")[0].input == "Mittagessen für 二人"
