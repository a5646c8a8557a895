package peers;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * One message on its way, and its bytes.
 *
 * <pre>
 *   0        8         16      20            size
 *   | index  | due, ns | cell  | filling ... |      little-endian
 * </pre>
 *
 * The index counts from 0 within a cell, so that what is missing or came twice is known; "due" is
 * when it was meant to be sent, by this process's monotonic clock.
 */
public final class Message {
    public static final int HEAD_LENGTH = 20;
    private static final VarHandle LONG =
            MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
    private static final VarHandle INT =
            MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.LITTLE_ENDIAN);

    public final byte[] body;
    public final long index;
    private final long dueNs;
    private final Cell cell;

    /** The filling is copied: clients keep what they are given until it is acknowledged. */
    Message(byte[] filling, long index, long dueNs, Cell cell) {
        body = filling.clone();
        LONG.set(body, 0, index);
        LONG.set(body, 8, dueNs);
        INT.set(body, 16, cell.number);
        this.index = index;
        this.dueNs = dueNs;
        this.cell = cell;
    }

    static long indexOf(byte[] body) {
        return (long) LONG.get(body, 0);
    }

    static long dueOf(byte[] body) {
        return (long) LONG.get(body, 8);
    }

    static int cellOf(byte[] body) {
        return (int) INT.get(body, 16);
    }

    /** Of a cell and an index within it: what a peer may recognise a repetition by. */
    public String id() {
        return cell.number + "-" + index;
    }

    /** The peer has answered that it holds the message. */
    public void acknowledged() {
        cell.acknowledged(index, dueNs);
    }

    /** The peer, or its client, has given the message up; the driver may send it again. */
    public void refused(String why) {
        cell.refused(why);
    }
}
