#!/usr/bin/env bash
# Test the packages that build.sh has made, in a fresh Debian 12 with a /dev/shm and a /run of its own:
#     sudo contrib/debian/test.sh FOLDER-WITH-THE-PACKAGES
# Needs mmdebstrap and the network. Each step says what it has seen; the first that is wrong ends it.
set -euo pipefail
packages=$(realpath "${1:-dist}")
if [ "${2:-}" != unshared ]; then
    # what is mounted below is gone with the namespace; the processes too
    exec unshare --mount --pid --fork --kill-child "$0" "$packages" unshared
fi
export TMPDIR=/var/tmp LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
root=$(mktemp -d)
trap 'umount -R "$root/proc" "$root/dev" "$root/run" 2>/dev/null; rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"
mount --make-rprivate /

mmdebstrap --quiet --variant=minbase \
    --include=python3,python3-psutil,python3-prometheus-client,sudo,systemd,adduser,man-db,bash-completion \
    --dpkgopt='path-include=/usr/share/man/*' bookworm "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/packages"
cp "$packages"/ipclock_*.deb "$root/packages/ipclock.deb"
cp "$packages"/python3-posix-ipc_*.deb "$root/packages/posix-ipc.deb"

run() { chroot "$root" "$@"; }
as() { run su - "$1" -c "$2"; }
seen() { printf 'ok  %s\n' "$*"; }
wrong() { printf 'WRONG  %s\n' "$*"; exit 1; }
expect() { # what, wanted, found
    if [ "$2" = "$3" ]; then seen "$1: $3"; else wrong "$1: wanted $2, found $3"; fi
}
boot() { # an empty /dev/shm and /run, then what systemd would do, but for the pool with an argument
    umount "$root/dev/shm" "$root/run" 2>/dev/null || true
    mkdir -p "$root/dev/shm"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    if [ -e "$root/usr/lib/tmpfiles.d/ipclock.conf" ]; then
        run systemd-tmpfiles --create ipclock.conf
        [ "$#" -gt 0 ] || run sh -c "$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/ipclock-init.service")"
    fi
}
boot

echo '== install'
run apt-get install -y -qq --no-install-recommends /packages/ipclock.deb /packages/posix-ipc.deb \
    >"$root/apt.log" 2>&1 || { cat "$root/apt.log"; exit 1; }
seen "$(run ipclock --version), posix_ipc $(run python3 -c 'import posix_ipc; print(posix_ipc.VERSION)'), psutil" \
    "$(run python3 -c 'import psutil; print(psutil.__version__)'), $(run python3 --version)"
expect 'pool folder' '2770 root ipclock' "$(run stat -c '%a %U %G' /run/ipclock/ipclock.oracle-build)"
expect 'semaphore' '660 root ipclock' "$(run stat -c '%a %U %G' /dev/shm/sem.oracle-build)"
expect 'unit enabled' enabled "$(run systemctl is-enabled ipclock-init.service)"
run man ipclock | grep -q '^EXIT STATUS' && seen 'man ipclock'
run man -L ko ipclock | grep -q '^종료 상태' && seen 'man -L ko ipclock'
run man 5 ipclock-build-config | grep -q '^SETTINGS' && seen 'man ipclock-build-config'
completed=$(run bash -c 'source /usr/share/bash-completion/bash_completion; _completion_loader ipclock
    COMP_WORDS=(ipclock re) COMP_CWORD=1; _ipclock; echo "${COMPREPLY[*]}"' 2>/dev/null)
expect 'bash completes re' 'release resume reset' "$completed"

echo '== two users of the group, and one who is not'
for user in alice bob carol; do run useradd -m -s /bin/bash "$user"; done
for user in alice bob; do run adduser --quiet "$user" ipclock; done
echo 'bob ALL=(root) NOPASSWD: /usr/bin/ipclock' >"$root/etc/sudoers.d/ipclock"
as alice 'ipclock wrap -q "a build" -- sleep 1000' &
until as bob 'ipclock status' | grep -q 'a build'; do :; done
seen 'bob sees what alice builds'
expect 'bob, without waiting' 75 "$(as bob 'ipclock wrap -q -n other -- true' 2>/dev/null; echo $?)"
expect 'carol' 77 "$(as carol 'ipclock wrap -q -n hers -- true' 2>/dev/null; echo $?)"

echo '== one pool for all settings and scripts'
for user in alice bob; do as $user 'cp -r /usr/share/doc/ipclock/examples/oracle scripts && mkdir app'; done
expect 'deploy-staging.sh of bob' 75 "$(as bob 'BUILD_TIMEOUT=0.2 scripts/deploy-staging.sh app >/dev/null 2>&1; echo $?')"
as bob 'scripts/check-build-status.sh' | grep -q 'a build' && seen 'check-build-status.sh shows what alice builds'
expect 'bob, with the LOCK_DIR of an old script' 75 \
    "$(as bob 'LOCK_DIR=/tmp/oracle-build-locks ipclock wrap -q -n other -- true' 2>/dev/null; echo $?)"
expect 'folders' '/run/ipclock/ipclock.oracle-build' "$(run find /run /tmp /dev/shm -type d -name 'ipclock.oracle-build')"

echo '== upgrade while a build runs'
echo 'MAX_PARALLEL_BUILDS=1  # ours' >>"$root/etc/ipclock/build-config.sh"
dpkg-deb -R "$root/packages/ipclock.deb" "$root/packages/newer"
sed -i 's/^Version: .*/&+newer/' "$root/packages/newer/DEBIAN/control"
dpkg-deb -b "$root/packages/newer" "$root/packages/newer.deb" >/dev/null
run apt-get install -y -qq --no-install-recommends /packages/newer.deb >"$root/apt.log" 2>&1
expect 'version' "$(dpkg-deb -f "$root/packages/newer.deb" Version)" "$(run dpkg-query -W -f '${Version}' ipclock)"
expect 'the changed conffile' 1 "$(grep -c '# ours' "$root/etc/ipclock/build-config.sh")"
expect 'the build still holds its slot' 75 "$(as bob 'ipclock wrap -q -n other -- true' 2>/dev/null; echo $?)"

echo '== reset as root'
as bob 'sudo ipclock reset --kill'
expect 'bob after it' 0 "$(as bob 'ipclock wrap -q -n other -- true'; echo $?)"
as bob 'ipclock stats' | grep -q other && seen 'the group has one history'

echo '== metrics'
expect 'timer enabled' disabled "$(run systemctl is-enabled ipclock-metrics.timer || true)"
mkdir -p "$root/var/lib/prometheus/node-exporter"
run sh -c "$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/ipclock-metrics.service")"
expect 'slots' 'ipclock_slots{pool="/oracle-build"} 1.0' \
    "$(grep '^ipclock_slots{' "$root/var/lib/prometheus/node-exporter/ipclock.prom")"

echo '== boot'
boot
expect 'pool folder' '2770 root ipclock' "$(run stat -c '%a %U %G' /run/ipclock/ipclock.oracle-build)"
expect 'alice' 0 "$(as alice 'ipclock wrap -q -n again -- true'; echo $?)"

echo '== a name that a user took first'
boot 'no init'
as alice 'LOCK_MODE=0600 LOCK_DIR=/dev/shm ipclock wrap -q "her build" -- sleep 1000' 2>/dev/null &
until as alice 'ipclock status' 2>/dev/null | grep -q 'her build'; do :; done
expect 'bob' 78 "$(as bob 'ipclock wrap -q -n other -- true' 2>/dev/null; echo $?)"
run sh -c "$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/ipclock-init.service")"
expect 'pool folder' '2770 root ipclock' "$(run stat -c '%a %U %G' /run/ipclock/ipclock.oracle-build)"
expect 'bob, while her build runs' 75 "$(as bob 'ipclock wrap -q -n other -- true' 2>/dev/null; echo $?)"
as bob 'sudo ipclock reset --kill'
expect 'bob after it' 0 "$(as bob 'ipclock wrap -q -n other -- true'; echo $?)"

echo '== remove, purge'
run apt-get remove -y -qq ipclock >"$root/apt.log" 2>&1
expect 'conffile after the removal' 1 "$(grep -c '# ours' "$root/etc/ipclock/build-config.sh")"
run touch /dev/shm/sem.oracle-build.7 /dev/shm/sem.oracle-build.web /dev/shm/sem.oracle-build.web.7
for user in alice bob; do run gpasswd -d "$user" ipclock >/dev/null; done
run apt-get purge -y -qq ipclock python3-posix-ipc >"$root/apt.log" 2>&1
left=$(run find / -xdev \( -path /proc -o -path /packages -o -path '/etc/sudoers.d' -o -path /var/cache -o -path /home \) -prune \
    -o \( -name '*ipclock*' -o -name '*posix?ipc*' \) -print)
expect 'files left' '' "$left$(find "$root/run" -name '*ipclock*' -o -name '*oracle-build*')"
expect 'the turns of a user'"'"'s pool' 'sem.oracle-build.web sem.oracle-build.web.7' \
    "$(cd "$root/dev/shm" && find . -name '*ipclock*' -o -name '*oracle-build*' | sed 's#^\./##' | sort | xargs)"
expect 'group left' '' "$(run getent group ipclock || true)"
echo 'all is as it should be'
