#!/usr/bin/env bash
# Boots systemd as PID 1 of namespaces of its own, over a view of this machine whose changes are kept in a directory, so that it
# can be booted again. bed.sh DIRECTORY GROUP PACKAGE: a directory for the changes, a cgroup v2 directory to live in, and the
# package to install where it is not installed yet. It ends with its caller.
set -euo pipefail
export KEPT=$1 GROUP=$2 PACKAGE=$3 TAKE_ROOT=$(dirname "$(readlink -f "$0")")/take-root.py
echo $$ > "$GROUP/cgroup.procs"
exec setpriv --pdeathsig KILL -- unshare --mount --pid --fork --uts --ipc --cgroup --net --kill-child -- bash -euc '
  mount --make-rprivate /
  mkdir -p "$KEPT/upper" "$KEPT/work" "$KEPT/root"
  mount -t overlay overlay -o lowerdir=/,upperdir="$KEPT/upper",workdir="$KEPT/work" "$KEPT/root"
  cp "$PACKAGE" "$KEPT/root/package.deb"
  cd "$KEPT/root"
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=1777 tmpfs tmp
  mount -t proc proc proc
  mount --rbind /sys sys
  umount -R sys/fs/cgroup
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount --rbind /dev dev
  if [ ! -e var/lib/jobmeter ] || [ ! -e usr/bin/jobmeter ]; then
    rm -rf var/lib/jobmeter
    chroot . dpkg --install /package.deb >&2
    ls etc/systemd/system/*.wants/ lib/systemd/system/*.wants/ 2>/dev/null |
      grep -E "^(postgresql|getty|console-getty|cron|docker|containerd|slurm|munge|prometheus|exim|podman)" |
      sort -u | while read -r unit; do ln -sf /dev/null "etc/systemd/system/$unit"; done
  fi
  ip link set lo up 2>/dev/null || true
  # Mounts are shared as systemd has them on a machine: credentials reach their service by propagation.
  exec python3 "$TAKE_ROOT" sh -c "mount --make-rshared / && exec env -i container=jobmeter-test PATH=\"$PATH\" \"\$@\"" sh /lib/systemd/systemd --system --unit=multi-user.target --log-target=null --show-status=0
'
