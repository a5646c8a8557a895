package peers;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * Checks the generator against peers that do wrong on purpose: what it says must be what they did.
 *
 * <p>Run by {@code scripts/peers --check}; ends with 1 where it does not hold.
 */
final class LoadCheck {
    private static final double RATE = 1_000;
    private static final double SECONDS = 2;
    private static final long DRAIN_NS = TimeUnit.SECONDS.toNanos(1);
    private static final long RECOVERY_MAX_NS = TimeUnit.SECONDS.toNanos(2);
    /** The message that is due when the leader is killed. */
    private static final long AT_STRIKE = 3_000;
    private static final String LEADER = "leader";

    private LoadCheck() {}

    public static void main(String[] args) throws Exception {
        stallsShowInTheTail();
        lossesAndRepetitionsAreCounted();
        anOutageLastsUntilTheFlowIsBack();
        anOutageThatNeverEndsLastsAsLongAsIsWaited();
        System.out.println("the Java generator holds");
    }

    /** 100 ms in which nothing is taken delay 100 messages by 50 ms on average, not one by 100. */
    private static void stallsShowInTheTail() throws Exception {
        String found = run((message, inbox) -> {
            if (message.index == 1_000) {
                Thread.sleep(100);
            }
            deliver(message, inbox);
        });
        expect(found, "p99_us", 50_000, 250_000);
        expect(found, "max_us", 99_000, 400_000);
        expect(found, "lost", 0, 0);
        expect(found, "received", RATE * SECONDS, RATE * SECONDS);
        // The tenth of a second it began in, and the last point of the curve.
        expectAfter(found, "[1.000,", 40_000, 250_000);
        expectAfter(found, "[100.000000,", 99_000, 400_000);
    }

    /** Of 2,000: one of 100 is dropped, half of those acknowledged; one of 40 comes twice. */
    private static void lossesAndRepetitionsAreCounted() throws Exception {
        String found = run((message, inbox) -> {
            if (message.index % 100 == 0) {
                if (message.index % 200 == 0) {
                    message.acknowledged();
                }
                return;
            }
            deliver(message, inbox);
            if (message.index % 40 == 1) {
                inbox.received(message.body);
            }
        });
        expect(found, "sent", 2_000, 2_000);
        expect(found, "received", 1_980, 1_980);
        expect(found, "lost", 20, 20);
        expect(found, "acknowledged", 1_990, 1_990);
        expect(found, "acknowledged_lost", 10, 10);
        expect(found, "duplicated", 50, 50);
    }

    /** What was on its way is lost, and that is waited for no longer than for the flow. */
    private static void anOutageLastsUntilTheFlowIsBack() throws Exception {
        String found = runFailover((message, inbox) -> {
            if (message.index < AT_STRIKE || message.index >= AT_STRIKE + 300) {
                deliver(message, inbox);
            }
        });
        expectText(found, "\"recovered\":true");
        expect(found, "outage_ms", 300, 600);
        expect(found, "lost", 300, 300);
    }

    private static void anOutageThatNeverEndsLastsAsLongAsIsWaited() throws Exception {
        String found = runFailover((message, inbox) -> {
            if (message.index < AT_STRIKE) {
                deliver(message, inbox);
            }
        });
        expectText(found, "\"recovered\":false");
        expect(found, "outage_ms", RECOVERY_MAX_NS / 1e6, RECOVERY_MAX_NS / 1e6 + 500);
        expect(found, "first_after_ms", -1, -1);
        expect(found, "received", AT_STRIKE, AT_STRIKE);
    }

    /** The peer's leader is a process that does nothing but be killed. */
    private static String runFailover(Peer peer) throws Exception {
        Path pids = Files.createTempDirectory("pids");
        Path pidFile = pids.resolve(LEADER + ".pid");
        Process leader = new ProcessBuilder("sleep", "60").start();
        try {
            Files.writeString(pidFile, Long.toString(leader.pid()));
            String found = load(peer, "--pids", pids.toString()).failover();
            if (!leader.waitFor(1, TimeUnit.SECONDS)) {
                throw new AssertionError("the leader lives");
            }
            return found;
        } finally {
            leader.destroyForcibly();
            Files.delete(pidFile);
            Files.delete(pids);
        }
    }

    private interface Peer {
        void take(Message message, Inbox inbox) throws Exception;
    }

    private static void deliver(Message message, Inbox inbox) {
        inbox.received(message.body);
        message.acknowledged();
    }

    private static String run(Peer peer) throws Exception {
        return load(peer).steady(RATE, 0, SECONDS).json;
    }

    private static Load load(Peer peer, String... more) {
        List<String> words = new ArrayList<>(List.of("--size", "256"));
        words.addAll(List.of(more));
        Options options = new Options(words.toArray(new String[0]));
        Load[] load = new Load[1];
        load[0] = new Load(options, new Driver() {
            @Override
            public void open(Options ignored, Inbox inbox) {}

            @Override
            public void send(Message message) throws Exception {
                peer.take(message, load[0]);
            }

            @Override
            public String versions() {
                return "none";
            }

            @Override
            public String settings() {
                return "none";
            }

            @Override
            public String leader() {
                return LEADER;
            }
        });
        load[0].drainNs = DRAIN_NS;
        load[0].recoveryMaxNs = RECOVERY_MAX_NS;
        return load[0];
    }

    private static void expect(String json, String key, double least, double most) {
        expectAfter(json, "\"" + key + "\":", least, most);
    }

    private static void expectText(String json, String text) {
        if (!json.contains(text)) {
            throw new AssertionError(text + " is not in " + json);
        }
    }

    private static void expectAfter(String json, String begin, double least, double most) {
        int from = json.indexOf(begin) + begin.length();
        double value = Double.parseDouble(json.substring(from).split("[],}]")[0]);
        if (value < least || value > most) {
            throw new AssertionError(value + " follows " + begin + " in " + json);
        }
    }
}
