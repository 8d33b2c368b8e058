"""The Python side of python.rs: a worker with one orchestrator and one activity, for the scheduler at the address given."""

import sys
import threading

from durabletask import task
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker


def python_step(ctx: task.ActivityContext, order: dict) -> dict:
    return {"lines": [*order["lines"], "python"]}


def python_order(ctx: task.OrchestrationContext, order: dict):
    return (yield ctx.call_activity("rust_step", input=order))


with DurableTaskSchedulerWorker(
    host_address=sys.argv[1], taskhub="default", token_credential=None, secure_channel=False
) as worker:
    worker.add_activity(python_step)
    worker.add_orchestrator(python_order)
    worker.use_work_item_filters()
    worker.start()
    threading.Event().wait()
