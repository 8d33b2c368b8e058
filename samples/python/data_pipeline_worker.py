"""The Python half of samples/data_pipeline.rs, which starts it: a worker with one activity, for the scheduler at the address given."""

import statistics
import sys
import threading

from durabletask import task
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker


def mean_in_python(ctx: task.ActivityContext, rows: list[int]) -> float:
    return statistics.fmean(rows)


with DurableTaskSchedulerWorker(
    host_address=sys.argv[1], taskhub="default", token_credential=None, secure_channel=False
) as worker:
    worker.add_activity(mean_in_python)
    # Only what is registered here: the other steps are somebody else's.
    worker.use_work_item_filters()
    worker.start()
    threading.Event().wait()
