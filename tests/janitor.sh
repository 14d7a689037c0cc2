# Takes away what stands on standard input, one path a line, once that input has ended: directories of tests, with all that
# was started from them, and control groups, with all that is in them. tests/janitor.rs says for whom.
trap '' HUP INT TERM
ulimit -c 0
left=()
while IFS= read -r path; do [ -z "$path" ] || left+=("$path"); done
[ ${#left[@]} -gt 0 ] || exit 0

# Each station and each cluster gives its directory to what it starts, as DIR.
started() {
  grep -slzxF -f <(printf 'DIR=%s\n' "${left[@]}") /proc/[0-9]*/environ | cut -d/ -f3 | sort -n
}

# A job goes first, and then its jobmeter, which books it and takes its group away; a database ends with its tests.
end() {
  local pid=$1 round=$2 name
  read -r name 2>/dev/null < "/proc/$pid/comm" || return 0
  # Of libfaketime, which takes it away only where a process ends by itself.
  rm -f "/dev/shm/faketime_shm_$pid" "/dev/shm/sem.faketime_sem_$pid"
  case $name in
    jobmeter*) if [ "$round" -lt 50 ]; then kill -TERM "$pid"; kill -CONT "$pid"; else kill -KILL "$pid"; sleep 0.5; fi ;;
    postgres) [ "$round" -lt 50 ] || kill -KILL "$pid" ;;
    *) kill -KILL "$pid" ;;
  esac 2>/dev/null
}

for round in {1..80}; do
  for path in "${left[@]}"; do
    [ -e "$path/cgroup.procs" ] || continue
    # Version 1 has no cgroup.kill.
    echo 1 2>/dev/null > "$path/cgroup.kill" || find "$path" -name cgroup.procs -exec cat {} + 2>/dev/null | xargs -r kill -KILL 2>/dev/null
    find "$path" -depth -type d -exec rmdir {} + 2>/dev/null
  done
  pids=$(started)
  [ -n "$pids" ] || break
  for pid in $pids; do end "$pid" "$round"; done
  sleep 0.1
done
for path in "${left[@]}"; do
  [ -d "$path" ] && [ ! -e "$path/cgroup.procs" ] || continue
  while read -r _ point _; do
    case $point in "$path"/*) umount -l "$point" ;; esac
  done < /proc/self/mounts
  rm -rf --one-file-system "$path"
done
