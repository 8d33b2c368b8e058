package mainspring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.durabletask.NewOrchestrationInstanceOptions;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationRuntimeStatus;
import com.microsoft.durabletask.Task;
import com.microsoft.durabletask.TaskCanceledException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** External events, continue-as-new, custom status. */
class EventsTest extends Suite {
    @Test
    void anEventIsDeliveredToAWaitingOrchestration() throws Exception {
        work("listens", ctx -> ctx.complete(ctx.waitForExternalEvent("go", String.class).await()));
        String id = client.scheduleNewOrchestrationInstance("listens");
        client.waitForInstanceStart(id, PATIENCE);
        client.raiseEvent(id, "go", "on");
        assertEquals("on", output(id, String.class));
    }

    @Test
    void eventsBeforeTheStartAreKeptInOrder() throws Exception {
        // S-6.6, S-8.2
        work("listens", ctx -> {
            List<Integer> heard = new ArrayList<>();
            for (int number = 0; number < 5; number++) {
                heard.add(ctx.waitForExternalEvent("e", Integer.class).await());
            }
            ctx.complete(heard);
        });
        String id = client.scheduleNewOrchestrationInstance("listens",
                new NewOrchestrationInstanceOptions().setStartTime(Instant.now().plusMillis(500)));
        for (int number = 0; number < 5; number++) {
            client.raiseEvent(id, "e", number);
        }
        assertEquals(OrchestrationRuntimeStatus.PENDING, client.getInstanceMetadata(id, false).getRuntimeStatus());
        assertEquals(List.of(0, 1, 2, 3, 4), output(id, List.class));
    }

    @Test
    void aWaitWithATimeLimitIsCancelled() throws Exception {
        work("impatient", ctx -> {
            try {
                ctx.waitForExternalEvent("never", Duration.ofMillis(100), String.class).await();
                ctx.complete("heard");
            } catch (TaskCanceledException error) {
                ctx.complete("gave up");
            }
        });
        assertEquals("gave up", output(client.scheduleNewOrchestrationInstance("impatient"), String.class));
    }

    @Test
    void anEventWithoutAListenerDoesNoHarm() throws Exception {
        // S-8.4
        client.raiseEvent("nobody", "go", 1);
        work("ends", ctx -> ctx.complete("ended"));
        String id = client.scheduleNewOrchestrationInstance("ends");
        assertEquals("ended", output(id, String.class));
        client.raiseEvent(id, "go", 1);
        assertEquals(OrchestrationRuntimeStatus.COMPLETED, client.getInstanceMetadata(id, false).getRuntimeStatus());
    }

    @Test
    void oneOrchestrationSendsAnotherAnEvent() throws Exception {
        // In the sender's last episode: 1.5.0 cannot replay EventSent (S-3.15).
        started(hub.worker().addOrchestration(Code.orchestration("listens", ctx ->
                ctx.complete(ctx.waitForExternalEvent("go", String.class).await())))
                .addOrchestration(Code.orchestration("sends", ctx -> {
                    ctx.sendEvent(ctx.getInput(String.class), "go", "from another");
                    ctx.complete(null);
                })).build());
        String listener = client.scheduleNewOrchestrationInstance("listens");
        client.scheduleNewOrchestrationInstance("sends", listener);
        assertEquals("from another", output(listener, String.class));
    }

    @Test
    void aNewGenerationBeginsWithItsInputAndAnEmptyHistory() throws Exception {
        // S-3.17, S-3.21
        work("counts", ctx -> {
            int round = ctx.getInput(Integer.class);
            ctx.createTimer(Duration.ofMillis(1)).await();
            if (round < 20) {
                ctx.continueAsNew(round + 1);
            } else {
                ctx.complete(round);
            }
        });
        assertEquals(20, output(client.scheduleNewOrchestrationInstance("counts", 1), Integer.class));
    }

    @Test
    void eventsThatNobodyTookAreKeptAcrossGenerations() throws Exception {
        // S-3.11, S-3.19: this SDK carries events over in an order of its own; equal ones must not collapse.
        work("sums", ctx -> {
            int sum = ctx.getInput(Integer.class);
            sum += ctx.waitForExternalEvent("add", Integer.class).await();
            if (sum < 10) {
                ctx.continueAsNew(sum, true);
            } else {
                ctx.complete(sum);
            }
        });
        String id = client.scheduleNewOrchestrationInstance("sums", 0);
        client.waitForInstanceStart(id, PATIENCE);
        client.suspendInstance(id);
        for (int number = 0; number < 10; number++) {
            client.raiseEvent(id, "add", 1);
        }
        client.resumeInstance(id);
        assertEquals(10, output(id, Integer.class));
    }

    @Test
    void eventsThatNobodyTookAreForgottenWhenToldSo() throws Exception {
        work("forgets", ctx -> {
            boolean isFirst = ctx.getInput(Boolean.class);
            Task<Integer> event = ctx.waitForExternalEvent("e", Integer.class);
            if (isFirst) {
                event.await();
                ctx.continueAsNew(false, false);
            } else {
                Task<Void> timer = ctx.createTimer(Duration.ofMillis(300));
                ctx.complete(ctx.anyOf(event, timer).await() == timer);
            }
        });
        String id = client.scheduleNewOrchestrationInstance("forgets",
                new NewOrchestrationInstanceOptions().setInput(true).setStartTime(Instant.now().plusSeconds(2)));
        IntStream.range(0, 3).forEach(number -> client.raiseEvent(id, "e", number));
        assertTrue(output(id, Boolean.class));
    }

    @Test
    void theCustomStatusIsSetReplacedAndCleared() throws Exception {
        // S-3.23: cleared reads as absent.
        work("shows", ctx -> {
            ctx.setCustomStatus("first");
            ctx.waitForExternalEvent("a").await();
            ctx.setCustomStatus(List.of(1, 2));
            ctx.waitForExternalEvent("b").await();
            ctx.clearCustomStatus();
            ctx.complete(null);
        });
        String id = client.scheduleNewOrchestrationInstance("shows");
        OrchestrationMetadata state = client.waitForInstanceStart(id, PATIENCE, true);
        assertEquals("first", state.readCustomStatusAs(String.class));
        client.raiseEvent(id, "a");
        until("the second status", () -> client.getInstanceMetadata(id, true).readCustomStatusAs(Object.class) instanceof List<?>);
        client.raiseEvent(id, "b");
        OrchestrationMetadata end = ended(id);
        assertEquals(OrchestrationRuntimeStatus.COMPLETED, end.getRuntimeStatus());
        assertEquals(false, end.isCustomStatusFetched());
    }
}
