package peers;

import java.util.Locale;
import java.util.StringJoiner;
import java.util.concurrent.TimeUnit;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramIterationValue;
import org.HdrHistogram.IntCountsHistogram;

/**
 * What is drawn of one cell's latencies: all percentiles, and the course over its time.
 *
 * <p>A message counts in the slot of time it was due in, so a stall shows where it began. Slots are
 * made before the cell; nothing is computed while it runs.
 */
final class Curves {
    /** Steps in which the distance to 100% halves. */
    private static final int STEPS_PER_HALF = 8;
    /** A long cell has longer slots. */
    private static final long SLOTS_MAX = 200;
    private static final long SLOT_NS_MIN = TimeUnit.MILLISECONDS.toNanos(100);
    private static final int DIGITS = 2;

    private final long fromNs;
    private final long slotNs;
    private final IntCountsHistogram[] slots;

    Curves(long fromNs, long toNs, long latencyNsMax) {
        this.fromNs = fromNs;
        slotNs = Math.max(SLOT_NS_MIN, upDiv(toNs - fromNs, SLOTS_MAX));
        slots = new IntCountsHistogram[(int) upDiv(toNs - fromNs, slotNs)];
        for (int at = 0; at < slots.length; at++) {
            slots[at] = new IntCountsHistogram(1, latencyNsMax, DIGITS);
        }
    }

    private static long upDiv(long whole, long part) {
        return (whole + part - 1) / part;
    }

    /** Counts a message that was due within the cell's time. */
    void note(long dueNs, long latencyNs) {
        long slot = (dueNs - fromNs) / slotNs;
        if (slot < slots.length) {
            Cell.record(slots[(int) slot], latencyNs);
        }
    }

    /** As fields of a JSON object; the percentiles are those of {@code latency}. */
    String json(Histogram latency) {
        return "\"percentiles\":" + percentiles(latency) + ",\"over_time\":" + overTime();
    }

    private static String percentiles(Histogram latency) {
        StringJoiner points = new StringJoiner(",", "[", "]");
        for (HistogramIterationValue step : latency.percentiles(STEPS_PER_HALF)) {
            double percentile = step.getPercentileLevelIteratedTo();
            points.add(row("[%.6f,%.1f]", percentile, step.getValueIteratedTo() / 1e3));
        }
        return points.toString();
    }

    private String overTime() {
        StringJoiner rows = new StringJoiner(",", "[", "]");
        for (int at = 0; at < slots.length; at++) {
            if (slots[at].getTotalCount() > 0) {
                rows.add(
                        row(
                                "[%.3f,%.1f,%.1f,%.1f]",
                                at * slotNs / 1e9,
                                slots[at].getValueAtPercentile(50) / 1e3,
                                slots[at].getValueAtPercentile(99) / 1e3,
                                slots[at].getMaxValue() / 1e3));
            }
        }
        return rows.toString();
    }

    private static String row(String format, Object... numbers) {
        return String.format(Locale.ROOT, format, numbers);
    }
}
