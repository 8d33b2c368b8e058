package mainspring;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** The real server as a process, on a folder of its own and ports that the system chose. */
final class Scheduler implements AutoCloseable {
    private static final String GRPC = "grpc listening on ";
    private static final String HEALTH = "health listening on ";
    private static final AtomicInteger HUBS = new AtomicInteger();
    private static Scheduler shared;

    final Path folder;
    private final List<String> flags;
    private String grpc = "127.0.0.1:0";
    private String health = "127.0.0.1:0";
    private Process process;

    Scheduler(String... flags) {
        this.flags = List.of(flags);
        try {
            folder = Files.createTempDirectory("mainspring-java-");
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
        restart();
    }

    /** One for all tests that do no harm to it. It ends with this process. */
    static synchronized Scheduler shared() {
        if (shared == null) {
            shared = new Scheduler("--dynamic-task-hubs");
            Runtime.getRuntime().addShutdownHook(new Thread(shared::close));
        }
        return shared;
    }

    static String binary() {
        String binary = System.getenv("MAINSPRING_BIN");
        if (binary == null) {
            throw new IllegalStateException("MAINSPRING_BIN has to name the server's binary");
        }
        return binary;
    }

    /** Starts the process, again on the same folder and ports if it was killed. */
    void restart() {
        List<String> command = new ArrayList<>(List.of(
                binary(), "serve", "--data-dir", folder.resolve("data").toString(), "--grpc-addr", grpc, "--health-addr", health));
        command.addAll(flags);
        try {
            process = new ProcessBuilder(command)
                    .redirectError(ProcessBuilder.Redirect.appendTo(log()))
                    .start();
            BufferedReader lines = new BufferedReader(new InputStreamReader(process.getInputStream()));
            grpc = announced(lines, GRPC);
            health = announced(lines, HEALTH);
            Thread drain = new Thread(() -> lines.lines().forEach(line -> {}));
            drain.setDaemon(true);
            drain.start();
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    private String announced(BufferedReader lines, String prefix) throws IOException {
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            if (line.startsWith(prefix)) {
                return line.substring(prefix.length());
            }
        }
        throw new IllegalStateException("the server ended at its start\n" + Files.readString(log().toPath()));
    }

    private File log() {
        return folder.resolve("server.log").toFile();
    }

    int port() {
        return Integer.parseInt(grpc.substring(grpc.lastIndexOf(':') + 1));
    }

    /** A hub that no other test has. */
    Hub hub() {
        return hub("java-" + HUBS.incrementAndGet());
    }

    Hub hub(String name) {
        return new Hub("127.0.0.1", port(), name);
    }

    /** Ends the process as a power cut would. */
    void kill() {
        process.destroyForcibly().onExit().join();
    }

    /** Asks it to drain, and waits until it is gone. */
    void stop() throws InterruptedException {
        process.destroy();
        if (!process.waitFor(15, TimeUnit.SECONDS)) {
            throw new IllegalStateException("the server did not stop in time");
        }
    }

    @Override
    public void close() {
        kill();
        try {
            String log = Files.readString(log().toPath());
            if (log.contains("panicked at")) {
                throw new IllegalStateException("the server panicked\n" + log);
            }
            try (var files = Files.walk(folder)) {
                files.sorted((a, b) -> b.compareTo(a)).forEach(file -> file.toFile().delete());
            }
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
