#!/usr/bin/env bash
# Boots systemd as PID 1 of namespaces of its own, over a copy-on-write view of this machine, so that nothing of it
# is changed. Arguments: a cgroup v2 directory to live in, and the jobmeter binary. It ends with its caller.
set -euo pipefail
export GROUP=$1 BINARY=$2 TAKE_ROOT=$(dirname "$(readlink -f "$0")")/../systemd/take-root.py
echo $$ > "$GROUP/cgroup.procs"
exec setpriv --pdeathsig KILL -- unshare --mount --pid --fork --uts --ipc --cgroup --net --kill-child -- bash -euc '
  mount --make-rprivate /
  mount -t tmpfs tmpfs /mnt
  cd /mnt
  mkdir upper work root
  mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
  cd root
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=1777 tmpfs tmp
  mount -t proc proc proc
  mount --rbind /sys sys
  umount -R sys/fs/cgroup
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount --rbind /dev dev
  install -m 755 "$BINARY" usr/local/bin/jobmeter
  ls etc/systemd/system/*.wants/ lib/systemd/system/*.wants/ 2>/dev/null | grep -E "^(postgresql|getty|console-getty|cron|docker|containerd)" |
    sort -u | while read -r unit; do ln -sf /dev/null "etc/systemd/system/$unit"; done
  chroot . useradd --uid 4217 --create-home jobmeter-tester
  exec python3 "$TAKE_ROOT" env -i container=jobmeter-test PATH="$PATH" /lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=0
'
