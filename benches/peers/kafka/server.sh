# shellcheck shell=bash
# Apache Kafka: three nodes, each broker and controller (KRaft), with the JVM flags of its own start script.
# The settings of the topic and of the clients are in KafkaDriver.java.
variant kafka kafka replicated "page cache of every in-sync broker" "3 (2 at least)"
variant kafka-flush kafka durable "stable storage of every in-sync broker (flush.messages=1)" "3 (2 at least)"

start_kafka() {
    local node conf
    for node in 1 2 3; do
        conf=$home/kafka-$node.properties
        cat >"$conf" <<CONFIG
process.roles=broker,controller
node.id=$node
controller.quorum.voters=1@127.0.0.1:19191,2@127.0.0.1:19192,3@127.0.0.1:19193
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:1909$node,CONTROLLER://127.0.0.1:1919$node
advertised.listeners=PLAINTEXT://127.0.0.1:1909$node
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/kafka-$node
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
CONFIG
        java -Xmx256m -cp "$(jars kafka)" kafka.tools.StorageTool format --config "$conf" \
            --cluster-id relay-peers-kafka-0000 >"$home/format-$node.log" 2>&1 &
    done
    fact server_settings <"$home/kafka-1.properties"
    wait
    for node in 1 2 3; do
        server "$node" java -server -Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
            -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true \
            -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$(jars kafka)" kafka.Kafka "$home/kafka-$node.properties"
    done
    for node in 1 2 3; do
        wait_for_port "$node" $((19090 + node))
    done
}

drive_kafka() {
    local flush=()
    [ "$1" != kafka-flush ] || flush=(--flush true)
    java_client kafka KafkaDriver --servers 127.0.0.1:19091,127.0.0.1:19092,127.0.0.1:19093 --topic "$1" "${flush[@]}" \
        "${@:2}"
}
