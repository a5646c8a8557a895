package peers;

import java.util.BitSet;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import org.HdrHistogram.AbstractHistogram;
import org.HdrHistogram.Histogram;

/**
 * One load on one peer, and what came of it: each message counted once, by its index.
 *
 * <p>What is due before {@code measuredFromNs} is warm-up: it is counted as sent, received, lost or
 * duplicated, and left out of the latencies. Receipts, acknowledgements and the sending thread each
 * have a lock of their own, which nobody else waits for in a client with one thread for each.
 */
final class Cell {
    private static final long LATENCY_NS_MAX = TimeUnit.MINUTES.toNanos(10);
    private static final int DIGITS = 3;
    /** More causes than this of one cell would fill the disk with the same words. */
    private static final int CAUSES_PRINTED = 3;

    final int number;
    final Histogram lateness = histogram();
    final Histogram latency = histogram();
    final Histogram ackLatency = histogram();

    private final Object receipts = new Object();
    private final Object acks = new Object();
    private final BitSet arrived = new BitSet();
    private final BitSet held = new BitSet();

    private final long measuredFromNs;
    private final long measuredToNs;
    private final Curves curves;
    private volatile long distinct;
    private volatile long acknowledged;
    private long duplicated;
    private long disordered;
    private long next;
    private long measured;
    private long inTime;
    private long lastReceiptNs;
    private long refused;

    private volatile long strikeNs = Long.MAX_VALUE;
    private volatile long firstAfterStrikeNs = Long.MAX_VALUE;
    private long silenceNs;
    private volatile boolean closed;

    /** What arrives between the two times is counted by {@link #inTime}. */
    Cell(int number, long measuredFromNs, long measuredToNs) {
        this.number = number;
        this.measuredFromNs = measuredFromNs;
        this.measuredToNs = measuredToNs;
        curves = new Curves(measuredFromNs, measuredToNs, LATENCY_NS_MAX);
    }

    private static Histogram histogram() {
        return new Histogram(1, LATENCY_NS_MAX, DIGITS);
    }

    static void record(AbstractHistogram histogram, long ns) {
        histogram.recordValue(Math.max(1, Math.min(ns, LATENCY_NS_MAX)));
    }

    void received(long index, long dueNs) {
        synchronized (receipts) {
            // Read under the lock: receipts of two threads must not look as if time went back.
            long nowNs = System.nanoTime();
            if (closed) {
                return;
            }
            if (arrived.get((int) index)) {
                duplicated++;
                return;
            }
            arrived.set((int) index);
            if (index < next) {
                disordered++;
            } else {
                next = index + 1;
            }
            if (nowNs >= strikeNs) {
                noteSilence(nowNs);
                if (dueNs > strikeNs && firstAfterStrikeNs == Long.MAX_VALUE) {
                    firstAfterStrikeNs = nowNs;
                }
            }
            lastReceiptNs = nowNs;
            if (nowNs >= measuredFromNs && nowNs < measuredToNs) {
                inTime++;
            }
            if (dueNs >= measuredFromNs) {
                record(latency, nowNs - dueNs);
                curves.note(dueNs, nowNs - dueNs);
                measured++;
            }
            distinct++;
        }
    }

    /** The silence that lasts still counts as far as it has come: nothing may ever end it. */
    void silentUntilNow() {
        synchronized (receipts) {
            noteSilence(System.nanoTime());
        }
    }

    private void noteSilence(long nowNs) {
        // Where nothing came yet, since the load began.
        silenceNs = Math.max(silenceNs, nowNs - Math.max(lastReceiptNs, measuredFromNs));
    }

    void acknowledged(long index, long dueNs) {
        synchronized (acks) {
            long nowNs = System.nanoTime();
            if (closed || held.get((int) index)) {
                return;
            }
            held.set((int) index);
            if (dueNs >= measuredFromNs) {
                record(ackLatency, nowNs - dueNs);
            }
            acknowledged++;
        }
    }

    void refused(String why) {
        synchronized (acks) {
            if (refused++ < CAUSES_PRINTED) {
                System.err.println("refused: " + why);
            }
        }
    }

    /** Nothing is counted any more, and the histograms may be read. */
    void close() {
        synchronized (receipts) {
            synchronized (acks) {
                closed = true;
            }
        }
    }

    void struck(long nowNs) {
        strikeNs = nowNs;
    }

    boolean isStruck() {
        return strikeNs != Long.MAX_VALUE;
    }

    long strikeNs() {
        return strikeNs;
    }

    /** When the first message arrived that was due after the strike. */
    long firstAfterStrikeNs() {
        return firstAfterStrikeNs;
    }

    /** Messages that arrived, each once; any thread may ask. */
    long distinct() {
        return distinct;
    }

    /** Messages the peer holds; any thread may ask. */
    long acknowledged() {
        return acknowledged;
    }

    long measured() {
        synchronized (receipts) {
            return measured;
        }
    }

    long inTime() {
        synchronized (receipts) {
            return inTime;
        }
    }

    long lastReceiptNs() {
        synchronized (receipts) {
            return lastReceiptNs;
        }
    }

    double silenceMs() {
        synchronized (receipts) {
            return silenceNs / 1e6;
        }
    }

    /** What is said of the messages in every kind of cell, as fields of a JSON object. */
    String counts(long sent) {
        synchronized (receipts) {
            synchronized (acks) {
                BitSet missing = (BitSet) held.clone();
                missing.andNot(arrived);
                return String.format(
                        Locale.ROOT,
                        "\"sent\":%d,\"received\":%d,\"lost\":%d,\"duplicated\":%d,\"disordered\":%d,"
                                + "\"acknowledged\":%d,\"acknowledged_lost\":%d,\"refused\":%d",
                        sent,
                        distinct,
                        sent - distinct,
                        duplicated,
                        disordered,
                        acknowledged,
                        missing.cardinality(),
                        refused);
            }
        }
    }

    /** The latencies in microseconds, as fields of a JSON object. */
    String latencies() {
        synchronized (receipts) {
            return percentiles("", latency) + "," + curves.json(latency);
        }
    }

    /** Percentiles in microseconds as fields of a JSON object, their names after the prefix. */
    static String percentiles(String prefix, Histogram histogram) {
        return String.format(
                Locale.ROOT,
                "\"%1$sp50_us\":%2$.1f,\"%1$sp90_us\":%3$.1f,\"%1$sp99_us\":%4$.1f,"
                        + "\"%1$sp999_us\":%5$.1f,\"%1$sp9999_us\":%6$.1f,"
                        + "\"%1$smax_us\":%7$.1f",
                prefix,
                histogram.getValueAtPercentile(50) / 1e3,
                histogram.getValueAtPercentile(90) / 1e3,
                histogram.getValueAtPercentile(99) / 1e3,
                histogram.getValueAtPercentile(99.9) / 1e3,
                histogram.getValueAtPercentile(99.99) / 1e3,
                histogram.getMaxValue() / 1e3);
    }
}
