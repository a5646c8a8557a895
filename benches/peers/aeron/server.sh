# shellcheck shell=bash
# Aeron: Cluster (three nodes and an echo), Archive (one copy), and UDP alone as a reference for a transport.
#
# With a sync level of 2 a file and its metadata are on stable storage before the position moves on; with 0 they are in
# memory-mapped files. Buffers lie in /dev/shm, as Aeron recommends.
variant aeron-cluster aeron replicated "mapped files of a majority" "2 of 3"
variant aeron-cluster-sync aeron durable "stable storage of a majority (file sync level 2)" "2 of 3"
variant aeron-archive aeron other "stable storage of one node (file sync level 2), no network on the way" 1
variant aeron-udp aeron other "nothing: a transport" 0

aeron_flags=(--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED
    --add-opens=java.base/java.util.zip=ALL-UNNAMED)

aeron_sync_level() {
    [ "$1" = aeron-cluster ] && echo 0 || echo 2
}

start_aeron() {
    local node
    [[ $1 == aeron-cluster* ]] || return 0
    for node in 0 1 2; do
        server "$node" java -Xms512m -Xmx1g "${aeron_flags[@]}" -cp "$(jars aeron)" peers.AeronClusterNode \
            --node "$node" --sync-level "$(aeron_sync_level "$1")" --data "$data/aeron-$node" --aeron-dir "$shm" \
            --leader-file "$home/leader"
    done
    wait_until 0 "no node of the cluster leads" test -s "$home/leader"
}

drive_aeron() {
    local common=(--aeron-dir "$shm" --data "$data/aeron" --sync-level "$(aeron_sync_level "$1")")
    case $1 in
        aeron-udp) java_client aeron AeronUdpDriver "${common[@]}" "${@:2}" ;;
        aeron-archive) java_client aeron AeronArchiveDriver "${common[@]}" "${@:2}" ;;
        *) java_client aeron AeronClusterDriver "${common[@]}" --leader-file "$home/leader" "${@:2}" ;;
    esac
}
