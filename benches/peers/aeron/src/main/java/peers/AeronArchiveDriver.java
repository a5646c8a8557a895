package peers;

import io.aeron.Aeron;
import io.aeron.ExclusivePublication;
import io.aeron.Image;
import io.aeron.Publication;
import io.aeron.Subscription;
import io.aeron.archive.Archive;
import io.aeron.archive.ArchiveThreadingMode;
import io.aeron.archive.ArchivingMediaDriver;
import io.aeron.archive.client.AeronArchive;
import io.aeron.archive.status.RecordingPos;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.logbuffer.FragmentHandler;
import java.io.File;
import java.nio.ByteOrder;
import org.agrona.concurrent.IdleStrategy;
import org.agrona.concurrent.UnsafeBuffer;
import org.agrona.concurrent.status.CountersReader;

/**
 * Aeron Archive: one node that records, and a subscriber that sees what is recorded and no more.
 *
 * <p>Publisher, archive and subscriber share the process's memory (IPC), so there is no network on
 * this way; with a sync level of 2 the position up to which it is recorded moves once the file and
 * its metadata are on stable storage. There is one copy, so it is no match for what replicates, and
 * nobody takes over.
 */
public final class AeronArchiveDriver implements Driver {
    private static final int STREAM = 1001;
    private static final String CHANNEL = "aeron:ipc?term-length=64m";
    private static final String CONTROL = "aeron:udp?endpoint=127.0.0.1:18010";
    private static final String ANY_PORT = "aeron:udp?endpoint=127.0.0.1:0";
    private static final int FRAGMENTS = 1_000;

    private final UnsafeBuffer buffer = new UnsafeBuffer();
    private ExclusivePublication publication;
    private String settings;

    public static void main(String[] args) {
        Load.run(args, new AeronArchiveDriver());
    }

    @Override
    public void open(Options options, Inbox inbox) throws Exception {
        String directory = options.text("aeron-dir") + "/archive";
        settings =
                String.format(
                        "%s; file sync level %s of archive and catalog; media driver SHARED, archive DEDICATED; %s",
                        CHANNEL, options.text("sync-level"), AeronIdle.text(options));
        launch(options, directory);
        AeronArchive archive =
                AeronArchive.connect(
                        new AeronArchive.Context()
                                .aeronDirectoryName(directory)
                                .controlRequestChannel(CONTROL)
                                .controlResponseChannel(ANY_PORT));
        Aeron aeron = archive.context().aeron();
        publication = archive.addRecordedExclusivePublication(CHANNEL, STREAM);
        CountersReader counters = aeron.countersReader();
        int recorded;
        while ((recorded =
                        RecordingPos.findCounterIdBySession(
                                counters, publication.sessionId(), archive.archiveId()))
                < 0) {
            Thread.sleep(1);
        }
        Subscription subscription =
                aeron.addSubscription("aeron:ipc?session-id=" + publication.sessionId(), STREAM);
        while (subscription.imageCount() == 0) {
            Thread.sleep(1);
        }
        Image image = subscription.imageAtIndex(0);
        int counter = recorded;
        IdleStrategy idle = AeronIdle.of(options);
        new Thread(() -> subscribe(image, counters, counter, idle, inbox), "subscriber").start();
    }

    private static void launch(Options options, String directory) {
        int syncLevel = (int) options.number("sync-level");
        ArchivingMediaDriver.launch(
                new MediaDriver.Context()
                        .aeronDirectoryName(directory)
                        .dirDeleteOnStart(true)
                        .threadingMode(ThreadingMode.SHARED)
                        .sharedIdleStrategy(AeronIdle.of(options))
                        .termBufferSparseFile(false),
                new Archive.Context()
                        .aeronDirectoryName(directory)
                        .archiveDir(new File(options.text("data")))
                        .deleteArchiveOnStart(true)
                        .threadingMode(ArchiveThreadingMode.DEDICATED)
                        .idleStrategySupplier(() -> AeronIdle.of(options))
                        .fileSyncLevel(syncLevel)
                        .catalogFileSyncLevel(syncLevel)
                        .recordingEventsEnabled(false)
                        .controlChannel(CONTROL)
                        .replicationChannel(ANY_PORT));
    }

    private static void subscribe(
            Image image, CountersReader counters, int recorded, IdleStrategy idle, Inbox inbox) {
        FragmentHandler handler =
                (body, offset, length, header) ->
                        inbox.received(
                                body.getLong(offset, ByteOrder.LITTLE_ENDIAN),
                                body.getLong(offset + 8, ByteOrder.LITTLE_ENDIAN),
                                body.getInt(offset + 16, ByteOrder.LITTLE_ENDIAN));
        while (true) {
            long limit = counters.getCounterValue(recorded);
            idle.idle(image.boundedPoll(handler, limit, FRAGMENTS));
        }
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
        long position;
        while ((position = publication.offer(buffer, 0, message.body.length)) < 0) {
            if (position == Publication.CLOSED || position == Publication.MAX_POSITION_EXCEEDED) {
                throw new IllegalStateException("the publication ended: " + position);
            }
            Thread.yield();
        }
    }
}
