package peers;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.MessageProperties;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * RabbitMQ: a quorum queue on three nodes, persistent messages, publisher confirms.
 *
 * <p>What is not confirmed when a connection ends, or is refused, is sent again over a new one, so
 * that nothing is lost; the queue has no duplicate check, so some may come twice. Both clients
 * connect to the first node that answers, which also leads the queue, since it was declared there.
 */
public final class RabbitmqDriver implements Driver {
    private static final int PREFETCH = 2_000;
    private static final int ACK_EVERY_AT_MOST = 100;
    private static final int AHEAD_MAX = 5_000;
    private static final int CONNECT_TIMEOUT_MS = 1_500;
    private static final int ABORT_TIMEOUT_MS = 300;
    private static final int TRY_AGAIN_MS = 100;
    private static final long RECONNECT_NS = TimeUnit.MILLISECONDS.toNanos(100);

    private String[] ports;
    private String queue;
    private String leaderCommand;
    private String versions;
    private Inbox inbox;
    private volatile int ackEvery = 1;
    private Channel publisher;
    private long connectedNs;
    private NavigableMap<Long, Message> unconfirmed = new ConcurrentSkipListMap<>();
    private final ConcurrentLinkedQueue<Message> again = new ConcurrentLinkedQueue<>();

    public static void main(String[] args) {
        Load.run(args, new RabbitmqDriver());
    }

    @Override
    public void open(Options options, Inbox inbox) throws Exception {
        this.inbox = inbox;
        ports = options.text("ports").split(",");
        queue = options.text("topic");
        leaderCommand = options.text("leader-command", null);
        try (Connection connection = connect()) {
            Map<String, Object> arguments =
                    Map.of("x-queue-type", "quorum", "x-quorum-initial-group-size", ports.length);
            connection.createChannel().queueDeclare(queue, true, false, false, arguments);
            versions =
                    String.format(
                            "RabbitMQ server %s on %s, Java client %s",
                            connection.getServerProperties().get("version"),
                            connection.getServerProperties().get("platform"),
                            connection.getClientProperties().get("version"));
        }
        openPublisher();
        Thread thread = new Thread(this::subscribeForEver, "subscriber");
        thread.start();
    }

    /** To the first node that answers, in the order given. */
    private Connection connect() throws InterruptedException {
        while (true) {
            for (String port : ports) {
                ConnectionFactory factory = new ConnectionFactory();
                factory.setHost("127.0.0.1");
                factory.setPort(Integer.parseInt(port));
                factory.setAutomaticRecoveryEnabled(false);
                factory.setConnectionTimeout(CONNECT_TIMEOUT_MS);
                try {
                    return factory.newConnection();
                } catch (IOException | TimeoutException error) {
                    // The next one, then.
                }
            }
            Thread.sleep(TRY_AGAIN_MS);
        }
    }

    private void openPublisher() throws Exception {
        NavigableMap<Long, Message> pending = new ConcurrentSkipListMap<>();
        Channel channel = connect().createChannel();
        channel.confirmSelect();
        channel.addConfirmListener(
                (tag, multiple) -> settled(pending, tag, multiple, true),
                (tag, multiple) -> settled(pending, tag, multiple, false));
        unconfirmed = pending;
        publisher = channel;
        connectedNs = System.nanoTime();
    }

    private void settled(
            NavigableMap<Long, Message> pending, long tag, boolean multiple, boolean confirmed) {
        NavigableMap<Long, Message> settled =
                multiple ? pending.headMap(tag, true) : pending.subMap(tag, true, tag, true);
        for (Message message : settled.values()) {
            if (confirmed) {
                message.acknowledged();
            } else {
                message.refused("the queue did not take it");
                again.add(message);
            }
        }
        settled.clear();
    }

    private void subscribeForEver() {
        while (true) {
            try {
                Connection connection = connect();
                Channel channel = connection.createChannel();
                channel.basicQos(PREFETCH);
                Thread waiting = Thread.currentThread();
                channel.addShutdownListener(cause -> waiting.interrupt());
                channel.basicConsume(queue, false, consumer(channel, waiting));
                sleepUntilInterrupted();
                connection.abort(ABORT_TIMEOUT_MS);
            } catch (Exception error) {
                System.err.println("subscribing again: " + error);
            }
        }
    }

    private static void sleepUntilInterrupted() {
        try {
            Thread.sleep(Long.MAX_VALUE);
        } catch (InterruptedException expected) {
            // The channel is gone.
        }
    }

    private DefaultConsumer consumer(Channel channel, Thread waiting) {
        return new DefaultConsumer(channel) {
            private int unacknowledged;

            @Override
            public void handleDelivery(
                    String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body)
                    throws IOException {
                inbox.received(body);
                if (++unacknowledged >= ackEvery) {
                    channel.basicAck(envelope.getDeliveryTag(), true);
                    unacknowledged = 0;
                }
            }

            @Override
            public void handleCancel(String tag) {
                waiting.interrupt();
            }
        };
    }

    @Override
    public void favourThroughput() {
        ackEvery = ACK_EVERY_AT_MOST;
    }

    @Override
    public int aheadMax() {
        return AHEAD_MAX;
    }

    @Override
    public String versions() {
        return versions;
    }

    @Override
    public String settings() {
        return String.format(
                "quorum queue on %d nodes; persistent messages, publisher confirms; consumer: prefetch %d, acknowledges every %d",
                ports.length, PREFETCH, ackEvery);
    }

    @Override
    public void send(Message message) throws Exception {
        if (!publisher.isOpen()) {
            reconnect();
        }
        publish(message);
    }

    /**
     * Looks after a connection that ended, and after what was refused. A channel that was opened while
     * the queue had no leader may refuse for ever, so that is answered by a new one, now and then.
     */
    @Override
    public boolean poll() throws Exception {
        boolean refused = !again.isEmpty() && System.nanoTime() - connectedNs > RECONNECT_NS;
        if (publisher.isOpen() && !refused) {
            return false;
        }
        reconnect();
        return true;
    }

    private void reconnect() throws Exception {
        publisher.getConnection().abort(ABORT_TIMEOUT_MS);
        List<Message> unsettled = new ArrayList<>(unconfirmed.values());
        for (Message message = again.poll(); message != null; message = again.poll()) {
            unsettled.add(message);
        }
        openPublisher();
        for (Message message : unsettled) {
            publish(message);
        }
    }

    private void publish(Message message) {
        unconfirmed.put(publisher.getNextPublishSeqNo(), message);
        try {
            publisher.basicPublish(
                    "", queue, MessageProperties.MINIMAL_PERSISTENT_BASIC, message.body);
        } catch (IOException | AlreadyClosedException error) {
            // It stays among the unconfirmed, which are sent again once there is a connection.
            message.refused(error.toString());
        }
    }

    @Override
    public String leader() throws Exception {
        Process asked = new ProcessBuilder("bash", "-c", leaderCommand).start();
        String answer = new String(asked.getInputStream().readAllBytes()).trim();
        if (asked.waitFor() != 0 || answer.isEmpty()) {
            throw new IllegalStateException("no leader is known: " + leaderCommand);
        }
        return answer;
    }
}
