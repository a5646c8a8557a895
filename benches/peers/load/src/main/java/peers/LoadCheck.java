package peers;

/**
 * Checks the generator against peers that do wrong on purpose: what it says must be what they did.
 *
 * <p>Run by {@code scripts/peers --check}; ends with 1 where it does not hold.
 */
final class LoadCheck {
    private static final double RATE = 1_000;
    private static final double SECONDS = 2;

    private LoadCheck() {}

    public static void main(String[] args) throws Exception {
        Options options = new Options(new String[] {"--size", "256"});
        stallsShowInTheTail(options);
        lossesAndRepetitionsAreCounted(options);
        System.out.println("the Java generator holds");
    }

    /** 100 ms in which nothing is taken delay 100 messages by 50 ms on average, not one by 100. */
    private static void stallsShowInTheTail(Options options) throws Exception {
        String found = run(options, (message, inbox) -> {
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
    private static void lossesAndRepetitionsAreCounted(Options options) throws Exception {
        String found = run(options, (message, inbox) -> {
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

    private interface Peer {
        void take(Message message, Inbox inbox) throws Exception;
    }

    private static void deliver(Message message, Inbox inbox) {
        inbox.received(message.body);
        message.acknowledged();
    }

    private static String run(Options options, Peer peer) throws Exception {
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
        });
        return load[0].steady(RATE, 0, SECONDS).json;
    }

    private static void expect(String json, String key, double least, double most) {
        expectAfter(json, "\"" + key + "\":", least, most);
    }

    private static void expectAfter(String json, String begin, double least, double most) {
        int from = json.indexOf(begin) + begin.length();
        double value = Double.parseDouble(json.substring(from).split("[],}]")[0]);
        if (value < least || value > most) {
            throw new AssertionError(value + " follows " + begin + " in " + json);
        }
    }
}
