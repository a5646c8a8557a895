package peers;

import io.aeron.ExclusivePublication;
import io.aeron.Image;
import io.aeron.Publication;
import io.aeron.archive.Archive;
import io.aeron.archive.ArchiveThreadingMode;
import io.aeron.archive.client.AeronArchive;
import io.aeron.cluster.ClusteredMediaDriver;
import io.aeron.cluster.ConsensusModule;
import io.aeron.cluster.codecs.CloseReason;
import io.aeron.cluster.service.ClientSession;
import io.aeron.cluster.service.Cluster;
import io.aeron.cluster.service.ClusteredService;
import io.aeron.cluster.service.ClusteredServiceContainer;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.logbuffer.Header;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.NoOpLock;

/**
 * One of three nodes of an Aeron Cluster, whose service sends every message back to its session:
 * what comes back is committed, that is recorded by two of three, to the sync level given.
 */
public final class AeronClusterNode {
    private static final int NODES = 3;
    private static final int FIRST_PORT = 21_000;
    private static final String ANY_PORT = "aeron:udp?endpoint=127.0.0.1:0";

    private AeronClusterNode() {}

    public static void main(String[] args) throws InterruptedException {
        Options options = new Options(args);
        int node = (int) options.number("node");
        String directory = options.text("aeron-dir") + "/node-" + node;
        File clusterDirectory = new File(options.text("data"), "cluster");
        Archive.Context archive = archive(options, node, directory);
        AeronArchive.Context archiveClient =
                new AeronArchive.Context()
                        .lock(NoOpLock.INSTANCE)
                        .controlRequestChannel(archive.localControlChannel())
                        .controlRequestStreamId(archive.localControlStreamId())
                        .controlResponseChannel(archive.localControlChannel())
                        .aeronDirectoryName(directory);
        ClusteredMediaDriver.launch(
                new MediaDriver.Context()
                        .aeronDirectoryName(directory)
                        .dirDeleteOnStart(true)
                        .threadingMode(ThreadingMode.SHARED)
                        .sharedIdleStrategy(AeronIdle.of(options)),
                archive,
                consensus(options, node, directory, clusterDirectory)
                        .archiveContext(archiveClient.clone()));
        ClusteredServiceContainer.launch(
                new ClusteredServiceContainer.Context()
                        .aeronDirectoryName(directory)
                        .archiveContext(archiveClient.clone())
                        .clusterDir(clusterDirectory)
                        .clusteredService(new Echo(Path.of(options.text("leader-file")), node))
                        .idleStrategySupplier(() -> AeronIdle.of(options)));
        // Until the script ends it.
        Thread.sleep(Long.MAX_VALUE);
    }

    private static Archive.Context archive(Options options, int node, String directory) {
        int syncLevel = (int) options.number("sync-level");
        return new Archive.Context()
                .aeronDirectoryName(directory)
                .archiveDir(new File(options.text("data"), "archive"))
                .controlChannel("aeron:udp?endpoint=127.0.0.1:" + (firstPort(node) + 5))
                .localControlChannel("aeron:ipc?term-length=64k")
                .recordingEventsEnabled(false)
                .threadingMode(ArchiveThreadingMode.SHARED)
                .idleStrategySupplier(() -> AeronIdle.of(options))
                .replicationChannel(ANY_PORT)
                .fileSyncLevel(syncLevel)
                .catalogFileSyncLevel(syncLevel)
                .archiveClientContext(new AeronArchive.Context().controlResponseChannel(ANY_PORT));
    }

    private static ConsensusModule.Context consensus(
            Options options, int node, String directory, File clusterDirectory) {
        return new ConsensusModule.Context()
                .clusterMemberId(node)
                .clusterMembers(members())
                .clusterDir(clusterDirectory)
                .aeronDirectoryName(directory)
                .ingressChannel("aeron:udp?term-length=1m")
                .egressChannel("aeron:udp?term-length=1m")
                .logChannel("aeron:udp?term-length=16m")
                .replicationChannel(ANY_PORT)
                .idleStrategySupplier(() -> AeronIdle.of(options))
                .fileSyncLevel((int) options.number("sync-level"));
    }

    private static int firstPort(int node) {
        return FIRST_PORT + node * 100;
    }

    /** Of each node: ingress, consensus, log, catch-up, archive. */
    private static String members() {
        StringBuilder members = new StringBuilder();
        for (int node = 0; node < NODES; node++) {
            members.append(node);
            for (int port = 1; port <= 5; port++) {
                members.append(",127.0.0.1:").append(firstPort(node) + port);
            }
            members.append('|');
        }
        return members.toString();
    }

    /** What a client needs to find whoever leads. */
    static String ingressEndpoints() {
        StringBuilder endpoints = new StringBuilder();
        for (int node = 0; node < NODES; node++) {
            endpoints.append(node == 0 ? "" : ",").append(node).append("=127.0.0.1:");
            endpoints.append(firstPort(node) + 1);
        }
        return endpoints.toString();
    }

    private static final class Echo implements ClusteredService {
        private final Path leaderFile;
        private final int node;
        private Cluster cluster;

        Echo(Path leaderFile, int node) {
            this.leaderFile = leaderFile;
            this.node = node;
        }

        @Override
        public void onStart(Cluster started, Image snapshot) {
            cluster = started;
        }

        @Override
        public void onSessionMessage(
                ClientSession session,
                long timestamp,
                DirectBuffer body,
                int offset,
                int length,
                Header header) {
            if (session == null) {
                return;
            }
            long position;
            while ((position = session.offer(body, offset, length)) < 0) {
                if (position == Publication.CLOSED || position == Publication.NOT_CONNECTED) {
                    return;
                }
                cluster.idleStrategy().idle();
            }
        }

        @Override
        public void onRoleChange(Cluster.Role role) {
            if (role == Cluster.Role.LEADER) {
                try {
                    Files.writeString(leaderFile, Integer.toString(node));
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            }
        }

        @Override
        public void onSessionOpen(ClientSession session, long timestamp) {}

        @Override
        public void onSessionClose(ClientSession session, long timestamp, CloseReason reason) {}

        @Override
        public void onTimerEvent(long id, long timestamp) {}

        @Override
        public void onTakeSnapshot(ExclusivePublication snapshot) {}

        @Override
        public void onTerminate(Cluster ending) {}
    }
}
