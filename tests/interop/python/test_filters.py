"""Work-item filters: what a worker asked for and what it is spared.

Each test has names of its own, so that nothing left behind by another can match its workers.
"""

from durabletask import task
from durabletask.worker import (
    ActivityWorkItemFilter,
    OrchestrationWorkItemFilter,
    VersionFailureStrategy,
    VersioningOptions,
    VersionMatchStrategy,
    WorkItemFilters,
)

from sdk import Program, Sdk, Status


def answering(name: str, answer: str) -> Program:
    """A program with one orchestrator, called `name`."""
    program = Program()

    def orchestrator(context: task.OrchestrationContext, _):
        return answer

    orchestrator.__name__ = name
    program.orchestrator(orchestrator)
    return program


def calling(name: str, activity_name: str) -> Program:
    """A program with one orchestrator, called `name`, that returns what one activity returns."""
    program = Program()

    def orchestrator(context: task.OrchestrationContext, _):
        return (yield context.call_activity(activity_name))

    orchestrator.__name__ = name
    program.orchestrator(orchestrator)
    return program


def performing(activity_name: str, answer: str) -> Program:
    """A program with one activity, called `activity_name`."""
    program = Program()

    def activity(_, __):
        return answer

    activity.__name__ = activity_name
    program.activity(activity)
    return program


def strict(version: str) -> VersioningOptions:
    return VersioningOptions(
        version=version,
        match_strategy=VersionMatchStrategy.STRICT,
        failure_strategy=VersionFailureStrategy.REJECT,
    )


def test_each_worker_receives_only_what_it_registered(sdk: Sdk):
    """S-13.9, S-13.11."""
    with (
        sdk.in_hub("filters") as hub,
        hub.worker(answering("bake", "bread"), filters="registered"),
        hub.worker(answering("brew", "beer"), filters="registered"),
    ):
        baked = [hub.start("bake") for _ in range(10)]
        brewed = [hub.start("brew") for _ in range(10)]
        assert {hub.output(each) for each in baked} == {"bread"}
        assert {hub.output(each) for each in brewed} == {"beer"}


def test_what_no_filter_matches_waits_without_blocking_others_until_a_match_connects(managed: Sdk):
    """S-2.5, S-13.12."""
    with managed.in_hub("filters") as hub:
        with hub.worker(answering("weave", "cloth"), filters="registered"):
            waiting = [hub.start("forge") for _ in range(5)]
            assert hub.run("weave") == "cloth"
            assert {hub.status(each) for each in waiting} == {Status.PENDING}
            with hub.worker(answering("forge", "iron"), filters="registered"):
                assert {hub.output(each) for each in waiting} == {"iron"}


def test_a_filter_without_activities_receives_no_activity(managed: Sdk):
    """S-13.9: within a filter an empty list means nothing of that kind."""
    plan = calling("plan_trip", "book_ticket")
    plan.activities = performing("book_ticket", "from the planner").activities
    orchestrations_only = WorkItemFilters(orchestrations=[OrchestrationWorkItemFilter("plan_trip")])
    activities_only = WorkItemFilters(activities=[ActivityWorkItemFilter("book_ticket")])
    with managed.in_hub("filters") as hub, hub.worker(plan, filters=orchestrations_only):
        instance = hub.start("plan_trip")
        hub.until_running(instance)
        with hub.worker(performing("book_ticket", "from the clerk"), filters=activities_only):
            assert hub.output(instance) == "from the clerk"


def test_a_filter_with_nothing_in_it_receives_everything(managed: Sdk):
    """S-13.9: as workers that send the message with three empty lists need it."""
    program = calling("sing", "hum")
    program.activities = performing("hum", "mmm").activities
    with managed.in_hub("filters") as hub, hub.worker(program, filters=WorkItemFilters()):
        assert hub.run("sing") == "mmm"


def test_names_in_filters_match_whatever_their_case(managed: Sdk):
    """S-13.11."""
    upper = WorkItemFilters(orchestrations=[OrchestrationWorkItemFilter("PAINT")])
    with managed.in_hub("filters") as hub, hub.worker(answering("paint", "picture"), filters=upper):
        assert hub.run("paint") == "picture"


def test_versions_in_filters_match_exactly_and_an_absent_version_is_one_of_its_own(managed: Sdk):
    """S-16.5, S-13.11: with a strict worker that asks for just what it registered."""
    program = answering("carve", "statue")
    with managed.in_hub("filters") as hub:
        with hub.worker(program, versioning=strict("1.0.0"), filters="registered"):
            other, none = hub.start("carve", version="2.0.0"), hub.start("carve")
            assert hub.run("carve", version="1.0.0") == "statue"
            assert (hub.status(other), hub.status(none)) == (Status.PENDING, Status.PENDING)
        with hub.worker(program):
            assert (hub.output(other), hub.output(none)) == ("statue", "statue")


def test_an_activity_matches_by_the_version_of_its_orchestration(managed: Sdk):
    """S-13.11: the SDK puts no version on the action."""
    with managed.in_hub("filters") as hub, hub.worker(
        calling("compose", "play"),
        filters=WorkItemFilters(orchestrations=[OrchestrationWorkItemFilter("compose")]),
    ):
        by_version = {
            version: WorkItemFilters(activities=[ActivityWorkItemFilter("play", [version])])
            for version in ("1", "2")
        }
        with (
            hub.worker(performing("play", "first"), filters=by_version["1"]),
            hub.worker(performing("play", "second"), filters=by_version["2"]),
        ):
            instances = {v: [hub.start("compose", version=v) for _ in range(5)] for v in ("1", "2")}
            assert {hub.output(each) for each in instances["1"]} == {"first"}
            assert {hub.output(each) for each in instances["2"]} == {"second"}


def test_filters_end_with_the_stream_that_brought_them(managed: Sdk):
    """S-13.13."""
    both = answering("spin_wool", "yarn")
    both.orchestrators += answering("knit", "scarf").orchestrators
    with managed.in_hub("filters") as hub:
        with hub.worker(both, filters="registered"):
            assert hub.run("knit") == "scarf"
        with hub.worker(answering("spin_wool", "yarn"), filters="registered"):
            instance = hub.start("knit")
            assert hub.run("spin_wool") == "yarn"
            assert hub.status(instance) == Status.PENDING
        with hub.worker(both):
            assert hub.output(instance) == "scarf"
