# Runs a command on a machine that has an NVIDIA device: in a namespace of its own, with a /dev in which another device has its name, and
# a driver's library where runtimes put it.
set -e
library=$1
shift
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/opengl-driver/lib /run/dev/pts /run/dev/shm
cp "$library" /run/opengl-driver/lib/libnvidia-ml.so.1
for name in null zero random urandom tty; do cp -a "/dev/$name" /run/dev; done
# Two that nobody else here has open.
mknod -m 666 /run/dev/nvidia0 c 1 7
mknod -m 666 /run/dev/nvidiactl c 1 5
mount --bind /run/dev /dev
exec "$@"
