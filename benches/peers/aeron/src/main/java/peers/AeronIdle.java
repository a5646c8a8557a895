package peers;

import io.aeron.AeronVersion;
import org.agrona.concurrent.BackoffIdleStrategy;
import org.agrona.concurrent.IdleStrategy;
import org.agrona.concurrent.YieldingIdleStrategy;

/**
 * What Aeron's agents do without work. Spinning, which Aeron recommends, takes a CPU for each agent;
 * where there are fewer, it starves them, and backing off for at most 50 us is the next best.
 */
final class AeronIdle {
    static final String VERSIONS = "Aeron " + AeronVersion.VERSION + ", cluster, archive, media driver and client";

    private static final long PARK_NS_MIN = 1_000;
    private static final long PARK_NS_MAX = 50_000;

    private AeronIdle() {}

    static String text(Options options) {
        return yields(options) ? "agents yield" : "agents back off, for " + PARK_NS_MAX / 1_000 + " us at most";
    }

    private static boolean yields(Options options) {
        return options.text("agents", "backoff").equals("yield");
    }

    static IdleStrategy of(Options options) {
        return yields(options)
                ? new YieldingIdleStrategy()
                : new BackoffIdleStrategy(1, 1, PARK_NS_MIN, PARK_NS_MAX);
    }

    /** For a sending thread that has to poll: what comes meanwhile waits no longer than for an agent. */
    static void idle(Idle strategy, long leftNs) {
        strategy.idle(Math.min(leftNs, PARK_NS_MAX));
    }
}
