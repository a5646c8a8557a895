package peers;

import io.aeron.Aeron;
import io.aeron.ExclusivePublication;
import io.aeron.Publication;
import io.aeron.Subscription;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.logbuffer.FragmentHandler;
import java.nio.ByteOrder;
import java.util.Locale;
import org.agrona.concurrent.AgentInvoker;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Aeron over UDP on loopback, as a reference for a transport: nothing is kept or acknowledged.
 *
 * <p>Two media drivers, as on two hosts, each run by the thread that uses it: on few CPUs that beats
 * threads of their own.
 */
public final class AeronUdpDriver implements Driver {
    private static final int STREAM = 1001;
    private static final String CHANNEL = "aeron:udp?endpoint=127.0.0.1:20100";
    private static final int FRAGMENTS = 64;

    private final UnsafeBuffer buffer = new UnsafeBuffer();
    private AgentInvoker driverInvoker;
    private AgentInvoker clientInvoker;
    private ExclusivePublication publication;

    public static void main(String[] args) {
        Load.run(args, new AeronUdpDriver());
    }

    @Override
    public void open(Options options, Inbox inbox) throws Exception {
        Thread subscriber = new Thread(() -> subscribe(options, inbox), "subscriber");
        subscriber.start();
        MediaDriver driver = launch(options, "publisher");
        driverInvoker = driver.sharedAgentInvoker();
        Aeron aeron = connect(driver);
        clientInvoker = aeron.conductorAgentInvoker();
        publication = aeron.addExclusivePublication(CHANNEL, STREAM);
        while (!publication.isConnected()) {
            poll();
            Thread.yield();
        }
    }

    private static MediaDriver launch(Options options, String who) {
        return MediaDriver.launch(
                new MediaDriver.Context()
                        .aeronDirectoryName(options.text("aeron-dir") + "/" + who)
                        .dirDeleteOnStart(true)
                        .threadingMode(ThreadingMode.INVOKER));
    }

    private static Aeron connect(MediaDriver driver) {
        return Aeron.connect(
                new Aeron.Context()
                        .aeronDirectoryName(driver.aeronDirectoryName())
                        .driverAgentInvoker(driver.sharedAgentInvoker())
                        .useConductorAgentInvoker(true));
    }

    private void subscribe(Options options, Inbox inbox) {
        MediaDriver driver = launch(options, "subscriber");
        Aeron aeron = connect(driver);
        Subscription subscription = aeron.addSubscription(CHANNEL, STREAM);
        Idle idle = Idle.valueOf(options.text("idle", "yield").toUpperCase(Locale.ROOT));
        FragmentHandler handler =
                (body, offset, length, header) ->
                        inbox.received(
                                body.getLong(offset, ByteOrder.LITTLE_ENDIAN),
                                body.getLong(offset + 8, ByteOrder.LITTLE_ENDIAN),
                                body.getInt(offset + 16, ByteOrder.LITTLE_ENDIAN));
        while (true) {
            int work = driver.sharedAgentInvoker().invoke();
            work += aeron.conductorAgentInvoker().invoke();
            work += subscription.poll(handler, FRAGMENTS);
            if (work == 0) {
                idle.idle(1);
            }
        }
    }

    @Override
    public String versions() {
        return AeronIdle.VERSIONS;
    }

    @Override
    public String settings() {
        return CHANNEL + ", two media drivers, each invoked by the thread that uses it";
    }

    @Override
    public void send(Message message) {
        buffer.wrap(message.body);
        long position;
        while ((position = publication.offer(buffer, 0, message.body.length)) < 0) {
            if (position == Publication.CLOSED || position == Publication.MAX_POSITION_EXCEEDED) {
                throw new IllegalStateException("the publication ended: " + position);
            }
            if (!poll()) {
                Thread.yield();
            }
        }
        poll();
    }

    @Override
    public boolean poll() {
        return driverInvoker.invoke() + clientInvoker.invoke() > 0;
    }

    @Override
    public void idle(Idle strategy, long leftNs) {
        AeronIdle.idle(strategy, leftNs);
    }
}
