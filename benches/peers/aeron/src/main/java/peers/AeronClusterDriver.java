package peers;

import io.aeron.Publication;
import io.aeron.cluster.client.AeronCluster;
import io.aeron.cluster.client.EgressListener;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.logbuffer.Header;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Aeron Cluster: a client that is publisher and subscriber in one, since what is committed comes
 * back to the session that sent it. Coming back is the acknowledgement too.
 *
 * <p>A message on its way to a leader that dies is lost unless the application sends it again; this
 * one does not, as the client does not, and what never came back is told.
 */
public final class AeronClusterDriver implements Driver, EgressListener {
    private static final long MESSAGE_TIMEOUT_NS = TimeUnit.SECONDS.toNanos(20);
    private static final long STUCK_NS = TimeUnit.SECONDS.toNanos(60);
    private static final long KEEP_ALIVE_NS = TimeUnit.MILLISECONDS.toNanos(500);
    private static final int CONNECT_TRIES = 3;
    private static final int AHEAD_MAX = 8_192;

    private final UnsafeBuffer buffer = new UnsafeBuffer();
    private final Map<Long, Message> unanswered = new ConcurrentHashMap<>();
    private AeronCluster cluster;
    private String settings;
    private Inbox inbox;
    private Path leaderFile;
    private long keptAliveNs;

    public static void main(String[] args) {
        Load.run(args, new AeronClusterDriver());
    }

    @Override
    public void open(Options options, Inbox into) throws Exception {
        inbox = into;
        settings =
                String.format(
                        "file sync level %s of archives, catalogs and consensus modules; media drivers and archives "
                                + "SHARED; %s; at most %d messages on their way for max",
                        options.text("sync-level"), AeronIdle.text(options), AHEAD_MAX);
        leaderFile = Path.of(options.text("leader-file"));
        String directory = options.text("aeron-dir") + "/client";
        MediaDriver.launch(
                new MediaDriver.Context()
                        .aeronDirectoryName(directory)
                        .dirDeleteOnStart(true)
                        .threadingMode(ThreadingMode.SHARED)
                        .sharedIdleStrategy(AeronIdle.of(options)));
        for (int tries = 1; cluster == null; tries++) {
            try {
                cluster = connect(directory);
            } catch (io.aeron.exceptions.TimeoutException error) {
                // No leader has been elected yet.
                if (tries == CONNECT_TRIES) {
                    throw error;
                }
            }
        }
    }

    private AeronCluster connect(String directory) {
        return AeronCluster.connect(
                new AeronCluster.Context()
                        .egressListener(this)
                        .egressChannel("aeron:udp?endpoint=127.0.0.1:0")
                        .aeronDirectoryName(directory)
                        .ingressChannel("aeron:udp?term-length=1m")
                        .ingressEndpoints(AeronClusterNode.ingressEndpoints())
                        .messageTimeoutNs(MESSAGE_TIMEOUT_NS));
    }

    @Override
    public void onMessage(
            long session, long timestamp, DirectBuffer body, int offset, int length, Header header) {
        long index = body.getLong(offset, ByteOrder.LITTLE_ENDIAN);
        long dueNs = body.getLong(offset + 8, ByteOrder.LITTLE_ENDIAN);
        inbox.received(index, dueNs, body.getInt(offset + 16, ByteOrder.LITTLE_ENDIAN));
        Message message = unanswered.remove(dueNs);
        if (message != null) {
            message.acknowledged();
        }
    }

    @Override
    public int aheadMax() {
        return AHEAD_MAX;
    }

    @Override
    public String versions() {
        return AeronIdle.VERSIONS;
    }

    @Override
    public String settings() {
        return settings;
    }

    @Override
    public void send(Message message) {
        buffer.wrap(message.body);
        unanswered.put(Message.dueOf(message.body), message);
        long sinceNs = System.nanoTime();
        long position;
        while ((position = cluster.offer(buffer, 0, message.body.length)) < 0) {
            boolean over = position == Publication.MAX_POSITION_EXCEEDED || cluster.isClosed();
            if (over || System.nanoTime() - sinceNs > STUCK_NS) {
                throw new IllegalStateException("the cluster takes nothing: " + position);
            }
            poll();
        }
        cluster.pollEgress();
    }

    @Override
    public boolean poll() {
        boolean worked = cluster.pollEgress() > 0;
        long nowNs = System.nanoTime();
        if (nowNs - keptAliveNs > KEEP_ALIVE_NS) {
            keptAliveNs = nowNs;
            cluster.sendKeepAlive();
        }
        return worked;
    }

    @Override
    public void idle(Idle strategy, long leftNs) {
        AeronIdle.idle(strategy, leftNs);
    }

    @Override
    public String leader() throws Exception {
        return Files.readString(leaderFile).trim();
    }
}
