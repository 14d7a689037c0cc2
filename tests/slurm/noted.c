/* Burns CPU time and keeps in a file what the kernel has charged for it so far, since it may be killed: noted FOLDER NAME SECONDS [SCRIPT].
 * The file is NAME.RANK; its one line is the seconds and `runs`, or `ended`. A script runs after it, and counts as well. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static double of(int whose)
{
	struct rusage usage;

	getrusage(whose, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double note(int file, const char *state)
{
	char line[64];
	double used = of(RUSAGE_SELF) + of(RUSAGE_CHILDREN);
	int length = snprintf(line, sizeof line, "%012.6f %-5s\n", used, state);

	if (pwrite(file, line, (size_t)length, 0) != length)
		exit(99);
	return used;
}

int main(int argc, char **argv)
{
	const char *rank = getenv("SLURM_PROCID");
	char path[512];
	double seconds;
	int file;

	if (argc < 4)
		return 98;
	snprintf(path, sizeof path, "%s/%s.%s", argv[1], argv[2], rank ? rank : "0");
	seconds = atof(argv[3]);
	/* One that runs a second time is found out. */
	file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	if (file < 0) {
		perror(path);
		return 97;
	}
	while (note(file, "runs") < seconds)
		for (volatile int i = 0; i < 200000; i++)
			;
	if (argc > 4) {
		/* What it leaves behind becomes this process's child, so that it is waited for. */
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		if (fork() == 0) {
			execl("/bin/sh", "sh", "-c", argv[4], NULL);
			_exit(96);
		}
		while (wait(NULL) > 0)
			note(file, "runs");
	}
	note(file, "ended");
	_exit(0);
}
