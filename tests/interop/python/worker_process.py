"""A worker in a process of its own that takes work and never answers, to be killed with it in hand.

Arguments: address, hub. It prints `holding <kind> <key>` for each item it holds.
"""

import os
import sys
import threading

from durabletask import task
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from durabletask.worker import ConcurrencyOptions


def hold(kind: str, key: str) -> None:
    # One write for the whole line: several threads print at once.
    os.write(sys.stdout.fileno(), f"holding {kind} {key}\n".encode())
    threading.Event().wait()


def held_activity(_, number):
    hold("activity", str(number))


def fan_out_to_held_activities(context: task.OrchestrationContext, count):
    return (yield task.when_all([context.call_activity(held_activity, input=n) for n in range(count)]))


def held_orchestrator(context: task.OrchestrationContext, _):
    hold("orchestrator", context.instance_id)


def return_at_once(_, value):
    return value


def main(address: str, hub: str) -> None:
    worker = DurableTaskSchedulerWorker(
        host_address=address,
        taskhub=hub,
        token_credential=None,
        secure_channel=False,
        concurrency_options=ConcurrencyOptions(maximum_thread_pool_workers=32),
    )
    worker.add_activity(held_activity)
    worker.add_orchestrator(fan_out_to_held_activities)
    worker.add_orchestrator(held_orchestrator)
    worker.add_orchestrator(return_at_once)
    worker.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
