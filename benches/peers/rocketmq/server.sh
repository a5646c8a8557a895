# shellcheck shell=bash
# Apache RocketMQ: a name server, a master that flushes before it answers, a slave that must have it in memory.
#
# inSyncReplicas=2, since SYNC_MASTER alone answers SEND_OK without the slave. haMasterAddress stays unset: the slave then
# learns the address from the name server, and with it set it never replicated. The broker refuses what waited 200 ms in its
# queue unless waitTimeMillsInSendQueue is longer. Nobody takes over for a master without controllers, so it has no failover.
variant rocketmq rocketmq durable "stable storage of the master, page cache of the slave" 2

rocketmq_flags=(-XX:+UseG1GC
    --add-exports=java.base/jdk.internal.ref=ALL-UNNAMED --add-exports=java.base/sun.nio.ch=ALL-UNNAMED
    --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED
    --add-opens=java.base/java.nio=ALL-UNNAMED)

start_rocketmq() {
    mkdir -p "$home/rocketmq/conf"
    export ROCKETMQ_HOME=$home/rocketmq
    printf 'listenPort=19876\nbindAddress=127.0.0.1\n' >"$home/names.properties"
    server names java "${rocketmq_flags[@]}" -Xms512m -Xmx512m -Duser.home="$home/names" -cp "$(jars rocketmq)" \
        org.apache.rocketmq.namesrv.NamesrvStartup -c "$home/names.properties"
    wait_for_port names 19876
    rocketmq_broker 0 SYNC_MASTER 10911 10912
    wait_for_port 0 10911
    rocketmq_broker 1 SLAVE 11911 11912
    wait_for_port 1 11911
    # The slave has found its master when a connection to the master's replication port stands.
    wait_until 1 "the slave did not connect to its master" \
        sh -c 'ss -Htn state established "( sport = :10912 )" | grep -q .'
}

rocketmq_broker() {
    cat >"$home/broker-$1.conf" <<CONFIG
brokerClusterName=DefaultCluster
brokerName=broker
brokerId=$1
brokerRole=$2
flushDiskType=SYNC_FLUSH
inSyncReplicas=2
namesrvAddr=127.0.0.1:19876
brokerIP1=127.0.0.1
brokerIP2=127.0.0.1
bindAddress=127.0.0.1
listenPort=$3
haListenPort=$4
storePathRootDir=$data/broker-$1
storePathCommitLog=$data/broker-$1/commitlog
autoCreateTopicEnable=true
registerNameServerPeriod=10000
haSendHeartbeatInterval=1000
waitTimeMillsInSendQueue=10000
sendThreadPoolQueueCapacity=200000
useReentrantLockWhenPutMessage=true
CONFIG
    server "$1" java "${rocketmq_flags[@]}" -Xms1g -Xmx1g -XX:MaxDirectMemorySize=2g -Duser.home="$home/broker-$1" \
        -cp "$(jars rocketmq)" org.apache.rocketmq.broker.BrokerStartup -c "$home/broker-$1.conf"
}

drive_rocketmq() {
    java_client rocketmq RocketmqDriver --servers 127.0.0.1:19876 --topic bench "${@:2}"
}
