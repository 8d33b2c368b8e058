package samples;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcClientBuilder;
import com.microsoft.durabletask.DurableTaskGrpcWorker;
import com.microsoft.durabletask.DurableTaskGrpcWorkerBuilder;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskActivityFactory;
import com.microsoft.durabletask.TaskOrchestration;
import com.microsoft.durabletask.TaskOrchestrationFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * Three activities in a row, each given what the one before returned.
 *
 * <p>In this folder, with a scheduler at localhost:8080 (or the port in MAINSPRING_PORT):
 *
 * <pre>mvn -q compile exec:java -Dsample=Sequence</pre>
 */
public final class Sequence {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(System.getenv().getOrDefault("MAINSPRING_PORT", "8080"));
        try (DurableTaskGrpcWorker worker = new DurableTaskGrpcWorkerBuilder()
                        .port(port).addOrchestration(new Greetings()).addActivity(new SayHello()).build();
                DurableTaskClient client = new DurableTaskGrpcClientBuilder().port(port).build()) {
            worker.start();
            String id = client.scheduleNewOrchestrationInstance("Greetings", List.of("Tokyo", "Lisbon", "Quito"));
            System.out.println(client.waitForInstanceCompletion(id, Duration.ofSeconds(60), true).getSerializedOutput());
        }
        // The SDK's reader thread would go on.
        System.exit(0);
    }

    static class Greetings implements TaskOrchestrationFactory {
        @Override
        public String getName() {
            return "Greetings";
        }

        @Override
        public TaskOrchestration create() {
            return ctx -> {
                List<String> greetings = new ArrayList<>();
                for (Object city : ctx.getInput(List.class)) {
                    greetings.add(ctx.callActivity("SayHello", city, String.class).await());
                }
                ctx.complete(greetings);
            };
        }
    }

    static class SayHello implements TaskActivityFactory {
        @Override
        public String getName() {
            return "SayHello";
        }

        @Override
        public TaskActivity create() {
            return ctx -> "Hello " + ctx.getInput(String.class) + "!";
        }
    }
}
