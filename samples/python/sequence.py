"""Three activities in a row, each given what the one before returned.

With a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS, the task hub in MAINSPRING_TASKHUB):

    pip install durabletask.azuremanaged==1.12.0
    python samples/python/sequence.py
"""

import os

from durabletask import task
from durabletask.azuremanaged.client import DurableTaskSchedulerClient
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker

connection = dict(
    host_address=os.environ.get("MAINSPRING_ADDRESS", "localhost:8080"),
    taskhub=os.environ.get("MAINSPRING_TASKHUB", "default"),
    token_credential=None,
    secure_channel=False,
)


def order_coffee(ctx: task.OrchestrationContext, beans: str):
    ground = yield ctx.call_activity(grind, input=beans)
    coffee = yield ctx.call_activity(brew, input=ground)
    cup = yield ctx.call_activity(pour, input=coffee)
    return cup


def grind(ctx: task.ActivityContext, beans: str) -> str:
    return f"ground {beans}"


def brew(ctx: task.ActivityContext, ground: str) -> str:
    return f"coffee of {ground}"


def pour(ctx: task.ActivityContext, coffee: str) -> str:
    return f"a cup of {coffee}"


with DurableTaskSchedulerWorker(**connection) as worker:
    worker.add_orchestrator(order_coffee)
    worker.add_activity(grind)
    worker.add_activity(brew)
    worker.add_activity(pour)
    worker.use_work_item_filters()  # this worker takes its own work alone
    worker.start()
    with DurableTaskSchedulerClient(**connection) as scheduler:
        order = scheduler.schedule_new_orchestration(order_coffee, input="arabica")
        state = scheduler.wait_for_orchestration_completion(order, timeout=60)
        state.raise_if_failed()
        print(state.get_output())
