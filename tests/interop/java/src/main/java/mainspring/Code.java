package mainspring;

import com.microsoft.durabletask.DurableTaskGrpcWorkerBuilder;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskActivityFactory;
import com.microsoft.durabletask.TaskOrchestration;
import com.microsoft.durabletask.TaskOrchestrationFactory;

/** Orchestrators and activities as lambdas. */
public final class Code {
    private Code() {}

    public static TaskOrchestrationFactory orchestration(String name, TaskOrchestration code) {
        return new TaskOrchestrationFactory() {
            @Override
            public String getName() {
                return name;
            }

            @Override
            public TaskOrchestration create() {
                return code;
            }
        };
    }

    public static TaskActivityFactory activity(String name, TaskActivity code) {
        return new TaskActivityFactory() {
            @Override
            public String getName() {
                return name;
            }

            @Override
            public TaskActivity create() {
                return code;
            }
        };
    }

    /** Registers both at once. */
    public static DurableTaskGrpcWorkerBuilder with(
            DurableTaskGrpcWorkerBuilder worker, String orchestrator, TaskOrchestration code, String activity, TaskActivity task) {
        return worker.addOrchestration(orchestration(orchestrator, code)).addActivity(activity(activity, task));
    }
}
