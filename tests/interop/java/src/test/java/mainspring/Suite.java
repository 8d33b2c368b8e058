package mainspring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.fail;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcWorker;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationRuntimeStatus;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskOrchestration;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;

/** A hub of its own for each test, with a client and a worker that a test fills. */
abstract class Suite {
    static final Duration PATIENCE = Duration.ofSeconds(60);

    private final Deque<AutoCloseable> opened = new ArrayDeque<>();
    Hub hub;
    DurableTaskClient client;

    @BeforeEach
    void open() {
        use(Scheduler.shared().hub());
    }

    @AfterEach
    void close() throws Exception {
        while (!opened.isEmpty()) {
            opened.pop().close();
        }
    }

    <T extends AutoCloseable> T closing(T resource) {
        opened.push(resource);
        return resource;
    }

    void use(Hub other) {
        hub = closing(other);
        client = closing(hub.client());
    }

    /** A worker with one orchestrator and one activity. */
    DurableTaskGrpcWorker work(String orchestrator, TaskOrchestration code, String activity, TaskActivity task) {
        return started(Code.with(hub.worker(), orchestrator, code, activity, task).build());
    }

    DurableTaskGrpcWorker work(String orchestrator, TaskOrchestration code) {
        return started(hub.worker().addOrchestration(Code.orchestration(orchestrator, code)).build());
    }

    DurableTaskGrpcWorker started(DurableTaskGrpcWorker worker) {
        worker.start();
        return closing(worker);
    }

    /** Waits for the end of an instance; while the server is away, and the channel backs off, it asks again. */
    OrchestrationMetadata ended(String id) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (true) {
            try {
                return client.waitForInstanceCompletion(id, PATIENCE, true);
            } catch (StatusRuntimeException error) {
                if (error.getStatus().getCode() != Status.Code.UNAVAILABLE || System.nanoTime() > deadline) {
                    throw error;
                }
                Thread.sleep(50);
            }
        }
    }

    /** The output of an instance that completed. */
    <T> T output(String id, Class<T> type) throws Exception {
        OrchestrationMetadata state = ended(id);
        assertEquals(OrchestrationRuntimeStatus.COMPLETED, state.getRuntimeStatus(), () -> String.valueOf(state.getFailureDetails()));
        return state.readOutputAs(type);
    }

    /** Waits until something is true; the limit only ends a hang. */
    static void until(String what, BooleanSupplier isTrue) throws InterruptedException {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!isTrue.getAsBoolean()) {
            if (System.nanoTime() > deadline) {
                fail("in vain: " + what);
            }
            Thread.sleep(5);
        }
    }
}
