/* Burns CPU time in the ways that meters lose, and says what the kernel charged for it: burner SECONDS [plain | children | orphan | threads].
 * All of it is waited for, so that getrusage(2) of this process knows it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void burn(clockid_t clock, double seconds)
{
	struct timespec now;

	do
		clock_gettime(clock, &now);
	while ((double)now.tv_sec + (double)now.tv_nsec / 1e9 < seconds);
}

static double seconds;

static void *of_thread(void *nothing)
{
	burn(CLOCK_THREAD_CPUTIME_ID, seconds / 2);
	return nothing;
}

static double used(int whose)
{
	struct rusage usage;

	getrusage(whose, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	const char *way = argc > 2 ? argv[2] : "plain";

	seconds = argc > 1 ? atof(argv[1]) : 1;
	/* An orphan becomes this process's child, so that it can be waited for. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (!strcmp(way, "children")) {
		for (double left = seconds; left > 0; left -= 0.01) {
			if (fork() == 0) {
				burn(CLOCK_PROCESS_CPUTIME_ID, 0.01);
				_exit(0);
			}
			wait(NULL);
		}
	} else if (!strcmp(way, "orphan")) {
		if (fork() == 0) {
			setsid();
			if (fork() == 0) {
				burn(CLOCK_PROCESS_CPUTIME_ID, seconds);
				_exit(0);
			}
			_exit(0);
		}
	} else if (!strcmp(way, "threads")) {
		pthread_t threads[2];

		for (int i = 0; i < 2; i++)
			pthread_create(&threads[i], NULL, of_thread, NULL);
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
	} else {
		burn(CLOCK_PROCESS_CPUTIME_ID, seconds);
	}
	while (wait(NULL) > 0)
		;
	printf("%.6f\n", used(RUSAGE_SELF) + used(RUSAGE_CHILDREN));
	return 0;
}
