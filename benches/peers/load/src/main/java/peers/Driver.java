package peers;

/**
 * What a peer's own client does for {@link Load}: connects, sends, and hands on what arrives.
 *
 * <p>A driver decides nothing about rates or times. It tells the {@link Inbox} of each message that
 * reaches its one subscriber, and each {@link Message} when the peer has acknowledged it.
 */
public interface Driver {
    /** Connects one publisher and one subscriber, to a topic of their own that is empty. */
    void open(Options options, Inbox inbox) throws Exception;

    /**
     * Sends one message without waiting for its acknowledgement. It may wait while the peer or its
     * client holds the publisher back: the time counts, since latency starts when a message is due.
     */
    void send(Message message) throws Exception;

    /**
     * Does some of the client's own work, where it has no thread for that; called whenever nothing
     * is due. Returns whether there was any.
     */
    default boolean poll() throws Exception {
        return false;
    }

    /** Sleeps or yields, as its client does best; called when nothing is due and nothing was done. */
    default void idle(Idle strategy, long leftNs) {
        strategy.idle(leftNs);
    }

    /** Changes to the settings that are recommended for throughput; called once, before "max". */
    default void favourThroughput() throws Exception {}

    /** Most messages that are to be on their way at once when as many as possible are sent. */
    default int aheadMax() {
        return 65_536;
    }

    /** Server and client with their versions, as they say themselves where they do. */
    String versions();

    /** What of the client's settings, and of the topic's, decides what is measured. */
    String settings();

    /** The node that leads, by the name of its pid file. */
    default String leader() throws Exception {
        throw new UnsupportedOperationException("nobody takes over here");
    }
}
