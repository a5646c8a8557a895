package peers;

import java.util.concurrent.locks.LockSupport;

/** What the sending thread does until the next message is due. */
public enum Idle {
    /** Lets others run, and looks again: as precise as the relay's own bench, which does the same. */
    YIELD {
        @Override
        public void idle(long leftNs) {
            Thread.yield();
        }
    },
    /** Sleeps: leaves the CPU to the peer; precise only with a timer slack of 1 ns. */
    SLEEP {
        @Override
        public void idle(long leftNs) {
            LockSupport.parkNanos(Math.min(leftNs, SLEEP_MAX_NS));
        }
    };

    private static final long SLEEP_MAX_NS = 1_000_000;

    public abstract void idle(long leftNs);
}
