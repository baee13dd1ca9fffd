#!/bin/sh
# Forty uses of podman, of its pods and of docker with virtc as their runtime: what works, and how.
#
#   tests/engines.sh [VIRTC]      as root; VIRTC is a path, and what `make build` made without it
#
# Prints TAP, and ends with 0 when all uses are as they should be. Everything is in one temporary
# directory, docker's daemon too, and nothing is left. No use here is of a network: `--network none`.
# shellcheck disable=SC2016 # what is in single quotes is for the shells of containers
set -u
exec </dev/null
cd "$(dirname "$0")/.." || exit 1
target=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p')
virtc=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/$target/release/virtc}") || exit 1
# Debian's, whatever else is in PATH.
docker=${DOCKER:-/usr/bin/docker}
dockerd=${DOCKERD:-/usr/sbin/dockerd}

fail() {
    echo "Bail out! $*"
    exit 1
}
[ "$(id -u)" = 0 ] || fail "run as root"
[ -x "$virtc" ] || fail "there is no virtc at $virtc: make build"
for needed in podman script "$docker" "$dockerd" /bin/busybox; do
    command -v "$needed" >/dev/null || fail "$needed is missing: scripts/setup-packages.sh"
done

# ---- set-up ------------------------------------------------------------------------------------

# The sockets of docker's daemon are in it: a path of theirs has 107 bytes at most.
dir=$(mktemp -d "${TMPDIR:-/tmp}/virtc-test-XXXXXX") || exit 1
group=$(basename "$dir")
daemon=
export VIRTC_RUNTIME_ROOT="$dir/state" VIRTC_RUNTIME_FAILURES="$dir/failures"
export CONTAINERS_CONF="$dir/containers.conf" CONTAINERS_STORAGE_CONF="$dir/storage.conf"
export DOCKER_HOST="unix://$dir/d/sock" DOCKER_CONFIG="$dir/client"
# Engines make files there for a moment, and one that is ended just then leaves them.
export TMPDIR="$dir/tmp"

podman() {
    command podman --runtime virtc "$@"
}

docker() {
    command "$docker" "$@"
}

# Waits until a command succeeds, a hundredth of a second between, for half a minute at most.
until_true() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || return 1
        sleep 0.01
    done
}

is_mounted() {
    grep -q " $dir/" /proc/self/mounts
}

is_unmounted() {
    ! is_mounted
}

# The files of /proc that name the directory. Whatever is started here has it in its environment; what
# changes its environment has it in its command line.
processes() {
    # The pattern comes by a pipe, and grep has no environment, so that it does not find itself.
    echo "$dir" | env -i grep -alsF -f - /proc/[0-9]*/cmdline /proc/[0-9]*/environ
}

is_alone() {
    ! processes
}

end_engines() {
    podman pod rm --all --force --time 0 >/dev/null 2>&1
    podman rm --all --force --time 0 >/dev/null 2>&1
    if [ -n "$daemon" ]; then
        containers=$(docker ps --all --quiet 2>/dev/null)
        # shellcheck disable=SC2086 # a list of words
        [ -z "$containers" ] || docker rm --force $containers >/dev/null 2>&1
        kill "$daemon"
        wait "$daemon"
        daemon=
        # The daemon's own, onto itself.
        umount "$dir/d/data" 2>/dev/null
    fi
    # docker leaves the group that its containers were in.
    find /sys/fs/cgroup -name "$group" -type d -exec rmdir {} + 2>/dev/null
    # conmon cleans up beside us, and podman does not wait for it. What it starts makes directories
    # again that are gone.
    until_true is_alone
    until_true is_unmounted
}

clean_up() {
    trap - EXIT
    end_engines
    # Not through a mount that stayed: what is below may be somebody's.
    if is_mounted || ! rm -rf "$dir"; then
        {
            echo "$dir is not removed; its processes, mounts and files:"
            processes
            grep " $dir/" /proc/self/mounts
            find "$dir" -xdev | head -n 50
        } >&2
        exit 1
    fi
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

mkdir "$dir/tmp" "$dir/state" "$dir/failures" "$dir/d" "$dir/client" "$dir/volume" "$dir/image"
chmod 777 "$dir/volume"
echo 'of the host' >"$dir/volume/file"

# An image with one program under many names.
mkdir "$dir/image/bin" "$dir/image/etc" "$dir/image/proc" "$dir/image/data"
cp /bin/busybox "$dir/image/bin"
for name in sh cat echo false grep hostname id ls mknod ps sleep touch true; do
    ln -s busybox "$dir/image/bin/$name"
done
echo 'of the image' >"$dir/image/etc/marker"
tar -C "$dir/image" -cf "$dir/box.tar" .

# virtc as a runtime of podman's. The limits are what every machine allows.
cat >"$CONTAINERS_CONF" <<END
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$dir/p/tmp"
[engine.runtimes]
virtc = ["$virtc"]
[containers]
default_ulimits = ["nofile=1024:4096"]
END
cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "vfs"
runroot = "$dir/p/run"
graphroot = "$dir/p/graph"
END
echo '{}' >"$dir/client/config.json"
podman import "$dir/box.tar" box >/dev/null 2>&1 || fail "podman imports no image"

# virtc as a runtime of docker's, whose daemon is ours alone.
echo "{\"deprecated-key-path\": \"$dir/d/key.json\"}" >"$dir/d/daemon.json"
"$dockerd" --config-file "$dir/d/daemon.json" --data-root "$dir/d/data" --exec-root "$dir/d/run" \
    --pidfile "$dir/d/pid" --host "$DOCKER_HOST" --storage-driver vfs \
    --exec-opt native.cgroupdriver=cgroupfs --bridge none --iptables=false --ip6tables=false \
    --cgroup-parent "/$group" --add-runtime "virtc=$virtc" >"$dir/d/log" 2>&1 &
daemon=$!
until_true docker info || fail "docker's daemon does not answer: $(tail -n 3 "$dir/d/log")"
docker import "$dir/box.tar" box >/dev/null || fail "docker imports no image"

# ---- the form of a use -------------------------------------------------------------------------

number=0
failed=0

# check NAME CODE OUTPUT COMMAND…: whether the command ends with the code and prints the output, a
# pattern of the shell's.
check() {
    number=$((number + 1))
    name=$1 expected=$2 pattern=$3
    shift 3
    output=$("$@" 2>"$dir/err")
    code=$?
    output=$(printf '%s' "$output" | tr -d '\r')
    # shellcheck disable=SC2254 # it is a pattern
    case $code:$output in
    $expected:$pattern)
        echo "ok $number - $name"
        return
        ;;
    esac
    failed=$((failed + 1))
    echo "not ok $number - $name"
    printf 'code %s, not %s\nstdout, which is not %s:\n%s\nstderr:\n%s\n' "$code" "$expected" \
        "$pattern" "$output" "$(cat "$dir/err")" | sed 's/^/# /'
}

# What a service does: it says that it is there, and ends in its own way when it is told to.
service='trap "echo bye; exit 9" TERM; echo up; while :; do sleep 0.1; done'
# What a terminal is, and what it does with a line.
terminal='test -t 0 && test -t 1 && echo a terminal; read x; echo got $x'
lines() {
    printf '%s\n' "$@"
}

echo 1..40

# ---- podman ------------------------------------------------------------------------------------

podman_state() {
    command podman inspect --format "{{.State.$1}}" "$2"
}

a_service_starts() {
    podman run --detach --name c1 --network none \
        --hostname front --workdir /etc --env GREETING=hello --user 1000:100 --cap-drop all \
        --ulimit nofile=100:200 --read-only --tmpfs /scratch:size=1m \
        --volume "$dir/volume:/data" box /bin/sh -c "$service" >/dev/null &&
        podman_state Status c1
}
check 'podman run --detach: a service in a machine of its own' 0 running a_service_starts
check 'podman run --hostname --workdir --env' 0 "$(lines front /etc hello)" \
    podman exec c1 /bin/sh -c 'hostname; pwd; echo $GREETING'
check 'podman run --user --cap-drop' 0 "$(lines 1000 100 'CapBnd:?0000000000000000')" \
    podman exec c1 /bin/sh -c 'id -u; id -g; grep CapBnd /proc/self/status'
check 'podman run --ulimit' 0 "$(lines 100 200)" podman exec c1 /bin/sh -c 'ulimit -Sn; ulimit -Hn'
check 'podman run --read-only --tmpfs' 0 "$(lines refused written)" \
    podman exec --user 0 c1 /bin/sh -c 'touch /etc/x || echo refused; touch /scratch/x && echo written'

volume_both_ways() {
    podman exec c1 /bin/sh -c 'cat /data/file; echo of the guest >/data/new' && cat "$dir/volume/new"
}
check 'podman run --volume' 0 "$(lines 'of the host' 'of the guest')" volume_both_ways
check 'podman logs' 0 up podman logs c1
check 'podman exec: the exit code' 4 '' podman exec c1 /bin/sh -c 'exit 4'
check 'podman exec: what does not exist gives 127' 127 '' podman exec c1 /no-such-program
check 'podman exec --interactive: stdin to its end' 0 fed podman exec -i c1 /bin/cat <<END
fed
END
check 'podman exec --tty: a terminal' 0 '*a terminal*got typed' \
    podman exec -it c1 /bin/sh -c "$terminal" <<END
typed
END
check 'podman top -eo pid,args' 0 '*1 /bin/sh -c trap*' podman top c1 -eo pid,args

# In the mount namespace of the container's pid on the host, where there is nothing of the host.
processes_on_the_host() {
    podman top c1 pid args && podman top c1 | wc -l
}
check 'podman top: one process on the host' 0 '*virtc*2' processes_on_the_host
check 'podman stats: of the machine, and not zero' 0 '[1-9]*B / *B [1-9]*' \
    podman stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' c1

copies_both_ways() {
    echo 'copied in' >"$dir/in"
    podman cp "$dir/in" c1:/data/in && podman exec c1 /bin/cat /data/in &&
        podman cp c1:/etc/marker "$dir/out" && cat "$dir/out"
}
check 'podman cp: into a running container and out of it' 0 \
    "$(lines 'copied in' 'of the image')" copies_both_ways

pauses() {
    podman pause c1 >/dev/null && podman_state Status c1 &&
        podman unpause c1 >/dev/null && podman_state Status c1
}
check 'podman pause, unpause' 0 "$(lines paused running)" pauses

another_machines_ipc() {
    podman run --rm --network none --ipc container:c1 box /bin/true 2>&1
}
check 'podman run --ipc container: another machine is refused by name' 126 \
    '*ipc namespace*is of no container of this sandbox*' another_machines_ipc

stops() {
    podman stop --time 10 c1 >/dev/null && podman_state Status c1 && podman_state ExitCode c1 &&
        podman logs c1
}
check 'podman stop: the service ends in its own way' 0 "$(lines exited 9 up bye)" stops

restarts_and_is_killed() {
    podman restart --time 0 c1 >/dev/null && podman_state Status c1 &&
        podman kill c1 >/dev/null && podman wait c1
}
check 'podman restart, kill, wait' 0 "$(lines running 137)" restarts_and_is_killed

is_removed() {
    podman rm c1 >/dev/null && podman ps --all --quiet && ls "$dir/state"
}
check 'podman rm: nothing is left' 0 '' is_removed

check 'podman run --rm --interactive: streams and the exit code' 7 through \
    podman run --rm -i --network none box /bin/sh -c 'cat; exit 7' <<END
through
END
check 'podman run: what cannot be executed gives 126' 126 '' \
    podman run --rm --network none box /etc/marker
check 'podman run: no image gives 125' 125 '' podman run --rm --pull never no-such-image

attaches() {
    podman run -di --name c2 --network none box /bin/sh -c 'read x; echo got $x; exit 3' >/dev/null
    echo typed | podman attach c2 && podman wait c2 && podman rm c2 >/dev/null
}
check 'podman attach, wait: streams and the exit code' 0 "$(lines 'got typed*' 3)" attaches

# ---- pods --------------------------------------------------------------------------------------

a_pod_starts() {
    podman pod create --name p1 --network none --hostname pod --infra-image box \
        --infra-command '/bin/sleep 100000' >/dev/null &&
        podman run --detach --pod p1 --name m1 box /bin/sleep 100000 >/dev/null &&
        podman run --detach --pod p1 --name m2 box /bin/sleep 100000 >/dev/null &&
        podman pod inspect --format '{{.State}}' p1
}
check 'podman pod create: two members in one machine' 0 Running a_pod_starts

members_share() {
    podman exec m1 /bin/sh -c 'hostname; : >/dev/mqueue/queue; echo data >/dev/shm/memory' &&
        podman exec m2 /bin/sh -c 'hostname; ls /dev/mqueue; cat /dev/shm/memory'
}
check 'podman run --pod: members share host name, message queues and memory' 0 \
    "$(lines pod pod queue data)" members_share
check 'podman top: a member sees itself alone' 0 '*1 /bin/sleep 100000' podman top m2 -eo pid,args
pod_stats() {
    podman pod stats --no-stream --format '{{.Name}} {{.PIDS}}' p1 | grep '^m' | sort
}
check 'podman pod stats' 0 "$(lines 'm1 [1-9]*' 'm2 [1-9]*')" pod_stats

pod_goes_on() {
    podman pod stop --time 0 p1 >/dev/null && podman pod inspect --format '{{.State}}' p1 &&
        podman pod start p1 >/dev/null && podman exec m2 /bin/echo again
}
check 'podman pod stop, start' 0 "$(lines Exited again)" pod_goes_on

pod_is_removed() {
    podman pod rm --force --time 0 p1 >/dev/null && podman ps --all --quiet && ls "$dir/state"
}
check 'podman pod rm: nothing is left' 0 '' pod_is_removed

# ---- docker ------------------------------------------------------------------------------------

docker_state() {
    docker inspect --format "{{.State.$1}}" "$2"
}

a_docker_service_starts() {
    docker run --runtime virtc --detach --name d1 --network none \
        --hostname front --workdir /etc --env GREETING=hello --ulimit nofile=100:200 \
        --tmpfs /scratch:size=1m --volume "$dir/volume:/data:ro" \
        --device-cgroup-rule 'c 10:229 r' box /bin/sh -c "$service" >/dev/null &&
        docker_state Status d1
}
check 'docker run --runtime virtc --detach' 0 running a_docker_service_starts
check 'docker run --hostname --workdir --env --ulimit --tmpfs --volume' 0 \
    "$(lines front /etc hello 100 'of the host' refused)" \
    docker exec d1 /bin/sh -c 'hostname; pwd; echo $GREETING; ulimit -n; cat /data/file
        touch /scratch/x && touch /data/x || echo refused'
check 'docker run --device-cgroup-rule: other devices are denied' 0 "$(lines readable denied)" \
    docker exec d1 /bin/sh -c 'mknod /dev/fuse c 10 229; mknod /dev/disk b 254 0
        true </dev/fuse && echo readable; true </dev/disk || echo denied'

docker_execs() {
    echo fed | docker exec -i d1 /bin/cat
    docker exec d1 /bin/sh -c 'exit 4' || echo $?
    docker exec d1 /no-such-program >/dev/null || echo $?
}
check 'docker exec: stdin and exit codes' 0 "$(lines fed 4 127)" docker_execs
# docker wants a terminal of its own for one; script(1) gives it one.
check 'docker exec --tty: a terminal' 0 '*a terminal*got typed*' \
    script -qefc "$docker exec -it d1 /bin/sh -c '$terminal'" /dev/null <<END
typed
END

docker_looks() {
    docker logs d1 && docker top d1 -eo pid,args | sed -n '2s/.*\(virtc\).*/\1/p' &&
        docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' d1
}
check 'docker logs, top, stats' 0 "$(lines up virtc '[1-9]*B / *B [1-9]*')" docker_looks

docker_changes() {
    docker pause d1 >/dev/null && docker_state Status d1 && docker unpause d1 >/dev/null &&
        docker update --pids-limit 77 d1 >/dev/null &&
        docker inspect --format '{{.HostConfig.PidsLimit}}' d1 &&
        docker cp "$dir/in" d1:/etc/in && docker exec d1 /bin/cat /etc/in &&
        docker cp d1:/etc/marker - | tar -xO
}
check 'docker pause, unpause, update, cp' 0 \
    "$(lines paused 77 'copied in' 'of the image')" docker_changes

docker_ends() {
    docker stop --time 10 d1 >/dev/null && docker_state ExitCode d1 &&
        docker restart --time 0 d1 >/dev/null && docker_state Status d1 &&
        docker kill d1 >/dev/null && docker wait d1 && docker rm d1 >/dev/null
}
check 'docker stop, restart, kill, wait, rm' 0 "$(lines 9 running 137)" docker_ends

docker_attaches() {
    docker run --runtime virtc -di --name d2 --network none box \
        /bin/sh -c 'read x; echo got $x; exit 3' >/dev/null
    # docker leaves when its stdin ends before the container does.
    { echo typed; docker wait d2 >/dev/null; } | docker attach d2
    code=$?
    docker rm --force d2 >/dev/null
    return $code
}
check 'docker attach: streams and the exit code' 3 'got typed' docker_attaches

end_engines
what_is_left() {
    find "$dir/state" "$dir/failures" -mindepth 1
    grep " $dir/" /proc/self/mounts
    find /sys/fs/cgroup -path "*/$group/*" -type d
    processes | while read -r file; do
        tr '\0' ' ' <"${file%/*}/cmdline"
    done
}
check 'nothing is left: no process, no mount, no cgroup, no state' 0 '' what_is_left

[ $failed = 0 ]
