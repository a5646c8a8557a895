package peers;

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * Apache Kafka: one partition on three brokers, {@code acks=all}, two of them at least.
 *
 * <p>The producer sends at once ({@code linger.ms=0}) and is idempotent, as by default, so that what
 * it repeats after a failover is not delivered twice. The consumer is assigned its partition, since
 * a group would only add its rebalancing.
 */
public final class KafkaDriver implements Driver {
    private static final Duration POLL = Duration.ofMillis(200);
    private static final int TRIES = 60;
    private static final int NODES = 3;

    private static final Map<String, Object> CONSUMER =
            Map.of("enable.auto.commit", "false", "max.poll.records", "5000");

    private final Map<String, Object> producerSettings = new TreeMap<>();
    private Map<String, String> topicSettings;
    private String servers;
    private String topic;
    private Admin admin;
    private KafkaProducer<byte[], byte[]> producer;

    public static void main(String[] args) {
        Load.run(args, new KafkaDriver());
    }

    @Override
    public void open(Options options, Inbox inbox) throws Exception {
        servers = options.text("servers");
        topic = options.text("topic");
        admin = Admin.create(Map.of("bootstrap.servers", servers));
        createTopic(options.has("flush"));
        producer = producer(Map.of("linger.ms", "0"));
        subscribe(inbox);
    }

    private void createTopic(boolean flush) throws Exception {
        topicSettings = new TreeMap<>(Map.of("min.insync.replicas", "2"));
        if (flush) {
            topicSettings.put("flush.messages", "1");
        }
        NewTopic wanted = new NewTopic(topic, Map.of(0, List.of(1, 2, 3))).configs(topicSettings);
        for (int tries = 1; ; tries++) {
            try {
                admin.createTopics(List.of(wanted)).all().get();
                break;
            } catch (ExecutionException error) {
                // Brokers that have not all registered yet.
                if (tries == TRIES) {
                    throw error;
                }
                Thread.sleep(500);
            }
        }
        for (int tries = 1; partition() == null || partition().isr().size() < NODES; tries++) {
            if (tries == TRIES) {
                throw new IllegalStateException("the brokers did not come in sync");
            }
            Thread.sleep(200);
        }
    }

    private TopicPartitionInfo partition() throws InterruptedException {
        try {
            return admin.describeTopics(List.of(topic))
                    .allTopicNames()
                    .get()
                    .get(topic)
                    .partitions()
                    .get(0);
        } catch (ExecutionException error) {
            // A broker that does not know the topic yet.
            return null;
        }
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, String> more) {
        producerSettings.putAll(more);
        producerSettings.put("acks", "all");
        Map<String, Object> settings = new HashMap<>(producerSettings);
        settings.put("bootstrap.servers", servers);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private void subscribe(Inbox inbox) {
        Map<String, Object> settings = new HashMap<>(CONSUMER);
        settings.put("bootstrap.servers", servers);
        KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(
                        settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        TopicPartition partition = new TopicPartition(topic, 0);
        consumer.assign(List.of(partition));
        consumer.seekToBeginning(List.of(partition));
        consumer.position(partition);
        Thread thread =
                new Thread(
                        () -> {
                            while (true) {
                                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                                    inbox.received(record.value());
                                }
                            }
                        },
                        "subscriber");
        thread.start();
    }

    @Override
    public void favourThroughput() {
        producer.close();
        producer = producer(Map.of("linger.ms", "5", "batch.size", "262144"));
    }

    @Override
    public void send(Message message) {
        producer.send(
                new ProducerRecord<>(topic, 0, null, message.body),
                (metadata, error) -> {
                    if (error == null) {
                        message.acknowledged();
                    } else {
                        message.refused(error.toString());
                    }
                });
    }

    @Override
    public String versions() {
        return "Apache Kafka " + AppInfoParser.getVersion() + ", brokers and client";
    }

    @Override
    public String settings() {
        return String.format(
                "topic: one partition, 3 replicas, %s; producer: %s; consumer: assigned, %s",
                topicSettings, producerSettings, new TreeMap<>(CONSUMER));
    }

    @Override
    public String leader() throws Exception {
        return Integer.toString(partition().leader().id());
    }
}
