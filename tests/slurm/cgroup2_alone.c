/* Shows slurmd and slurmstepd a machine with cgroup v2 alone: their plugin for it refuses one that has v1 hierarchies as well. Preloaded;
 * what is read from /proc/PID/cgroup is the line of v2. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Looked up where it is used: other libraries open files before this one is initialised. */
static int real_open(const char *path, int flags, mode_t mode)
{
	return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}

static int opened(const char *path, int flags, mode_t mode)
{
	char text[8192], *line;
	size_t length = strlen(path);
	int file = real_open(path, flags, mode), shown;
	ssize_t got;

	if (file < 0 || strncmp(path, "/proc/", 6) || length < 13 || strcmp(path + length - 7, "/cgroup"))
		return file;
	got = read(file, text, sizeof text - 1);
	close(file);
	text[got < 0 ? 0 : got] = 0;
	shown = memfd_create("cgroup", flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
	line = strstr(text, "0::");
	if (shown >= 0 && line && write(shown, line, strcspn(line, "\n") + 1) < 0)
		return -1;
	lseek(shown, 0, SEEK_SET);
	return shown;
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = mode_of(flags, arguments);
	va_end(arguments);
	return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

FILE *fopen(const char *path, const char *how)
{
	FILE *(*real)(const char *, const char *) = (FILE *(*)(const char *, const char *))dlsym(RTLD_NEXT, "fopen");
	size_t length = strlen(path);
	int file;

	if (strncmp(path, "/proc/", 6) || length < 13 || strcmp(path + length - 7, "/cgroup"))
		return real(path, how);
	file = opened(path, O_RDONLY | O_CLOEXEC, 0);
	return file < 0 ? NULL : fdopen(file, how);
}
