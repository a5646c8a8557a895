// Command nats drives a JetStream cluster: one stream on three nodes, in files.
//
// The publisher does not wait for one acknowledgement before it sends the next. Where the leader is
// killed, what is refused or not answered is sent again under the same id, by which the stream
// recognises what it has. The subscriber is an ordered consumer, which recreates itself wherever it
// lost its place.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	subject = "relay.bench"
	// Longer than any answer on a machine that works, shorter than an outage that is to be measured.
	answerTimeout = 5 * time.Second
	retryAfter    = 50 * time.Millisecond
	reconnectWait = 50 * time.Millisecond
	tries         = 60
	// Messages asked for at a time; the default of 500 halves the throughput.
	pullMax = 10_000
	ahead   = 4_000
)

type driver struct {
	publisher jetstream.JetStream
	stream    jetstream.Stream
	server    string
	answers   chan answer
	// repeats says that messages carry ids and are sent again, which costs a little for each.
	repeats bool
}

type answer struct {
	message *Message
	future  jetstream.PubAckFuture
}

func main() {
	load := newLoad()
	size := load.options()
	servers := flag.String("servers", "", "addresses of the nodes")
	topic := flag.String("topic", "bench", "name of the stream")
	flag.Parse()
	driver, err := open(*servers, *topic, load)
	if err == nil {
		load.driver = driver
		err = load.run(*size)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(servers, topic string, load *Load) (*driver, error) {
	ctx := context.Background()
	publisher, err := connect(servers, jetstream.WithPublishAsyncTimeout(answerTimeout))
	if err != nil {
		return nil, err
	}
	subscriber, err := connect(servers)
	if err != nil {
		return nil, err
	}
	stream, err := createStream(ctx, publisher, topic)
	if err != nil {
		return nil, err
	}
	consumer, err := subscriber.OrderedConsumer(ctx, topic, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	_, err = consumer.Consume(
		func(message jetstream.Msg) { load.received(message.Data()) },
		jetstream.PullMaxMessages(pullMax),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			fmt.Fprintln(os.Stderr, "subscriber:", err)
		}),
	)
	if err != nil {
		return nil, err
	}
	driver := &driver{
		publisher: publisher, stream: stream, server: publisher.Conn().ConnectedServerVersion(), answers: make(chan answer, 1<<20),
		repeats: load.failover,
	}
	go driver.settle()
	return driver, nil
}

func connect(servers string, options ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	connection, err := nats.Connect(
		servers,
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.RetryOnFailedConnect(true),
	)
	if err != nil {
		return nil, err
	}
	options = append(options, jetstream.WithPublishAsyncMaxPending(1<<18))
	return jetstream.New(connection, options...)
}

// createStream waits until the nodes have found each other and chosen who leads.
func createStream(ctx context.Context, js jetstream.JetStream, topic string) (jetstream.Stream, error) {
	config := jetstream.StreamConfig{
		Name: topic, Subjects: []string{subject}, Storage: jetstream.FileStorage, Replicas: 3,
	}
	for try := 1; ; try++ {
		attempt, cancel := context.WithTimeout(ctx, answerTimeout)
		stream, err := js.CreateStream(attempt, config)
		cancel()
		if err == nil || try == tries {
			return stream, err
		}
		time.Sleep(retryAfter * 10)
	}
}

func (driver *driver) send(message *Message) error {
	for {
		future, err := driver.publish(message)
		if err == nil {
			driver.answers <- answer{message, future}
			return nil
		}
		message.refused(err)
		time.Sleep(retryAfter)
	}
}

func (driver *driver) publish(message *Message) (jetstream.PubAckFuture, error) {
	if !driver.repeats {
		return driver.publisher.PublishAsync(subject, message.body)
	}
	return driver.publisher.PublishAsync(subject, message.body, jetstream.WithMsgID(message.id()))
}

// settle takes the answers in the order of sending, which is the order they come in.
func (driver *driver) settle() {
	for next := range driver.answers {
		select {
		case <-next.future.Ok():
			next.message.acknowledged()
		case err := <-next.future.Err():
			next.message.refused(err)
			if driver.repeats {
				go driver.sendAgain(next.message)
			}
		}
	}
}

func (driver *driver) sendAgain(message *Message) {
	for {
		time.Sleep(retryAfter)
		future, err := driver.publish(message)
		if err != nil {
			continue
		}
		select {
		case <-future.Ok():
			message.acknowledged()
			return
		case <-future.Err():
		}
	}
}

func (driver *driver) versions() string {
	return fmt.Sprintf("nats-server %s, nats.go %s", driver.server, nats.Version)
}

func (driver *driver) settings() string {
	return fmt.Sprintf(
		"stream: files, 3 replicas; publisher: asynchronous, message ids %t; consumer: ordered, asks for %d messages at a time",
		driver.repeats, pullMax,
	)
}

func (driver *driver) aheadMax() int64 {
	return ahead
}

func (driver *driver) leader() (string, error) {
	info, err := driver.stream.Info(context.Background())
	if err != nil {
		return "", err
	}
	return info.Cluster.Leader, nil
}
