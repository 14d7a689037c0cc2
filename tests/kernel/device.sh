# Runs a command on a machine that has other devices: in a namespace of its own, with a /dev in which another device has their names, and
# a driver's library where runtimes put it: device.sh LIBRARY 'NAME:MINOR...' COMMAND...
set -e
library=$1 names=$2
shift 2
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/opengl-driver/lib /run/dev/pts /run/dev/shm
cp "$library" /run/opengl-driver/lib/libnvidia-ml.so.1
for name in null zero random urandom tty; do cp -a "/dev/$name" /run/dev; done
# Of the kernel's memory devices (major number 1).
for name in $names; do mknod -m 666 "/run/dev/${name%:*}" c 1 "${name#*:}"; done
# One of AMD's.
if [ -n "${AMD:-}" ]; then
  mkdir /run/dev/dri && mknod -m 666 /run/dev/dri/renderD128 c 1 7
  mount -t tmpfs none /sys/class && mkdir -p /sys/class/drm/renderD128/device
  echo 0x1002 > /sys/class/drm/renderD128/device/vendor
fi
mount --bind /run/dev /dev
exec "$@"
