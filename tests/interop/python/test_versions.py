"""Versions of orchestrations and the worker's strategies for them."""

from durabletask import task
from durabletask.worker import VersionFailureStrategy, VersioningOptions, VersionMatchStrategy

from sdk import Program, Sdk, Status, unique

program = Program()


@program.orchestrator
def tell_version(context: task.OrchestrationContext, _):
    return context.version
    yield


@program.orchestrator
def ask_child(context: task.OrchestrationContext, version):
    return (yield context.call_sub_orchestrator(tell_version, version=version))


@program.orchestrator
def upgrade_itself(context: task.OrchestrationContext, _):
    if context.version == "1.0.0":
        context.continue_as_new(None, new_version="2.0.0")
        return None
    return context.version


def only(version: str, match: VersionMatchStrategy, failure: VersionFailureStrategy) -> VersioningOptions:
    return VersioningOptions(version=version, match_strategy=match, failure_strategy=failure)


def test_an_orchestration_knows_the_version_it_was_started_with(sdk: Sdk):
    """S-16.1."""
    instance = sdk.start(tell_version, version="1.2.3")
    assert sdk.output(instance) == "1.2.3"
    assert [event.version for event in sdk.events(instance, "ExecutionStarted")] == ["1.2.3"]


def test_an_orchestration_started_without_a_version_has_none(sdk: Sdk):
    """S-16.1, S-3.16."""
    instance = sdk.start(tell_version)
    assert sdk.output(instance) is None
    assert [event.version for event in sdk.events(instance, "ExecutionStarted")] == [None]


def test_the_default_version_of_a_client_goes_with_its_orchestrations(sdk: Sdk):
    """S-16.2."""
    client = sdk.new_client(default_version="9.9")
    instance = client.schedule_new_orchestration(tell_version, instance_id=unique())
    assert sdk.output(instance) == "9.9"


def test_a_child_has_the_version_of_its_call_and_inherits_none(sdk: Sdk):
    """S-16.2."""
    assert sdk.run(ask_child, "2.5", version="1.0") == "2.5"
    assert sdk.run(ask_child, None, version="1.0") is None


def test_the_default_version_of_a_worker_goes_with_its_children(managed: Sdk):
    """S-16.2."""
    versioning = VersioningOptions(default_version="3.1", match_strategy=VersionMatchStrategy.NONE)
    with managed.in_hub("versions") as hub, hub.worker(program, versioning=versioning):
        assert hub.run(ask_child, None) == "3.1"


def test_continue_as_new_can_change_the_version(sdk: Sdk):
    """S-3.17, S-16.4."""
    instance = sdk.start(upgrade_itself, version="1.0.0")
    assert sdk.output(instance) == "2.0.0"
    assert [event.version for event in sdk.events(instance, "ExecutionStarted")] == ["2.0.0"]


def test_a_strict_worker_fails_other_versions_if_told_to(managed: Sdk):
    """S-16.3."""
    versioning = only("1.0.0", VersionMatchStrategy.STRICT, VersionFailureStrategy.FAIL)
    with managed.in_hub("versions") as hub, hub.worker(program, versioning=versioning):
        assert hub.run(tell_version, version="1.0.0") == "1.0.0"
        state = hub.finish(hub.start(tell_version, version="2.0.0"))
        assert state.runtime_status == Status.FAILED
        assert state.failure_details.error_type == "VersionMismatch"


def test_a_worker_for_current_or_older_takes_both_and_fails_newer_ones(managed: Sdk):
    """S-16.3."""
    versioning = only("2.0.0", VersionMatchStrategy.CURRENT_OR_OLDER, VersionFailureStrategy.FAIL)
    with managed.in_hub("versions") as hub, hub.worker(program, versioning=versioning):
        assert hub.run(tell_version, version="1.0.0") == "1.0.0"
        assert hub.run(tell_version, version="2.0.0") == "2.0.0"
        assert hub.run(tell_version) is None
        assert hub.finish(hub.start(tell_version, version="2.0.1")).runtime_status == Status.FAILED


def test_what_a_strict_worker_rejects_stays_pending_until_another_worker_takes_it(managed: Sdk):
    """S-16.3, S-13.17, S-2.4: rejecting is abandoning, with back-off, and changes no status."""
    strict, reject = VersionMatchStrategy.STRICT, VersionFailureStrategy.REJECT
    with managed.in_hub("versions") as hub:
        with hub.worker(program, versioning=only("1.0.0", strict, reject)):
            newer = hub.start(tell_version, version="2.0.0")
            # Taken after the newer one, and finished: so that one has had its chance.
            assert hub.run(tell_version, version="1.0.0") == "1.0.0"
            assert hub.status(newer) == Status.PENDING
            with hub.worker(program, versioning=only("2.0.0", strict, reject)):
                assert hub.output(newer) == "2.0.0"
