"""An expense waits for a person's approval, but not for ever.

Approves by itself after a moment; with --reject it rejects, with --ignore nobody answers and the time runs out.
With a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS, the task hub in MAINSPRING_TASKHUB):

    pip install durabletask.azuremanaged==1.12.0
    python samples/python/human_interaction.py --reject
"""

import os
import sys
import time
from datetime import timedelta

from durabletask import task
from durabletask.azuremanaged.client import DurableTaskSchedulerClient
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker

connection = dict(
    host_address=os.environ.get("MAINSPRING_ADDRESS", "localhost:8080"),
    taskhub=os.environ.get("MAINSPRING_TASKHUB", "default"),
    token_credential=None,
    secure_channel=False,
)


def expense(ctx: task.OrchestrationContext, euros: int):
    yield ctx.call_activity(ask_manager, input=euros)
    approval = ctx.wait_for_external_event("approval", data_type=bool)
    # Three days in real life. The wait survives restarts of everything.
    deadline = ctx.create_timer(timedelta(seconds=5))
    winner = yield task.when_any([approval, deadline])
    if winner == deadline:
        return "nobody answered"
    deadline.cancel()
    return "paid" if approval.get_result() else "rejected"


def ask_manager(ctx: task.ActivityContext, euros: int) -> None:
    print(f"please approve {euros} euros", flush=True)


with DurableTaskSchedulerWorker(**connection) as worker:
    worker.add_orchestrator(expense)
    worker.add_activity(ask_manager)
    worker.use_work_item_filters()  # this worker takes its own work alone
    worker.start()
    with DurableTaskSchedulerClient(**connection) as scheduler:
        claim = scheduler.schedule_new_orchestration(expense, input=120)
        if "--ignore" not in sys.argv:
            time.sleep(1)  # the manager thinks
            scheduler.raise_orchestration_event(claim, "approval", data="--reject" not in sys.argv)
        state = scheduler.wait_for_orchestration_completion(claim, timeout=60)
        state.raise_if_failed()
        print(state.get_output())
