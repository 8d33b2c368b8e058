package samples;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcClientBuilder;
import com.microsoft.durabletask.DurableTaskGrpcWorker;
import com.microsoft.durabletask.DurableTaskGrpcWorkerBuilder;
import com.microsoft.durabletask.Task;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskActivityFactory;
import com.microsoft.durabletask.TaskOrchestration;
import com.microsoft.durabletask.TaskOrchestrationFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * Many activities at once, and one result of all of them.
 *
 * <p>In this folder, with a scheduler at localhost:8080 (or the port in MAINSPRING_PORT):
 *
 * <pre>mvn -q compile exec:java -Dsample=FanOutFanIn</pre>
 */
public final class FanOutFanIn {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(System.getenv().getOrDefault("MAINSPRING_PORT", "8080"));
        try (DurableTaskGrpcWorker worker = new DurableTaskGrpcWorkerBuilder()
                        .port(port).addOrchestration(new WordCount()).addActivity(new CountWords()).build();
                DurableTaskClient client = new DurableTaskGrpcClientBuilder().port(port).build()) {
            worker.start();
            List<String> pages = List.of("to be or not", "to be", "that is the question");
            String id = client.scheduleNewOrchestrationInstance("WordCount", pages);
            int words = client.waitForInstanceCompletion(id, Duration.ofSeconds(60), true).readOutputAs(Integer.class);
            System.out.println(words + " words on " + pages.size() + " pages");
        }
        // The SDK's reader thread would go on.
        System.exit(0);
    }

    static class WordCount implements TaskOrchestrationFactory {
        @Override
        public String getName() {
            return "WordCount";
        }

        @Override
        public TaskOrchestration create() {
            return ctx -> {
                List<Task<Integer>> counts = new ArrayList<>();
                for (Object page : ctx.getInput(List.class)) {
                    counts.add(ctx.callActivity("CountWords", page, Integer.class));
                }
                ctx.complete(ctx.allOf(counts).await().stream().mapToInt(Integer::intValue).sum());
            };
        }
    }

    static class CountWords implements TaskActivityFactory {
        @Override
        public String getName() {
            return "CountWords";
        }

        @Override
        public TaskActivity create() {
            return ctx -> ctx.getInput(String.class).split(" ").length;
        }
    }
}
