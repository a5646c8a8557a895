# shellcheck shell=bash
# RabbitMQ, as the distribution packages it: three nodes, a quorum queue on all of them.
#
# A quorum queue flushes its log before it confirms. The nodes have a cookie, a port mapper and directories of their own,
# so that a RabbitMQ that is installed for other purposes is not touched.
variant rabbitmq rabbitmq durable "stable storage of a majority" "2 of 3"

rabbitmq_programs=/usr/lib/rabbitmq/bin

# Runs a command as node N.
rabbitmq_as() {
    local node=$1
    shift
    env HOME="$home/rabbitmq" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=14369 \
        RABBITMQ_NODENAME="r$node@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="2567$node" \
        RABBITMQ_DIST_PORT="2667$node" RABBITMQ_MNESIA_BASE="$data/rabbitmq-$node" RABBITMQ_LOG_BASE="$home/log-$node" \
        RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$home/plugins" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" "$@"
}

start_rabbitmq() {
    local node
    mkdir -p "$home/rabbitmq"
    head -c 15 /dev/urandom | base64 | tr -dc A-Za-z0-9 >"$home/rabbitmq/.erlang.cookie"
    chmod 400 "$home/rabbitmq/.erlang.cookie"
    echo '[].' >"$home/plugins"
    cat >"$home/rabbitmq.conf" <<CONFIG
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = r1@localhost
cluster_formation.classic_config.nodes.2 = r2@localhost
cluster_formation.classic_config.nodes.3 = r3@localhost
tcp_listen_options.nodelay = true
disk_free_limit.absolute = 1GB
log.file.level = warning
CONFIG
    fact server_settings <"$home/rabbitmq.conf"
    # Started by the first node otherwise, and left behind by the last.
    server epmd rabbitmq_as 1 epmd -port 14369 -address 127.0.0.1
    # One after the other: nodes that start at once found clusters of their own.
    for node in 1 2 3; do
        server "wrapper-$node" rabbitmq_as "$node" env RABBITMQ_PID_FILE="$pids/$node.pid" "$rabbitmq_programs/rabbitmq-server"
        wait_for_port "wrapper-$node" "2567$node"
    done
}

drive_rabbitmq() {
    cat >"$home/leader.sh" <<SCRIPT
$(declare -f rabbitmq_as)
home='$home' data='$data' rabbitmq_as 1 '$rabbitmq_programs/rabbitmqctl' --quiet list_queues leader | sed -n 's/^r\([0-9]\)@.*/\1/p'
SCRIPT
    java_client rabbitmq RabbitmqDriver --ports 25671,25672,25673 --topic bench --leader-command "bash $home/leader.sh" "${@:2}"
}
