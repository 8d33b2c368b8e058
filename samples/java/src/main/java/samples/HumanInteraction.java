package samples;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcClientBuilder;
import com.microsoft.durabletask.DurableTaskGrpcWorker;
import com.microsoft.durabletask.DurableTaskGrpcWorkerBuilder;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskActivityFactory;
import com.microsoft.durabletask.TaskCanceledException;
import com.microsoft.durabletask.TaskOrchestration;
import com.microsoft.durabletask.TaskOrchestrationFactory;
import java.time.Duration;

/**
 * An expense waits for a person's approval, but not for ever. Approves by itself; with argument {@code reject} it rejects, with
 * {@code ignore} nobody answers.
 *
 * <p>In this folder, with a scheduler at localhost:8080 (or the port in MAINSPRING_PORT):
 *
 * <pre>mvn -q compile exec:java -Dsample=HumanInteraction -Dexec.args=reject</pre>
 */
public final class HumanInteraction {
    public static void main(String[] arguments) throws Exception {
        String answer = arguments.length > 0 ? arguments[0] : "approve";
        int port = Integer.parseInt(System.getenv().getOrDefault("MAINSPRING_PORT", "8080"));
        try (DurableTaskGrpcWorker worker = new DurableTaskGrpcWorkerBuilder()
                        .port(port).addOrchestration(new Expense()).addActivity(new AskManager()).build();
                DurableTaskClient client = new DurableTaskGrpcClientBuilder().port(port).build()) {
            worker.start();
            String id = client.scheduleNewOrchestrationInstance("Expense", 120);
            client.waitForInstanceStart(id, Duration.ofSeconds(60));
            if (!answer.equals("ignore")) {
                client.raiseEvent(id, "Approval", answer.equals("approve"));
            }
            System.out.println(client.waitForInstanceCompletion(id, Duration.ofSeconds(60), true).readOutputAs(String.class));
        }
        // The SDK's reader thread would go on.
        System.exit(0);
    }

    static class Expense implements TaskOrchestrationFactory {
        @Override
        public String getName() {
            return "Expense";
        }

        @Override
        public TaskOrchestration create() {
            return ctx -> {
                ctx.callActivity("AskManager", ctx.getInput(Integer.class)).await();
                try {
                    // Three days in real life. The wait survives restarts of everything.
                    boolean approved = ctx.waitForExternalEvent("Approval", Duration.ofSeconds(3), Boolean.class).await();
                    ctx.complete(approved ? "paid" : "rejected");
                } catch (TaskCanceledException timeout) {
                    ctx.complete("nobody answered");
                }
            };
        }
    }

    static class AskManager implements TaskActivityFactory {
        @Override
        public String getName() {
            return "AskManager";
        }

        @Override
        public TaskActivity create() {
            return ctx -> {
                System.out.println("please approve " + ctx.getInput(Integer.class));
                return null;
            };
        }
    }
}
