package peers;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Random;
import java.util.concurrent.TimeUnit;

/**
 * The open-loop generator that all drivers share, and the program around a driver.
 *
 * <p>Message {@code i} is due at {@code start + i / rate} and its latency counts from then until the
 * subscriber has it, whenever it was really sent; a stall shows in everything it delayed. Both ends
 * are in this process and read one monotonic clock. One line of JSON is printed for each cell.
 *
 * <pre>
 *   settle (unmeasured, for the compiler) -> cell at each rate: warm-up, measured, drained -> max
 *   settle -> failover: 1,000 a second, the leader killed, until the flow is back
 * </pre>
 */
public final class Load implements Inbox {
    private static final double SETTLE_RATE = 2_000;
    /** Between the decision to start and the first message. */
    private static final long LEAD_NS = TimeUnit.MILLISECONDS.toNanos(20);
    /** With so much on its way a peer does not hold the rate, and waiting longer proves nothing. */
    private static final double BEHIND_SECONDS = 2;
    /** Below this part of the rate, as received, a rate is not held. */
    private static final double HELD_PART = 0.95;
    private static final long DRAIN_NS = TimeUnit.SECONDS.toNanos(15);
    /** After the last receipt the last acknowledgements may still be on their way. */
    private static final long ACK_DRAIN_NS = TimeUnit.SECONDS.toNanos(1);
    private static final double FAILOVER_RATE = 1_000;
    private static final long BEFORE_STRIKE_NS = TimeUnit.SECONDS.toNanos(3);
    private static final long AFTER_RECOVERY_NS = TimeUnit.SECONDS.toNanos(5);
    private static final long RECOVERY_MAX_NS = TimeUnit.SECONDS.toNanos(60);

    private final Options options;
    private final Driver driver;
    private final Idle idle;
    private final byte[] filling;
    private volatile Cell cell;
    private int cells;
    /** The check of the generator waits less. */
    long drainNs = DRAIN_NS;
    long recoveryMaxNs = RECOVERY_MAX_NS;

    Load(Options options, Driver driver) {
        this.options = options;
        this.driver = driver;
        idle = Idle.valueOf(options.text("idle", "yield").toUpperCase(Locale.ROOT));
        int size = (int) options.number("size");
        if (size < Message.HEAD_LENGTH) {
            throw new IllegalArgumentException("--size takes " + Message.HEAD_LENGTH + " or more");
        }
        filling = new byte[size];
        new Random(1).nextBytes(filling);
    }

    /** Runs what the command line says, and ends the process. */
    public static void run(String[] args, Driver driver) {
        int status = 0;
        try {
            Options options = new Options(args);
            Load load = new Load(options, driver);
            driver.open(options, load);
            load.settle();
            if (options.has("failover")) {
                System.out.println(load.failover());
            } else {
                load.rates();
            }
        } catch (Exception error) {
            error.printStackTrace();
            status = 1;
        }
        // Clients leave threads behind; nothing of them is wanted.
        System.out.flush();
        Runtime.getRuntime().halt(status);
    }

    @Override
    public void received(long index, long dueNs, int number) {
        Cell current = cell;
        if (current != null && current.number == number) {
            current.received(index, dueNs);
        }
    }

    private void settle() throws Exception {
        double seconds = options.number("settle");
        if (seconds > 0) {
            steady(SETTLE_RATE, 0, seconds);
        }
    }

    private void rates() throws Exception {
        double seconds = options.number("seconds");
        double warmup = options.number("warmup");
        boolean held = true;
        for (String rate : options.text("rates").split(",")) {
            if (rate.equals("max")) {
                driver.favourThroughput();
                System.out.println(most(warmup, seconds));
            } else if (held) {
                Result result = steady(Double.parseDouble(rate), warmup, seconds);
                writeHistogram(cell, rate);
                System.out.println(result.json);
                // A higher rate would not be held either, and takes the time to drain again.
                held = result.held;
            }
        }
    }

    /** What a cell came to: its line, and whether its rate was held. */
    static final class Result {
        final String json;
        final boolean held;

        Result(String json, boolean held) {
            this.json = json;
            this.held = held;
        }
    }

    private Cell begin(long measuredFromNs, long measuredToNs) {
        Cell begun = new Cell(++cells, measuredFromNs, measuredToNs);
        cell = begun;
        return begun;
    }

    Result steady(double rate, double warmup, double seconds) throws Exception {
        long startNs = System.nanoTime() + LEAD_NS;
        long total = Math.round(rate * warmup) + Math.max(1, Math.round(rate * seconds));
        long measuredFrom = Math.round(rate * warmup);
        long fromNs = startNs + (long) (measuredFrom * 1e9 / rate);
        long toNs = startNs + (long) (total * 1e9 / rate);
        Cell current = begin(fromNs, toNs);
        long behindMax = (long) (rate * BEHIND_SECONDS);
        long behindMaxNs = (long) (BEHIND_SECONDS * 1e9);
        boolean saturated = false;
        long sent = 0;
        while (sent < total && !saturated) {
            long dueNs = startNs + (long) (sent * 1e9 / rate);
            await(dueNs);
            long lateNs = System.nanoTime() - dueNs;
            if (sent >= measuredFrom) {
                Cell.record(current.lateness, lateNs);
            }
            driver.send(new Message(filling, sent, dueNs, current));
            sent++;
            saturated = sent - current.distinct() > behindMax || lateNs > behindMaxNs;
        }
        drain(current, sent);
        long offered = total - measuredFrom;
        double took = Math.max(toNs - fromNs, current.lastReceiptNs() - fromNs) / 1e9;
        double achieved = current.measured() / took;
        if (saturated) {
            took = (current.lastReceiptNs() - startNs) / 1e9;
            achieved = current.distinct() / took;
        }
        boolean held = !saturated && achieved >= HELD_PART * rate;
        String json =
                String.format(
                        Locale.ROOT,
                        "{\"what\":\"latency\",\"rate\":%.0f,\"held\":%b,%s,\"offered\":%d,"
                                + "\"achieved\":%.1f,%s,%s,\"lateness_p99_us\":%.1f,%s}",
                        rate,
                        held,
                        current.latencies(),
                        offered,
                        achieved,
                        current.counts(sent),
                        acknowledgements(current),
                        current.lateness.getValueAtPercentile(99) / 1e3,
                        settings(seconds));
        return new Result(json, held);
    }

    private String most(double warmup, double seconds) throws Exception {
        int aheadMax = driver.aheadMax();
        long startNs = System.nanoTime();
        long fromNs = startNs + (long) (warmup * 1e9);
        long toNs = fromNs + (long) (seconds * 1e9);
        Cell current = begin(fromNs, toNs);
        long sent = 0;
        for (long nowNs = startNs; nowNs < toNs; nowNs = System.nanoTime()) {
            if (sent - current.distinct() < aheadMax) {
                driver.send(new Message(filling, sent, nowNs, current));
                sent++;
            } else if (!driver.poll()) {
                driver.idle(Idle.YIELD, 0);
            }
        }
        drain(current, sent);
        double perSecond = current.inTime() / seconds;
        String json =
                String.format(
                        Locale.ROOT,
                        "{\"what\":\"throughput\",\"rate\":\"max\",\"msgs_per_s\":%.1f,"
                                + "\"mb_per_s\":%.1f,%s,%s,%s}",
                        perSecond,
                        perSecond * filling.length / 1e6,
                        current.latencies(),
                        current.counts(sent),
                        settings(seconds));
        writeHistogram(current, "max");
        return json;
    }

    String failover() throws Exception {
        String leader = driver.leader();
        Path pidFile = Path.of(options.text("pids"), leader + ".pid");
        long pid = Long.parseLong(Files.readString(pidFile).trim());
        ProcessHandle leaderProcess = ProcessHandle.of(pid).orElseThrow();
        long startNs = System.nanoTime() + LEAD_NS;
        long strikeAtNs = startNs + BEFORE_STRIKE_NS;
        long endNs = strikeAtNs + recoveryMaxNs;
        Cell current = begin(startNs, endNs);
        long sent = 0;
        while (true) {
            long dueNs = startNs + (long) (sent * 1e9 / FAILOVER_RATE);
            if (dueNs > endNs) {
                break;
            }
            if (!current.isStruck() && dueNs >= strikeAtNs) {
                current.struck(System.nanoTime());
                // Directly: to start a program that does it takes milliseconds in which nothing is sent.
                leaderProcess.destroyForcibly();
            }
            long recoveredNs = current.firstAfterStrikeNs();
            if (recoveredNs != Long.MAX_VALUE) {
                endNs = Math.min(endNs, recoveredNs + AFTER_RECOVERY_NS);
            }
            await(dueNs);
            driver.send(new Message(filling, sent, dueNs, current));
            sent++;
        }
        await(endNs);
        current.silentUntilNow();
        drain(current, sent);
        boolean back = current.firstAfterStrikeNs() != Long.MAX_VALUE;
        double backMs = back ? (current.firstAfterStrikeNs() - current.strikeNs()) / 1e6 : -1;
        return String.format(
                Locale.ROOT,
                "{\"what\":\"failover\",\"how\":\"kill\",\"rate\":%.0f,\"struck\":\"%s\","
                        + "\"recovered\":%b,\"outage_ms\":%.1f,\"first_after_ms\":%.1f,%s,"
                        + "%s}",
                FAILOVER_RATE,
                leader,
                back,
                current.silenceMs(),
                backMs,
                current.counts(sent),
                about());
    }

    private void await(long dueNs) throws Exception {
        while (true) {
            long leftNs = dueNs - System.nanoTime();
            if (leftNs <= 0) {
                return;
            }
            if (!driver.poll()) {
                driver.idle(idle, leftNs);
            }
        }
    }

    /** Waits for what is on its way; what has not come then counts as lost. */
    private void drain(Cell current, long sent) throws Exception {
        long endNs = System.nanoTime() + drainNs;
        while (current.distinct() < sent && System.nanoTime() < endNs) {
            if (!driver.poll()) {
                driver.idle(Idle.SLEEP, drainNs);
            }
        }
        endNs = System.nanoTime() + ACK_DRAIN_NS;
        boolean acknowledges = current.acknowledged() > 0;
        while (acknowledges && current.acknowledged() < sent && System.nanoTime() < endNs) {
            if (!driver.poll()) {
                driver.idle(Idle.SLEEP, ACK_DRAIN_NS);
            }
        }
        current.close();
    }

    /** Empty for a transport that acknowledges nothing. */
    private static String acknowledgements(Cell current) {
        if (current.acknowledged() == 0) {
            return "\"ack_p50_us\":null";
        }
        return Cell.percentiles("ack_", current.ackLatency);
    }

    private String settings(double seconds) {
        return String.format(
                Locale.ROOT,
                "\"seconds\":%s,\"publishers\":1,\"subscribers\":1,\"idle\":\"%s\",%s",
                seconds,
                idle.name().toLowerCase(Locale.ROOT),
                about());
    }

    /** Who was measured, and how it was set. */
    private String about() {
        return String.format(
                Locale.ROOT,
                "\"size\":%d,\"versions\":%s,\"client_settings\":%s,\"runtime\":%s",
                filling.length,
                text(driver.versions()),
                text(driver.settings()),
                text(System.getProperty("java.vm.name") + " " + Runtime.version()));
    }

    private static String text(String plain) {
        return '"' + plain.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    private void writeHistogram(Cell current, String rate) throws IOException {
        if (options.has("hgrm")) {
            try (PrintStream out = new PrintStream(options.text("hgrm") + rate + ".hgrm", "UTF-8")) {
                current.latency.outputPercentileDistribution(out, 5, 1e3);
            }
        }
    }
}
