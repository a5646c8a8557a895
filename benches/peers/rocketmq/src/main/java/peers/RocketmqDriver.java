package peers;

import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Apache RocketMQ: one queue of a master that flushes, and a slave that must hold it.
 *
 * <p>Only {@code SEND_OK} is an acknowledgement: the other statuses say that the message lies at the
 * master and that a flush or the slave was not waited for. The consumer, however, is given a message
 * as soon as the master has it.
 */
public final class RocketmqDriver implements Driver {
    private static final int SEND_TIMEOUT_MS = 30_000;
    private static final int TRIES = 60;
    /** The broker's send queue; beyond it messages are refused rather than held back. */
    private static final int AHEAD_MAX = 4_000;
    private static final int PULL_BATCH = 32;

    private DefaultMQProducer producer;
    private MessageQueue queue;
    private String topic;

    public static void main(String[] args) {
        // The client logs into files of its own otherwise.
        System.setProperty("rocketmq.client.logUseSlf4j", "true");
        Load.run(args, new RocketmqDriver());
    }

    @Override
    public void open(Options options, Inbox inbox) throws Exception {
        topic = options.text("topic");
        String servers = options.text("servers");
        producer = new DefaultMQProducer("publisher");
        producer.setNamesrvAddr(servers);
        producer.setRetryTimesWhenSendAsyncFailed(0);
        producer.setBackPressureForAsyncSendNum(AHEAD_MAX * 5);
        producer.start();
        queue = createTopic();
        subscribe(servers, inbox);
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
    public void send(Message message) throws Exception {
        producer.send(
                new org.apache.rocketmq.common.message.Message(topic, message.body),
                queue,
                new SendCallback() {
                    @Override
                    public void onSuccess(SendResult result) {
                        if (result.getSendStatus() == SendStatus.SEND_OK) {
                            message.acknowledged();
                        } else {
                            message.refused(result.getSendStatus().toString());
                        }
                    }

                    @Override
                    public void onException(Throwable error) {
                        message.refused(error.toString());
                    }
                },
                SEND_TIMEOUT_MS);
    }
}
