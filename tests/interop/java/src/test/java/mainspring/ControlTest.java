package mainspring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationRuntimeStatus;
import com.microsoft.durabletask.RetryPolicy;
import com.microsoft.durabletask.Task;
import com.microsoft.durabletask.TaskFailedException;
import com.microsoft.durabletask.TaskOptions;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** Children, and what clients do to running instances. Version 1.5.0 has no recursive terminate. */
class ControlTest extends Suite {
    private void workWithChild() {
        started(hub.worker()
                .addOrchestration(Code.orchestration("parent", ctx -> {
                    String id = ctx.getInput(String.class);
                    ctx.complete(id.isEmpty()
                            ? ctx.callSubOrchestrator("child", "x", String.class).await()
                            : ctx.callSubOrchestrator("child", "x", id, String.class).await());
                }))
                .addOrchestration(Code.orchestration("child", ctx -> {
                    ctx.createTimer(Duration.ofMillis(10)).await();
                    ctx.complete(ctx.getInput(String.class) + " by " + ctx.getInstanceId());
                }))
                .build());
    }

    @Test
    void aChildWithAnIdOfItsOwnGivesItsOutput() throws Exception {
        workWithChild();
        String id = client.scheduleNewOrchestrationInstance("parent", "the-child");
        assertEquals("x by the-child", output(id, String.class));
        assertEquals(OrchestrationRuntimeStatus.COMPLETED, client.getInstanceMetadata("the-child", false).getRuntimeStatus());
    }

    @Test
    void aChildWithoutAnIdGetsOne() throws Exception {
        workWithChild();
        String told = output(client.scheduleNewOrchestrationInstance("parent", ""), String.class);
        assertTrue(told.startsWith("x by ") && told.length() > 20, told);
    }

    @Test
    void manyChildrenRunAtOnce() throws Exception {
        started(hub.worker()
                .addOrchestration(Code.orchestration("parent", ctx -> {
                    List<Task<Integer>> children = IntStream.range(0, 50)
                            .mapToObj(number -> ctx.callSubOrchestrator("child", number, Integer.class)).toList();
                    ctx.complete(ctx.allOf(children).await().stream().mapToInt(Integer::intValue).sum());
                }))
                .addOrchestration(Code.orchestration("child", ctx -> ctx.complete(ctx.getInput(Integer.class))))
                .build());
        assertEquals(1225, output(client.scheduleNewOrchestrationInstance("parent"), Integer.class));
    }

    @Test
    void aFailedChildIsTriedAgainAndItsFailureReachesTheParent() throws Exception {
        // S-7.4, S-7.6: a retry may take the id of the failed child again.
        AtomicInteger attempts = new AtomicInteger();
        started(hub.worker()
                .addOrchestration(Code.orchestration("parent", ctx -> {
                    TaskOptions twice = new TaskOptions(new RetryPolicy(2, Duration.ofMillis(10)));
                    try {
                        ctx.callSubOrchestrator("child", null, "failing-child", twice, Void.class).await();
                    } catch (TaskFailedException error) {
                        ctx.complete(error.getErrorDetails().getErrorMessage());
                    }
                }))
                .addOrchestration(Code.orchestration("child", ctx -> {
                    attempts.incrementAndGet();
                    throw new IllegalStateException("no luck");
                }))
                .build());
        assertEquals("no luck", output(client.scheduleNewOrchestrationInstance("parent"), String.class));
        assertEquals(2, attempts.get());
    }

    @Test
    void aSuspendedOrchestrationHearsEventsOnlyAfterItIsResumed() throws Exception {
        // S-8.7
        work("listens", ctx -> ctx.complete(ctx.waitForExternalEvent("go", String.class).await()));
        String id = client.scheduleNewOrchestrationInstance("listens");
        client.waitForInstanceStart(id, PATIENCE);
        client.suspendInstance(id, "wait");
        assertEquals(OrchestrationRuntimeStatus.SUSPENDED, client.getInstanceMetadata(id, false).getRuntimeStatus());
        client.raiseEvent(id, "go", "late");
        assertThrows(TimeoutException.class, () -> client.waitForInstanceCompletion(id, Duration.ofMillis(500), false));
        client.resumeInstance(id, "go on");
        assertEquals("late", output(id, String.class));
    }

    @Test
    void aTerminatedOrchestrationEndsWithTheGivenOutput() throws Exception {
        // S-9.7
        work("listens", ctx -> ctx.waitForExternalEvent("never").await());
        String id = client.scheduleNewOrchestrationInstance("listens");
        client.waitForInstanceStart(id, PATIENCE);
        client.terminate(id, "enough");
        OrchestrationMetadata state = ended(id);
        assertEquals(OrchestrationRuntimeStatus.TERMINATED, state.getRuntimeStatus());
        assertEquals("enough", state.readOutputAs(String.class));
        client.terminate(id, "again");
        assertEquals("enough", ended(id).readOutputAs(String.class));
    }

    @Test
    void aSuspendedOrchestrationCanBeTerminated() throws Exception {
        // S-9.10
        work("listens", ctx -> ctx.waitForExternalEvent("never").await());
        String id = client.scheduleNewOrchestrationInstance("listens");
        client.suspendInstance(id);
        client.terminate(id, null);
        assertEquals(OrchestrationRuntimeStatus.TERMINATED, ended(id).getRuntimeStatus());
    }

    @Test
    void terminatingTheParentAloneLeavesItsChildRunning() throws Exception {
        // S-7.8, S-9.8
        started(hub.worker()
                .addOrchestration(Code.orchestration("parent", ctx -> ctx.callSubOrchestrator("child", null, "left", Void.class).await()))
                .addOrchestration(Code.orchestration("child", ctx -> ctx.complete(ctx.waitForExternalEvent("go", String.class).await())))
                .build());
        String id = client.scheduleNewOrchestrationInstance("parent");
        until("the child runs", () -> client.getInstanceMetadata("left", false).isRunning());
        client.terminate(id, null);
        ended(id);
        client.raiseEvent("left", "go", "alone");
        assertEquals("alone", output("left", String.class));
    }
}
