"""The worker of the crash tests: a process of its own that outlives its server, or is killed itself.

Arguments: address, hub. It prints `started` once, and `holding` and `releasing` where a lingering activity
begins and ends. It keeps nothing between two calls, so whatever an orchestration knows came from its history.
"""

import sys
import threading
import time
from datetime import timedelta

from durabletask import task
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from durabletask.worker import ConcurrencyOptions

from sdk import QUICK_CHANNEL, QUICK_WORKER, Program

program = Program()
END = "end"


@program.activity
def add(_, numbers):
    return sum(numbers)


@program.activity
def read_clock(_, __):
    """Nanoseconds since 1970, by the clock of this machine."""
    return time.time_ns()


@program.activity
def linger(_, milliseconds):
    print("holding", flush=True)
    time.sleep(milliseconds / 1000)
    print("releasing", flush=True)
    return milliseconds


@program.orchestrator
def chain(context: task.OrchestrationContext, numbers):
    total = 0
    for number in numbers:
        total = yield context.call_activity(add, input=[total, number])
    return total


@program.orchestrator
def fan_out(context: task.OrchestrationContext, numbers):
    return (yield task.when_all([context.call_activity(add, input=[number, 1]) for number in numbers]))


@program.orchestrator
def lingering(context: task.OrchestrationContext, milliseconds):
    return (yield task.when_all([context.call_activity(linger, input=each) for each in milliseconds]))


@program.orchestrator
def timers(context: task.OrchestrationContext, milliseconds):
    """Returns the machine's time after each timer."""
    woken = []
    for each in milliseconds:
        yield context.create_timer(timedelta(milliseconds=each))
        woken.append((yield context.call_activity(read_clock)))
    return woken


@program.orchestrator
def children(context: task.OrchestrationContext, chains):
    calls = [context.call_sub_orchestrator(chain, input=numbers) for numbers in chains]
    return (yield task.when_all(calls))


@program.orchestrator
def generations(context: task.OrchestrationContext, state):
    left, total = state
    total = yield context.call_activity(add, input=[total, left])
    if left > 1:
        context.continue_as_new([left - 1, total])
        return None
    return total


@program.orchestrator
def collect(context: task.OrchestrationContext, _):
    values = []
    while (value := (yield context.wait_for_external_event("value"))) != END:
        values.append(value)
    return values


@program.orchestrator
def collect_over_generations(context: task.OrchestrationContext, values):
    value = yield context.wait_for_external_event("value")
    if value == END:
        return values
    context.continue_as_new([*values, value], save_events=True)
    return None


@program.orchestrator
def send_values(context: task.OrchestrationContext, order):
    """Two values in one episode, then one in each, then the end."""
    context.send_event(order["target"], "value", data=0)
    for value in range(1, order["count"]):
        context.send_event(order["target"], "value", data=value)
        yield context.call_activity(add, input=[value, 1])
    context.send_event(order["target"], "value", data=END)


@program.orchestrator
def wait_for_ever(context: task.OrchestrationContext, _):
    yield context.wait_for_external_event("never")


@program.orchestrator
def wait_for_child(context: task.OrchestrationContext, child):
    yield context.call_sub_orchestrator(wait_for_ever, instance_id=child)


def main(address: str, hub: str) -> None:
    worker = DurableTaskSchedulerWorker(
        host_address=address,
        taskhub=hub,
        token_credential=None,
        secure_channel=False,
        channel_options=QUICK_CHANNEL,
        resiliency_options=QUICK_WORKER,
        concurrency_options=ConcurrencyOptions(maximum_thread_pool_workers=24),
    )
    for orchestrator in program.orchestrators:
        worker.add_orchestrator(orchestrator)
    for activity in program.activities:
        worker.add_activity(activity)
    worker.start()
    print("started", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
