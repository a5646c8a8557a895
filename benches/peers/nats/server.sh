# shellcheck shell=bash
# NATS with JetStream: three nodes, a stream in files on all of them.
#
# By default a node flushes every two minutes; with sync_interval: always it flushes before it answers.
variant nats nats replicated "page cache of a majority" "2 of 3"
variant nats-sync nats durable "stable storage of a majority (sync_interval: always)" "2 of 3"

start_nats() {
    local node sync=
    [ "$1" != nats-sync ] || sync="sync_interval: always"
    for node in 1 2 3; do
        cat >"$home/nats-$node.conf" <<CONFIG
server_name: "$node"
listen: 127.0.0.1:1422$node
jetstream {
    store_dir: "$data/nats-$node"
    max_file: 20G
    $sync
}
cluster {
    name: relay-peers
    listen: 127.0.0.1:1522$node
    routes: [nats://127.0.0.1:15221, nats://127.0.0.1:15222, nats://127.0.0.1:15223]
}
CONFIG
        server "$node" "$built/nats/nats-server" -c "$home/nats-$node.conf"
    done
    fact server_settings <"$home/nats-1.conf"
    for node in 1 2 3; do
        wait_for_port "$node" "1422$node"
    done
}

drive_nats() {
    client "$built/nats/driver" --servers nats://127.0.0.1:14221,nats://127.0.0.1:14222,nats://127.0.0.1:14223 "${@:2}"
}
