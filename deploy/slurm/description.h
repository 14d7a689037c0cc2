#ifndef JOBMETER_DESCRIPTION_H
#define JOBMETER_DESCRIPTION_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <slurm/spank.h>

#define WORDS_MAX 4096

/* The words of one call, which it owns. */
struct words {
	char *word[WORDS_MAX + 1];
	size_t count;
	int is_short_of_memory;
};

/* What a job's user may choose by options. */
extern struct spank_option options[];

/* Whether the task is of an array of jobs, and which. What it says of a step its user may have set. */
int of_array(spank_t spank, uint32_t *array, uint32_t *element);

/* The same, and what slurmctld says. */
int of_true_array(spank_t spank, uint32_t job, uint32_t *array, uint32_t *element);

/* The call of a meter for the task `pid`; not zero where it cannot be told. */
int describe(spank_t spank, struct words *words, pid_t pid);

#endif
