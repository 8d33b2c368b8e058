package mainspring;

import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcClientBuilder;
import com.microsoft.durabletask.DurableTaskGrpcWorkerBuilder;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A task hub of a scheduler, as a user of the SDK reaches it: a channel whose interceptor names the hub. Counts how often work
 * items were asked for.
 */
public final class Hub implements AutoCloseable {
    private static final Metadata.Key<String> TASK_HUB = Metadata.Key.of("taskhub", Metadata.ASCII_STRING_MARSHALLER);

    private final ManagedChannel connection;
    private final AtomicInteger streams = new AtomicInteger();
    public final Channel channel;
    public final String name;

    /** A null name leaves the choice to the scheduler. */
    public Hub(String host, int port, String name) {
        this.name = name;
        connection = ManagedChannelBuilder.forAddress(host, port).usePlaintext().maxInboundMessageSize(8 << 20).build();
        channel = ClientInterceptors.intercept(connection, new ClientInterceptor() {
            @Override
            public <I, O> ClientCall<I, O> interceptCall(MethodDescriptor<I, O> method, CallOptions options, Channel next) {
                if (method.getBareMethodName().equals("GetWorkItems")) {
                    streams.incrementAndGet();
                }
                return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
                    @Override
                    public void start(Listener<O> listener, Metadata headers) {
                        if (name != null) {
                            headers.put(TASK_HUB, name);
                        }
                        super.start(listener, headers);
                    }
                };
            }
        });
    }

    public DurableTaskClient client() {
        return new DurableTaskGrpcClientBuilder().grpcChannel(channel).build();
    }

    public DurableTaskGrpcWorkerBuilder worker() {
        return new DurableTaskGrpcWorkerBuilder().grpcChannel(channel);
    }

    /** How often a worker of this hub has opened a stream, or tried to. */
    public int streams() {
        return streams.get();
    }

    @Override
    public void close() {
        connection.shutdownNow();
    }
}
