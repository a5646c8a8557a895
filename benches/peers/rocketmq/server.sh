# shellcheck shell=bash
# Apache RocketMQ: a name server, a master that flushes before it answers, a slave that must have it in memory.
#
# inSyncReplicas=2, since SYNC_MASTER alone answers SEND_OK without the slave. haMasterAddress stays unset: the slave then
# learns the address from the name server, and with it set it never replicated. The broker refuses what waited 200 ms in its
# queue unless waitTimeMillsInSendQueue is longer. Nobody takes over for a master without a controller.
variant rocketmq rocketmq durable "stable storage of the master, page cache of the slave" 2
# Three brokers of which a controller, within the name server, elects the master; all that are in sync must hold a message,
# two at least.
variant rocketmq-controller rocketmq durable "stable storage of the master, page cache of all in sync" "3 (2 at least)"

rocketmq_flags=(-XX:+UseG1GC
    --add-exports=java.base/jdk.internal.ref=ALL-UNNAMED --add-exports=java.base/sun.nio.ch=ALL-UNNAMED
    --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED
    --add-opens=java.base/java.nio=ALL-UNNAMED)

start_rocketmq() {
    mkdir -p "$home/rocketmq/conf"
    export ROCKETMQ_HOME=$home/rocketmq
    printf 'listenPort=19876\nbindAddress=127.0.0.1\n' >"$home/names.properties"
    [ "$1" != rocketmq-controller ] || rocketmq_controller >>"$home/names.properties"
    server names java "${rocketmq_flags[@]}" -Xms512m -Xmx512m -Duser.home="$home/names" -cp "$(jars rocketmq)" \
        org.apache.rocketmq.namesrv.NamesrvStartup -c "$home/names.properties"
    wait_for_port names 19876
    if [ "$1" = rocketmq-controller ]; then
        wait_for_port names 19878
        start_rocketmq_group
        return
    fi
    rocketmq_broker 0 10911 brokerId=0 brokerRole=SYNC_MASTER inSyncReplicas=2
    wait_for_port 0 10911
    rocketmq_broker 1 11911 brokerId=1 brokerRole=SLAVE inSyncReplicas=2
    wait_for_port 1 11911
    # The slave has found its master when a connection to the master's replication port stands.
    wait_until 1 "the slave did not connect to its master" \
        sh -c 'ss -Htn state established "( sport = :10912 )" | grep -q .'
}

rocketmq_controller() {
    cat <<CONFIG
enableControllerInNamesrv=true
controllerDLegerGroup=controllers
controllerDLegerPeers=n0-127.0.0.1:19878
controllerDLegerSelfId=n0
controllerStorePath=$data/controller
CONFIG
}

# The pid files are named as the driver names the leader, by its port.
start_rocketmq_group() {
    local port
    for port in 10911 11911 12911; do
        rocketmq_broker "$port" "$port" enableControllerMode=true controllerAddr=127.0.0.1:19878 totalReplicas=3 \
            inSyncReplicas=3 minInSyncReplicas=2 allAckInSyncStateSet=true
        wait_for_port "$port" "$port"
    done
    # Both others replicate from whichever was elected.
    wait_until 10911 "the brokers did not connect to their master" \
        sh -c '[ "$(ss -Htn state established "( sport = :10912 or sport = :11912 or sport = :12912 )" | wc -l)" -ge 2 ]'
}

# NAME PORT SETTING...; replication has the port after.
rocketmq_broker() {
    cat >"$home/broker-$1.conf" <<CONFIG
brokerClusterName=DefaultCluster
brokerName=broker
flushDiskType=SYNC_FLUSH
namesrvAddr=127.0.0.1:19876
brokerIP1=127.0.0.1
brokerIP2=127.0.0.1
bindAddress=127.0.0.1
listenPort=$2
haListenPort=$(($2 + 1))
storePathRootDir=$data/broker-$1
storePathCommitLog=$data/broker-$1/commitlog
autoCreateTopicEnable=true
registerNameServerPeriod=10000
haSendHeartbeatInterval=1000
waitTimeMillsInSendQueue=10000
sendThreadPoolQueueCapacity=200000
useReentrantLockWhenPutMessage=true
CONFIG
    printf '%s\n' "${@:3}" >>"$home/broker-$1.conf"
    fact server_settings < <(echo "# broker $1"; cat "$home/broker-$1.conf"; echo)
    server "$1" java "${rocketmq_flags[@]}" -Xms1g -Xmx1g -XX:MaxDirectMemorySize=2g -Duser.home="$home/broker-$1" \
        -cp "$(jars rocketmq)" org.apache.rocketmq.broker.BrokerStartup -c "$home/broker-$1.conf"
}

drive_rocketmq() {
    java_client rocketmq RocketmqDriver --servers 127.0.0.1:19876 --topic bench "${@:2}"
}
