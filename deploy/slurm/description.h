#ifndef JOBMETER_DESCRIPTION_H
#define JOBMETER_DESCRIPTION_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <slurm/spank.h>

/* As much as jobmeter takes. */
#define DESCRIPTION_MAX_BYTES 65536
/* Of a command, which is for people. */
#define COMMAND_MAX_BYTES 8192

/* Words of a call, each with its NUL byte. */
struct words {
	char bytes[DESCRIPTION_MAX_BYTES];
	size_t length;
	int is_too_long;
};

/* What a job's user may choose by options. */
extern struct spank_option options[];

/* Whether the task is of an array of jobs, and which. What it says of a step its user may have set. */
int of_array(spank_t spank, uint32_t *array, uint32_t *element);

/* The same, and what slurmctld says. */
int of_true_array(spank_t spank, uint32_t job, uint32_t *array, uint32_t *element);

/* What a meter is told of the task `pid`; not zero where it cannot be. */
int describe(spank_t spank, struct words *words, pid_t pid);

#endif
