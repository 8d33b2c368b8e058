package mainspring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.durabletask.DurableTaskGrpcWorker;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The server or the worker is lost, refuses, or is misused. Each test has a server of its own. */
class FaultsTest extends Suite {
    /** Longest time until work goes on after an answer that could not be taken. */
    private static final Duration RECOVERY = Duration.ofSeconds(10);

    @TempDir
    Path folder;

    private Scheduler own(String... flags) {
        Scheduler scheduler = closing(new Scheduler(flags));
        use(scheduler.hub("default"));
        return scheduler;
    }

    @Test
    void twoHundredOrchestrationsGoOnAfterTheServerWasKilled() throws Exception {
        Scheduler scheduler = own();
        AtomicInteger activities = new AtomicInteger();
        work("steps", ctx -> {
            int number = ctx.getInput(Integer.class);
            for (int step = 0; step < 3; step++) {
                number = ctx.callActivity("plusOne", number, Integer.class).await();
                ctx.createTimer(Duration.ofMillis(5)).await();
            }
            ctx.complete(number);
        }, "plusOne", ctx -> {
            activities.incrementAndGet();
            return ctx.getInput(Integer.class) + 1;
        });
        List<String> ids = new ArrayList<>();
        for (int number = 0; number < 200; number++) {
            ids.add(client.scheduleNewOrchestrationInstance("steps", number));
        }
        until("some are in the middle", () -> activities.get() >= 150);
        scheduler.kill();
        scheduler.restart();
        for (int number = 0; number < 200; number++) {
            assertEquals(number + 3, output(ids.get(number), Integer.class));
        }
    }

    private Process workerProcess(Scheduler scheduler) throws Exception {
        Process process = new ProcessBuilder(ProcessHandle.current().info().command().orElse("java"),
                "-cp", System.getProperty("java.class.path"), "mainspring.Program",
                "127.0.0.1", String.valueOf(scheduler.port()), "default", "work", folder.toString())
                .redirectError(ProcessBuilder.Redirect.DISCARD).start();
        assertEquals("working", new BufferedReader(new InputStreamReader(process.getInputStream())).readLine());
        return process;
    }

    private long runs(String what) {
        try {
            Path file = folder.resolve(what);
            return Files.exists(file) ? Files.readAllLines(file).size() : 0;
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"hold-episode", "hold-activity"})
    void whatAKilledWorkerHadInHandIsDoneByTheNext(String hold) throws Exception {
        // S-13.19, S-4.5, S-4.17, S-5.10: the same item again, answered without a token, counts once.
        Scheduler scheduler = own();
        Path holding = Files.createFile(folder.resolve(hold));
        String what = hold.equals("hold-episode") ? "episodes" : "activities";
        Process lost = workerProcess(scheduler);
        String id = client.scheduleNewOrchestrationInstance("two_steps");
        until("the worker is in the middle", () -> runs(what) == 1);
        lost.destroyForcibly().onExit().join();
        Files.delete(holding);
        Process next = workerProcess(scheduler);
        try {
            assertEquals(3, output(id, Integer.class));
            assertEquals(hold.equals("hold-activity") ? 3 : 2, runs("activities"));
        } finally {
            next.destroyForcibly().onExit().join();
        }
    }

    @Test
    void anAnswerThatComesAfterTheItemWasHandedOutAgainChangesNothing() throws Exception {
        // S-4.5, S-5.10: the lease runs out while the first run goes on; neither answer has a token.
        Scheduler scheduler = own("--activity-lease-max", "1s");
        AtomicInteger runs = new AtomicInteger();
        AtomicBoolean isHeld = new AtomicBoolean(true);
        work("waits", ctx -> {
            int first = ctx.callActivity("slow", Integer.class).await();
            int second = ctx.callActivity("slow", Integer.class).await();
            ctx.complete(List.of(first, second));
        }, "slow", ctx -> {
            int run = runs.incrementAndGet();
            while (run == 1 && isHeld.get()) {
                pause();
            }
            return run == 1 ? 1 : 2;
        });
        String id = client.scheduleNewOrchestrationInstance("waits");
        until("the first run began", () -> runs.get() == 1);
        // Another worker, since this SDK's reads nothing while it works.
        Hub second = closing(scheduler.hub("default"));
        started(Code.with(second.worker(), "none", ctx -> {}, "slow", ctx -> {
            runs.incrementAndGet();
            return 2;
        }).addOrchestration(Code.orchestration("waits", ctx -> {
            int first = ctx.callActivity("slow", Integer.class).await();
            int next = ctx.callActivity("slow", Integer.class).await();
            ctx.complete(List.of(first, next));
        })).build());
        until("it was handed out again", () -> runs.get() >= 2);
        isHeld.set(false);
        List<?> output = output(id, List.class);
        assertEquals(2, output.get(1));
        assertTrue(List.of(1, 2).contains(output.get(0)), output.toString());
    }

    @Test
    void anAnswerTooLargeToBeReceivedEndsItsStreamAndNothingElse() throws Exception {
        // S-13.25, S-13.28
        own();
        AtomicInteger runs = new AtomicInteger();
        work("large", ctx -> ctx.complete(ctx.callActivity("grows", ctx.getInput(Boolean.class), Integer.class).await()),
                "grows", ctx -> {
            if (!ctx.getInput(Boolean.class)) {
                return 1;
            }
            return runs.incrementAndGet() == 1 ? "x".repeat(70 << 20) : (Object) 2;
        });
        String large = client.scheduleNewOrchestrationInstance("large", true);
        until("the answer was made", () -> runs.get() == 1);
        String other = client.scheduleNewOrchestrationInstance("large", false);
        assertEquals(1, client.waitForInstanceCompletion(other, RECOVERY, true).readOutputAs(Integer.class));
        assertEquals(2, client.waitForInstanceCompletion(large, RECOVERY, true).readOutputAs(Integer.class));
        assertEquals(2, runs.get());
    }

    @Test
    void aWorkerWhoseReaderDiedIsReplacedByItsSuccessorOnTheSameChannel() throws Exception {
        // S-13.24: an Error ends the thread that reads, and leaves its stream open.
        own();
        AtomicInteger episodes = new AtomicInteger();
        DurableTaskGrpcWorker dies = hub.worker().addOrchestration(Code.orchestration("kills", ctx -> {
            episodes.incrementAndGet();
            throw new StackOverflowError("the reader's end");
        })).build();
        started(dies);
        String id = client.scheduleNewOrchestrationInstance("kills");
        until("the reader died", () -> episodes.get() == 1);
        work("kills", ctx -> ctx.complete("alive"));
        // What is handed to the dead reader meanwhile comes back, once its successor has answered something.
        AtomicInteger alive = new AtomicInteger();
        until("its successor answers", () -> isAlive(client.scheduleNewOrchestrationInstance("kills", null, "n" + alive.incrementAndGet())));
        assertEquals("alive", output(id, String.class));
        assertEquals("alive", output("n1", String.class));
    }

    /** False while the channel backs off. */
    private boolean isStarted(String name, String id) {
        try {
            client.scheduleNewOrchestrationInstance(name, null, id);
            return true;
        } catch (StatusRuntimeException error) {
            return error.getStatus().getCode() == Status.Code.ALREADY_EXISTS;
        }
    }

    private boolean isAlive(String id) {
        try {
            return client.waitForInstanceCompletion(id, Duration.ofSeconds(1), false).isCompleted();
        } catch (java.util.concurrent.TimeoutException error) {
            return false;
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"refuses", "drains", "is gone"})
    void aWorkerDoesNotStormAServerThat(String how) throws Exception {
        // S-1.10, S-13.4: fewer than three tries a second.
        Scheduler scheduler = how.equals("refuses") ? own("--token", "secret-secret-secret") : own();
        work("none", ctx -> {});
        if (how.equals("refuses")) {
            until("it tried", () -> hub.streams() >= 1);
        } else {
            until("it is connected", () -> hub.streams() == 1);
            ended(client.scheduleNewOrchestrationInstance("none"));
        }
        int before = hub.streams();
        if (!how.equals("refuses")) {
            if (how.equals("drains")) {
                scheduler.stop();
            } else {
                scheduler.kill();
            }
        }
        Thread.sleep(3_000);
        int tries = hub.streams() - before;
        assertTrue(tries < 9, tries + " tries in three seconds");
        if (!how.equals("refuses")) {
            scheduler.restart();
            until("it is back", () -> isStarted("none", "back"));
            assertTrue(ended("back").isCompleted());
        }
    }

    private static void pause() {
        try {
            Thread.sleep(10);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }
}
