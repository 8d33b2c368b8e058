package mainspring;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcWorker;
import com.microsoft.durabletask.NewOrchestrationInstanceOptions;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationStatusQuery;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;

/**
 * A Java program beside others: a client that is given one thing to do, or a worker that can be killed.
 *
 * <pre>
 * HOST PORT HUB start NAME ID INPUT      prints the id
 * HOST PORT HUB event ID NAME TEXT
 * HOST PORT HUB wait ID                  prints the output, as stored
 * HOST PORT HUB query PREFIX             prints the ids found, separated by blanks
 * HOST PORT HUB work FOLDER              works until it is killed; see {@link #work}
 * </pre>
 */
public final class Program {
    private Program() {}

    public static void main(String[] arguments) throws Exception {
        String verb = arguments[3];
        try (Hub hub = new Hub(arguments[0], Integer.parseInt(arguments[1]), arguments[2]);
                DurableTaskClient client = hub.client()) {
            switch (verb) {
                case "start" -> System.out.println(client.scheduleNewOrchestrationInstance(
                        arguments[4], new NewOrchestrationInstanceOptions().setInstanceId(arguments[5]).setInput(arguments[6])));
                case "event" -> client.raiseEvent(arguments[4], arguments[5], arguments[6]);
                case "wait" -> System.out.println(
                        client.waitForInstanceCompletion(arguments[4], Duration.ofSeconds(60), true).getSerializedOutput());
                case "query" -> System.out.println(String.join(" ", client
                        .queryInstances(new OrchestrationStatusQuery().setInstanceIdPrefix(arguments[4]))
                        .getOrchestrationState().stream().map(OrchestrationMetadata::getInstanceId).toList()));
                case "work" -> work(hub, Path.of(arguments[4]));
                default -> throw new IllegalArgumentException("unknown: " + verb);
            }
        }
    }

    /**
     * Orchestration {@code two_steps} calls activity {@code step} twice. Each run of the orchestrator's code and of the activity adds
     * a line to {@code episodes} or {@code activities} in the folder. While the folder holds a file {@code hold-episode} or
     * {@code hold-activity}, whatever begins there stays.
     */
    private static void work(Hub hub, Path folder) throws InterruptedException {
        DurableTaskGrpcWorker worker = Code.with(
                        hub.worker(),
                        "two_steps",
                        ctx -> {
                            note(folder, "episodes", "hold-episode");
                            int once = ctx.callActivity("step", 1, Integer.class).await();
                            ctx.complete(ctx.callActivity("step", once, Integer.class).await());
                        },
                        "step",
                        ctx -> {
                            note(folder, "activities", "hold-activity");
                            return ctx.getInput(Integer.class) + 1;
                        })
                .build();
        worker.start();
        System.out.println("working");
        Thread.sleep(Long.MAX_VALUE);
    }

    private static void note(Path folder, String what, String hold) {
        try {
            Files.writeString(folder.resolve(what), "run\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            while (Files.exists(folder.resolve(hold))) {
                Thread.sleep(10);
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }
}
