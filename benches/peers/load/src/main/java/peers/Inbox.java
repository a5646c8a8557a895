package peers;

/** Where a driver puts what its subscriber received. Any thread may call it. */
public interface Inbox {
    /** A message with this body arrived. */
    default void received(byte[] body) {
        received(Message.indexOf(body), Message.dueOf(body), Message.cellOf(body));
    }

    /** The same, for drivers that read the head of a message where it lies. */
    void received(long index, long dueNs, int cell);
}
