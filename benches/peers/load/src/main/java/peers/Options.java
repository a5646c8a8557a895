package peers;

import java.util.HashMap;
import java.util.Map;

/** The command line: pairs of {@code --name value}. */
public final class Options {
    private final Map<String, String> values = new HashMap<>();

    public Options(String[] args) {
        for (int at = 0; at < args.length; at += 2) {
            if (!args[at].startsWith("--") || at + 1 == args.length) {
                throw new IllegalArgumentException(
                        "pairs of --name value are wanted, not \"" + args[at] + "\"");
            }
            values.put(args[at].substring(2), args[at + 1]);
        }
    }

    public String text(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    public String text(String name, String fallback) {
        return values.getOrDefault(name, fallback);
    }

    public double number(String name) {
        return Double.parseDouble(text(name));
    }

    public boolean has(String name) {
        return values.containsKey(name);
    }
}
