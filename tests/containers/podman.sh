#!/usr/bin/env bash
# podman as it works here: podman.sh DIRECTORY COMMAND...: runs COMMAND where `podman` keeps everything in DIRECTORY and sees
# a plain cgroup v2 hierarchy, also where the machine has a hybrid one. Ends what runs in its containers.
set -euo pipefail
export PODMAN_DIRECTORY=$1
shift
mkdir -p "$PODMAN_DIRECTORY"
# Some machines lend no CAP_SYS_RESOURCE, without which rlimits and negative OOM scores cannot be set, and no controllers for
# the hierarchy that is made plain below.
cat > "$PODMAN_DIRECTORY/runtime" <<'RUNTIME'
#!/usr/bin/env bash
for ((at = 1; at <= $#; at++)); do
  [ "${!at}" = --bundle ] && { next=$((at + 1)); bundle=${!next}; }
done
if [ -n "${bundle:-}" ] && [ -f "$bundle/config.json" ]; then
  jq 'del(.process.rlimits, .linux.resources) | if (.process.oomScoreAdj // 0) < 0 then .process.oomScoreAdj = 0 else . end' \
    "$bundle/config.json" > "$bundle/config.new" && mv "$bundle/config.new" "$bundle/config.json"
fi
exec runc "$@"
RUNTIME
chmod 755 "$PODMAN_DIRECTORY/runtime"
cat > "$PODMAN_DIRECTORY/containers.conf" <<CONF
[containers]
default_sysctls = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "here"
[engine.runtimes]
here = ["$PODMAN_DIRECTORY/runtime"]
CONF
cat > "$PODMAN_DIRECTORY/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$PODMAN_DIRECTORY/storage"
runroot = "$PODMAN_DIRECTORY/run"
CONF
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > "$PODMAN_DIRECTORY/policy.json"
export CONTAINERS_CONF="$PODMAN_DIRECTORY/containers.conf" CONTAINERS_STORAGE_CONF="$PODMAN_DIRECTORY/storage.conf"
exec unshare --mount -- bash -euc '
  mount --make-rprivate /
  if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
  fi
  mkdir -p /sys/fs/cgroup/jobmeter-podman
  echo $$ > /sys/fs/cgroup/jobmeter-podman/cgroup.procs
  exec "$@"' here "$@"
