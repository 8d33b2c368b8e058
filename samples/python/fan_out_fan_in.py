"""Counts the words of many texts at once and adds them up.

With a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS, the task hub in MAINSPRING_TASKHUB):

    pip install durabletask.azuremanaged==1.12.0
    python samples/python/fan_out_fan_in.py
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


def total_words(ctx: task.OrchestrationContext, texts: list[str]):
    # All are under way before the first is waited for; the results come back in the order of the texts.
    counts = yield task.when_all([ctx.call_activity(count_words, input=text) for text in texts])
    return {"each": counts, "total": sum(counts)}


def count_words(ctx: task.ActivityContext, text: str) -> int:
    return len(text.split())


with DurableTaskSchedulerWorker(**connection) as worker:
    worker.add_orchestrator(total_words)
    worker.add_activity(count_words)
    worker.use_work_item_filters()  # this worker takes its own work alone
    worker.start()
    with DurableTaskSchedulerClient(**connection) as scheduler:
        texts = ["the quick brown fox", "jumps over", "the lazy dog"]
        count = scheduler.schedule_new_orchestration(total_words, input=texts)
        state = scheduler.wait_for_orchestration_completion(count, timeout=60)
        state.raise_if_failed()
        print(state.get_output())
