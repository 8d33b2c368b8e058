package mainspring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.NewOrchestrationInstanceOptions;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationRuntimeStatus;
import com.microsoft.durabletask.OrchestrationStatusQuery;
import com.microsoft.durabletask.OrchestrationStatusQueryResult;
import com.microsoft.durabletask.PurgeInstanceCriteria;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.Test;

/** Ids, versions, hubs, waits, queries, purge, restart, payloads. Version 1.5.0 has no tags and tells no versions. */
class InstancesTest extends Suite {
    private static final int LIMIT = 1 << 20;

    private void echoes() {
        work("echo", ctx -> ctx.complete(ctx.callActivity("same", ctx.getInput(String.class), String.class).await()),
                "same", ctx -> ctx.getInput(String.class));
    }

    @Test
    void anIdThatIsActiveIsTakenAndOneThatEndedIsNot() throws Exception {
        // S-10.3: without a policy
        work("listens", ctx -> ctx.complete(ctx.waitForExternalEvent("go", String.class).await()));
        client.scheduleNewOrchestrationInstance("listens", null, "one");
        StatusRuntimeException taken = assertThrows(StatusRuntimeException.class,
                () -> client.scheduleNewOrchestrationInstance("listens", null, "one"));
        assertEquals(Status.Code.ALREADY_EXISTS, taken.getStatus().getCode());
        client.raiseEvent("one", "go", "first");
        assertEquals("first", output("one", String.class));
        client.scheduleNewOrchestrationInstance("listens", null, "one");
        client.raiseEvent("one", "go", "second");
        assertEquals("second", output("one", String.class));
    }

    @Test
    void anInstanceIsRestartedUnderItsOwnIdOrANewOne() throws Exception {
        // S-9.21: this SDK restarts in the client, by a start with the same id and no policy.
        echoes();
        String id = client.scheduleNewOrchestrationInstance("echo", "again", "restarted");
        output(id, String.class);
        Instant created = client.getInstanceMetadata(id, false).getCreatedAt();
        assertEquals(id, client.restartInstance(id, false));
        assertEquals("again", output(id, String.class));
        assertTrue(client.getInstanceMetadata(id, false).getCreatedAt().isAfter(created));
        String other = client.restartInstance(id, true);
        assertNotEquals(id, other);
        assertEquals("again", output(other, String.class));
    }

    @Test
    void aMissingInstanceIsNotFound() {
        // S-11.1
        assertFalse(client.getInstanceMetadata("nobody", true).isInstanceFound());
        assertThrows(IllegalArgumentException.class, () -> client.restartInstance("nobody", false));
    }

    @Test
    void aWaitEndsInTimeOrWithTheInstance() throws Exception {
        // S-11.6, S-11.7
        work("listens", ctx -> ctx.complete(ctx.waitForExternalEvent("go", String.class).await()));
        assertThrows(TimeoutException.class, () -> client.waitForInstanceStart("nobody", Duration.ofMillis(200)));
        String id = client.scheduleNewOrchestrationInstance("listens");
        assertThrows(TimeoutException.class, () -> client.waitForInstanceCompletion(id, Duration.ofMillis(200), false));
        Thread raiser = new Thread(() -> client.raiseEvent(id, "go", "done"));
        raiser.start();
        // No time given: the SDK waits for ten minutes.
        assertEquals("done", client.waitForInstanceCompletion(id, null, true).readOutputAs(String.class));
        raiser.join();
    }

    @Test
    void aVersionIsKeptAndMayBeAnything() throws Exception {
        // S-16.1. This SDK does not tell it: the scheduler's own command line does.
        echoes();
        NewOrchestrationInstanceOptions options = new NewOrchestrationInstanceOptions().setVersion("2.0-β").setInput("x");
        String id = client.scheduleNewOrchestrationInstance("echo", options);
        assertEquals("x", output(id, String.class));
        Process shown = new ProcessBuilder(Scheduler.binary(), "instance", "get", id, "--json", "--hub", hub.name,
                "--addr", "127.0.0.1:" + Scheduler.shared().port()).start();
        String state = new String(shown.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertTrue(state.contains("2.0-β"), state);
    }

    @Test
    void instancesAreFoundByStatusIdAndTimePageByPage() throws Exception {
        // S-11.9, S-11.12
        echoes();
        for (int number = 0; number < 5; number++) {
            output(client.scheduleNewOrchestrationInstance("echo", "x", "found-" + number), String.class);
        }
        client.scheduleNewOrchestrationInstance("nobody", null, "found-not");
        List<String> ids = new ArrayList<>();
        OrchestrationStatusQuery query = new OrchestrationStatusQuery()
                .setInstanceIdPrefix("found-")
                .setRuntimeStatusList(List.of(OrchestrationRuntimeStatus.COMPLETED))
                .setCreatedTimeFrom(Instant.now().minusSeconds(600))
                .setFetchInputsAndOutputs(true)
                .setMaxInstanceCount(2);
        do {
            OrchestrationStatusQueryResult page = client.queryInstances(query);
            assertTrue(page.getOrchestrationState().size() <= 2);
            for (OrchestrationMetadata state : page.getOrchestrationState()) {
                assertEquals("x", state.readOutputAs(String.class));
                ids.add(state.getInstanceId());
            }
            query.setContinuationToken(page.getContinuationToken());
            // The SDK tells the end by an empty token.
        } while (!query.getContinuationToken().isEmpty());
        assertEquals(List.of("found-0", "found-1", "found-2", "found-3", "found-4"), ids.stream().sorted().toList());
        OrchestrationStatusQuery later = new OrchestrationStatusQuery().setCreatedTimeFrom(Instant.now().plusSeconds(600));
        assertEquals(List.of(), client.queryInstances(later).getOrchestrationState());
    }

    @Test
    void instancesArePurgedByIdAndByWhatTheyAre() throws Exception {
        // S-11.19 to S-11.22
        echoes();
        for (int number = 0; number < 4; number++) {
            output(client.scheduleNewOrchestrationInstance("echo", "x", "purged-" + number), String.class);
        }
        assertEquals(1, client.purgeInstance("purged-0").getDeletedInstanceCount());
        assertEquals(0, client.purgeInstance("purged-0").getDeletedInstanceCount());
        assertFalse(client.getInstanceMetadata("purged-0", false).isInstanceFound());
        PurgeInstanceCriteria criteria = new PurgeInstanceCriteria()
                .setRuntimeStatusList(List.of(OrchestrationRuntimeStatus.COMPLETED))
                .setCreatedTimeFrom(Instant.now().minusSeconds(600))
                .setTimeout(PATIENCE);
        assertEquals(3, client.purgeInstances(criteria).getDeletedInstanceCount());
    }

    @Test
    void aPayloadOfAMillionBytesGoesThrough() throws Exception {
        // S-14.1
        echoes();
        String payload = "x".repeat(1_000_000 - 2);
        assertEquals(payload, output(client.scheduleNewOrchestrationInstance("echo", payload), String.class));
    }

    @Test
    void anInputOneByteOverTheLimitIsRefusedByName() {
        // S-14.3: the quotes of the JSON text count.
        String payload = "x".repeat(LIMIT - 1);
        StatusRuntimeException refused = assertThrows(StatusRuntimeException.class,
                () -> client.scheduleNewOrchestrationInstance("echo", payload));
        assertEquals(Status.Code.INVALID_ARGUMENT, refused.getStatus().getCode());
        assertTrue(refused.getMessage().contains(String.valueOf(LIMIT)), refused.getMessage());
    }

    @Test
    void aResultOneByteOverTheLimitFailsTheTaskAndNothingElse() throws Exception {
        // S-14.4
        work("large", ctx -> ctx.complete(ctx.callActivity("makes", ctx.getInput(Integer.class), String.class).await().length()),
                "makes", ctx -> "x".repeat(ctx.getInput(Integer.class)));
        assertEquals(LIMIT - 2, output(client.scheduleNewOrchestrationInstance("large", LIMIT - 2), Integer.class));
        OrchestrationMetadata state = ended(client.scheduleNewOrchestrationInstance("large", LIMIT - 1));
        assertEquals(OrchestrationRuntimeStatus.FAILED, state.getRuntimeStatus());
        assertTrue(state.getFailureDetails().getErrorMessage().contains(String.valueOf(LIMIT)), state.getFailureDetails().getErrorMessage());
        assertEquals(3, output(client.scheduleNewOrchestrationInstance("large", 3), Integer.class));
    }

    @Test
    void lettersOfAllScriptsSurvive() throws Exception {
        echoes();
        String text = "Grüße, 世界, שלום, 🦀 \u0001 \"\\";
        String id = client.scheduleNewOrchestrationInstance("echo", text, "ид-世界-🦀");
        assertEquals("ид-世界-🦀", id);
        assertEquals(text, output(id, String.class));
        assertEquals(text, client.getInstanceMetadata(id, true).readInputAs(String.class));
    }

    @Test
    void theHubOfTheMetadataKeepsInstancesApartAndWithoutItTheFallbackServes() throws Exception {
        // S-1.5, S-1.6
        client.scheduleNewOrchestrationInstance("echo", "x", "here");
        Hub other = closing(Scheduler.shared().hub());
        DurableTaskClient there = closing(other.client());
        assertFalse(there.getInstanceMetadata("here", false).isInstanceFound());
        DurableTaskClient nowhere = closing(closing(Scheduler.shared().hub(null)).client());
        nowhere.scheduleNewOrchestrationInstance("echo", "x", "in-the-fallback-hub");
        DurableTaskClient byName = closing(closing(Scheduler.shared().hub("default")).client());
        assertTrue(byName.getInstanceMetadata("in-the-fallback-hub", false).isInstanceFound());
        assertFalse(client.getInstanceMetadata("in-the-fallback-hub", false).isInstanceFound());
    }
}
