package mainspring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.durabletask.CompositeTaskFailedException;
import com.microsoft.durabletask.FailureDetails;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationRuntimeStatus;
import com.microsoft.durabletask.RetryPolicy;
import com.microsoft.durabletask.Task;
import com.microsoft.durabletask.TaskFailedException;
import com.microsoft.durabletask.TaskOptions;
import java.time.Duration;
import java.time.Instant;
import java.time.ZonedDateTime;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Activities, fan-out, timers, retries, failures. */
class FlowTest extends Suite {
    @Test
    void activitiesRunOneAfterTheOther() throws Exception {
        work("chain", ctx -> {
            int number = ctx.getInput(Integer.class);
            for (int step = 0; step < 10; step++) {
                number = ctx.callActivity("plusOne", number, Integer.class).await();
            }
            ctx.complete(number);
        }, "plusOne", ctx -> ctx.getInput(Integer.class) + 1);
        assertEquals(15, output(client.scheduleNewOrchestrationInstance("chain", 5), Integer.class));
    }

    @ParameterizedTest
    @ValueSource(ints = {100, 1_000})
    void manyActivitiesRunAtOnceAndAllAreCounted(int width) throws Exception {
        work("fan", ctx -> {
            List<Task<Integer>> tasks = IntStream.range(0, ctx.getInput(Integer.class))
                    .mapToObj(number -> ctx.callActivity("same", number, Integer.class)).toList();
            ctx.complete(ctx.allOf(tasks).await().stream().mapToInt(Integer::intValue).sum());
        }, "same", ctx -> ctx.getInput(Integer.class));
        String id = client.scheduleNewOrchestrationInstance("fan", width);
        assertEquals(width * (width - 1) / 2, output(id, Integer.class));
    }

    @Test
    void theFirstOfSeveralTasksWins() throws Exception {
        work("race", ctx -> {
            Task<String> fast = ctx.callActivity("echo", "fast", String.class);
            Task<?> winner = ctx.anyOf(ctx.createTimer(Duration.ofHours(1)), fast).await();
            ctx.complete(winner == fast ? fast.await() : "timer");
        }, "echo", ctx -> ctx.getInput(String.class));
        assertEquals("fast", output(client.scheduleNewOrchestrationInstance("race"), String.class));
    }

    @Test
    void aTimerFiresNoEarlierThanItIsDue() throws Exception {
        // S-6.1, S-3.6: this SDK finishes a timer only when the episode's clock has passed it.
        work("timer", ctx -> {
            Instant before = ctx.getCurrentInstant();
            ctx.createTimer(Duration.ofMillis(700)).await();
            ctx.createTimer(ZonedDateTime.now().minusHours(1)).await();
            ctx.complete(Duration.between(before, ctx.getCurrentInstant()).toMillis());
        });
        assertTrue(output(client.scheduleNewOrchestrationInstance("timer"), Long.class) >= 700);
    }

    @Test
    void aTimerThatTheWorkerSplitsFiresOnceAtItsEnd() throws Exception {
        // S-6.3: the SDK makes a chain of timers out of one that is longer than its interval. (Awaited alone, 1.5.0 goes on after the
        // first of them; in anyOf it waits for the last.)
        AtomicInteger runs = new AtomicInteger();
        started(hub.worker().maximumTimerInterval(Duration.ofSeconds(1)).addOrchestration(Code.orchestration("long", ctx -> {
            Instant before = ctx.getCurrentInstant();
            ctx.anyOf(ctx.createTimer(Duration.ofMillis(2_500))).await();
            runs.incrementAndGet();
            ctx.complete(Duration.between(before, ctx.getCurrentInstant()).toMillis());
        })).build());
        assertTrue(output(client.scheduleNewOrchestrationInstance("long"), Long.class) >= 2_500);
        assertEquals(1, runs.get());
    }

    @Test
    void aTimerOfManyDaysStaysPending() throws Exception {
        work("months", ctx -> {
            ctx.createTimer(Duration.ofDays(200)).await();
            ctx.complete(null);
        });
        String id = client.scheduleNewOrchestrationInstance("months");
        client.waitForInstanceStart(id, PATIENCE);
        assertEquals(OrchestrationRuntimeStatus.RUNNING, client.getInstanceMetadata(id, false).getRuntimeStatus());
    }

    @Test
    void aFailedActivityIsTriedAgainWithGrowingPauses() throws Exception {
        // S-5.4: attempts are the SDK's, each a task of its own.
        AtomicInteger attempts = new AtomicInteger();
        RetryPolicy policy = new RetryPolicy(4, Duration.ofMillis(100)).setBackoffCoefficient(2);
        work("retry", ctx -> {
            Instant before = ctx.getCurrentInstant();
            ctx.callActivity("flaky", null, new TaskOptions(policy), Integer.class).await();
            ctx.complete(Duration.between(before, ctx.getCurrentInstant()).toMillis());
        }, "flaky", ctx -> {
            if (attempts.incrementAndGet() < 4) {
                throw new IllegalStateException("not yet");
            }
            return attempts.get();
        });
        long elapsed = output(client.scheduleNewOrchestrationInstance("retry"), Long.class);
        assertTrue(elapsed >= 700, "after " + elapsed);
        assertEquals(4, attempts.get());
    }

    @Test
    void aHandlerDecidesWhetherToTryAgain() throws Exception {
        AtomicInteger attempts = new AtomicInteger();
        work("handler", ctx -> ctx.callActivity("fails", null, new TaskOptions(retry ->
                retry.getLastAttemptNumber() < 3 && retry.getLastFailure().isCausedBy(IllegalStateException.class)), Void.class).await(),
                "fails", ctx -> {
            attempts.incrementAndGet();
            throw new IllegalStateException("always");
        });
        ended(client.scheduleNewOrchestrationInstance("handler"));
        assertEquals(3, attempts.get());
    }

    @Test
    void aFailureReachesTheCallerWithTypeMessageAndTrace() throws Exception {
        // S-4.14, S-5.3
        work("fails", ctx -> {
            try {
                ctx.callActivity("broken").await();
            } catch (TaskFailedException error) {
                FailureDetails details = error.getErrorDetails();
                ctx.complete(List.of(error.getTaskName(), details.getErrorType(), details.getErrorMessage(),
                        String.valueOf(details.getStackTrace().contains("FlowTest"))));
            }
        }, "broken", ctx -> {
            throw new IllegalArgumentException("ünlucky");
        });
        List<?> caught = output(client.scheduleNewOrchestrationInstance("fails"), List.class);
        assertEquals(List.of("broken", "java.lang.IllegalArgumentException", "ünlucky", "true"), caught);
    }

    @Test
    void anOrchestratorThatThrowsIsFailedWithItsDetails() throws Exception {
        work("throws", ctx -> {
            throw new IllegalStateException("the end");
        });
        OrchestrationMetadata state = ended(client.scheduleNewOrchestrationInstance("throws"));
        assertEquals(OrchestrationRuntimeStatus.FAILED, state.getRuntimeStatus());
        assertEquals("java.lang.IllegalStateException", state.getFailureDetails().getErrorType());
        assertEquals("the end", state.getFailureDetails().getErrorMessage());
    }

    @Test
    void severalFailuresOfOneFanOutAreAllThere() throws Exception {
        work("fan", ctx -> {
            List<Task<Integer>> tasks = IntStream.range(0, 6)
                    .mapToObj(number -> ctx.callActivity("odd", number, Integer.class)).toList();
            try {
                ctx.allOf(tasks).await();
            } catch (CompositeTaskFailedException error) {
                ctx.complete(error.getExceptions().size());
            }
        }, "odd", ctx -> {
            if (ctx.getInput(Integer.class) % 2 == 1) {
                throw new IllegalStateException("odd");
            }
            return 0;
        });
        assertEquals(3, output(client.scheduleNewOrchestrationInstance("fan"), Integer.class));
    }

    @Test
    void anActivityThatNobodyHasFailsByName() throws Exception {
        // S-5.9
        work("calls", ctx -> ctx.callActivity("nobody").await());
        OrchestrationMetadata state = ended(client.scheduleNewOrchestrationInstance("calls"));
        assertTrue(state.getFailureDetails().getErrorMessage().contains("nobody"), state.getFailureDetails().getErrorMessage());
    }

    @Test
    void guidsAreTheSameAtEveryReplay() throws Exception {
        // S-3.6: equal clocks in two episodes would repeat them.
        work("guids", ctx -> {
            String first = ctx.newUUID().toString();
            ctx.callActivity("echo", first, String.class).await();
            ctx.createTimer(Duration.ofMillis(1)).await();
            ctx.complete(List.of(first, ctx.newUUID().toString()));
        }, "echo", ctx -> ctx.getInput(String.class));
        List<?> guids = output(client.scheduleNewOrchestrationInstance("guids"), List.class);
        assertEquals(2, guids.stream().distinct().count());
    }
}
