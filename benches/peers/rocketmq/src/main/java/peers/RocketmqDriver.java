package peers;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Apache RocketMQ: one queue of a master that flushes, and a slave that must hold it.
 *
 * <p>Only {@code SEND_OK} is an acknowledgement: the other statuses say that the message lies at the
 * master and that a flush or the slave was not waited for. The consumer, however, is given a message
 * as soon as the master has it.
 *
 * <p>After a failover what was not acknowledged is sent again, and may come twice: the brokers have no
 * duplicate check. Clients ask for the route, and for their hold on the queue, each second rather than
 * each half minute and each 20 seconds, so that they are not what is waited for.
 */
public final class RocketmqDriver implements Driver {
    private static final int SEND_TIMEOUT_MS = 30_000;
    /** The client's own, which a failover does not make longer. */
    private static final int SEND_TIMEOUT_DEFAULT_MS = 3_000;
    private static final int TRIES = 60;
    /** The broker's send queue; beyond it messages are refused rather than held back. */
    private static final int AHEAD_MAX = 4_000;
    /**
     * Messages without an answer, at any rate: with the 100,000 of two seconds at 50,000 a second on
     * their way the broker answered 190 in 17 seconds, and the next cell found it so.
     */
    private static final int UNANSWERED_MAX = 20_000;
    private static final int PULL_BATCH = 32;
    private static final int ASK_EVERY_MS = 1_000;
    private static final int AGAIN_AFTER_MS = 100;

    private final Semaphore unanswered = new Semaphore(UNANSWERED_MAX);
    private DefaultMQProducer producer;
    private MessageQueue queue;
    private String topic;
    /** What was refused and is to be sent again; null where a message is given one try. */
    private BlockingQueue<Message> again;

    public static void main(String[] args) {
        // The client logs into files of its own otherwise.
        System.setProperty("rocketmq.client.logUseSlf4j", "true");
        String often = Integer.toString(ASK_EVERY_MS);
        System.setProperty("rocketmq.client.rebalance.lockInterval", often);
        System.setProperty("rocketmq.client.rebalance.waitInterval", often);
        Load.run(args, new RocketmqDriver());
    }

    @Override
    public void open(Options options, Inbox inbox) throws Exception {
        topic = options.text("topic");
        String servers = options.text("servers");
        producer = new DefaultMQProducer("publisher");
        producer.setNamesrvAddr(servers);
        producer.setPollNameServerInterval(ASK_EVERY_MS);
        producer.setRetryTimesWhenSendAsyncFailed(0);
        producer.start();
        queue = createTopic();
        subscribe(servers, inbox);
        if (options.has("failover")) {
            again = new LinkedBlockingQueue<>();
            Thread thread = new Thread(this::sendAgainForEver, "again");
            thread.setDaemon(true);
            thread.start();
        }
    }

    @SuppressWarnings("deprecation") // What replaces it is a program of its own.
    private MessageQueue createTopic() throws Exception {
        for (int tries = 1; ; tries++) {
            try {
                producer.createTopic("DefaultCluster", topic, 1, null);
                List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
                return queues.get(0);
            } catch (MQClientException error) {
                // A name server that does not know the broker or the topic yet.
                if (tries == TRIES) {
                    throw error;
                }
                Thread.sleep(500);
            }
        }
    }

    private void subscribe(String servers, Inbox inbox) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("subscriber");
        consumer.setNamesrvAddr(servers);
        consumer.setPollNameServerInterval(ASK_EVERY_MS);
        consumer.subscribe(topic, "*");
        consumer.setPullInterval(0);
        consumer.setPullBatchSize(PULL_BATCH);
        consumer.setConsumeMessageBatchMaxSize(PULL_BATCH);
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.registerMessageListener(
                (MessageListenerOrderly)
                        (messages, context) -> {
                            for (MessageExt message : messages) {
                                inbox.received(message.getBody());
                            }
                            return ConsumeOrderlyStatus.SUCCESS;
                        });
        consumer.start();
        for (int tries = 1; !holdsQueue(consumer); tries++) {
            if (tries == TRIES) {
                throw new IllegalStateException("the consumer was not given the queue");
            }
            Thread.sleep(500);
        }
    }

    @SuppressWarnings("deprecation") // Nothing public says when a consumer has been given its queue.
    private boolean holdsQueue(DefaultMQPushConsumer consumer) {
        return consumer.getDefaultMQPushConsumerImpl()
                .getRebalanceImpl()
                .getProcessQueueTable()
                .values()
                .stream()
                .anyMatch(process -> process.isLocked());
    }

    @Override
    public int aheadMax() {
        return AHEAD_MAX;
    }

    @Override
    public String versions() {
        String version = MQVersion.getVersionDesc(MQVersion.CURRENT_VERSION);
        // As in V5_3_3.
        String dotted = version.substring(1).replace('_', '.');
        return "Apache RocketMQ " + dotted + ", name server, brokers and client";
    }

    @Override
    public String settings() {
        return String.format(
                "topic: one queue; producer: asynchronous, at most %d unanswered, no retries of its own, timeout %d ms; "
                        + "consumer: push, orderly, pullInterval=0, pullBatchSize=%d; route and lock asked for each %d ms",
                UNANSWERED_MAX,
                again == null ? SEND_TIMEOUT_MS : SEND_TIMEOUT_DEFAULT_MS,
                PULL_BATCH,
                ASK_EVERY_MS);
    }

    @Override
    public void send(Message message) throws Exception {
        unanswered.acquire();
        producer.send(
                new org.apache.rocketmq.common.message.Message(topic, message.body),
                queue,
                new SendCallback() {
                    @Override
                    public void onSuccess(SendResult result) {
                        unanswered.release();
                        if (result.getSendStatus() == SendStatus.SEND_OK) {
                            message.acknowledged();
                        } else {
                            refuse(message, result.getSendStatus().toString());
                        }
                    }

                    @Override
                    public void onException(Throwable error) {
                        unanswered.release();
                        refuse(message, error.toString());
                    }
                },
                again == null ? SEND_TIMEOUT_MS : SEND_TIMEOUT_DEFAULT_MS);
    }

    private void refuse(Message message, String why) {
        message.refused(why);
        if (again != null) {
            again.add(message);
        }
    }

    private void sendAgainForEver() {
        List<Message> refused = new ArrayList<>();
        while (true) {
            try {
                refused.add(again.take());
                Thread.sleep(AGAIN_AFTER_MS);
                again.drainTo(refused);
                for (Message message : refused) {
                    send(message);
                }
            } catch (Exception error) {
                // Nothing refuses in the calling thread but a client that was shut down.
                System.err.println("sending again: " + error);
            }
            refused.clear();
        }
    }

    @Override
    @SuppressWarnings("deprecation") // Nothing public says which broker leads.
    public String leader() throws Exception {
        for (int tries = 1; ; tries++) {
            String address =
                    producer.getDefaultMQProducerImpl()
                            .getMqClientFactory()
                            .findBrokerAddressInPublish(queue.getBrokerName());
            if (address != null) {
                return address.substring(address.indexOf(':') + 1);
            }
            if (tries == TRIES) {
                throw new IllegalStateException("the name server knows no master");
            }
            Thread.sleep(500);
        }
    }
}
