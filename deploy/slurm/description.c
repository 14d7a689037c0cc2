/* What the plugin tells a meter of its task. */
#define _GNU_SOURCE
#include "description.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>

#define WORD_MAX_BYTES 512

enum { LIMIT, KIND, NAME, LABEL, NOTICE, GRACE, CHOICES };
static const char *const choice_names[CHOICES] = {"limit", "kind", "name", "label", "notice", "grace"};
static const char *const choice_variables[CHOICES] = {"JOBMETER_LIMIT", "JOBMETER_KIND", "JOBMETER_NAME", "JOBMETER_LABEL", "JOBMETER_NOTICE", "JOBMETER_GRACE"};
static char *chosen[CHOICES];

static int choose(int choice, const char *value, int remote)
{
	(void)remote;
	if (choice < 0 || choice >= CHOICES || !value)
		return -1;
	free(chosen[choice]);
	chosen[choice] = strdup(value);
	return chosen[choice] ? 0 : -1;
}

struct spank_option options[] = {
	{"jobmeter-limit", "CREDITS", "jobmeter: stop this job, over all its tasks, at so many credits", 1, LIMIT, choose},
	{"jobmeter-kind", "KIND", "jobmeter: what the job is for: training, generation or python-session", 1, KIND, choose},
	{"jobmeter-name", "TEXT", "jobmeter: a name for people, instead of the job's", 1, NAME, choose},
	{"jobmeter-label", "KEY=VALUE", "jobmeter: a label", 1, LABEL, choose},
	{"jobmeter-notice", "SIGNAL@TIME", "jobmeter: send this signal once, when the credits would last so much longer, such as SIGTERM@30s", 1, NOTICE, choose},
	{"jobmeter-grace", "SECONDS", "jobmeter: how long what a task leaves behind may go on", 1, GRACE, choose},
	SPANK_OPTIONS_TABLE_END
};

/* The bytes of one word. */
static void add_bytes(struct words *words, const char *bytes, size_t length)
{
	if (length >= sizeof words->bytes - words->length) {
		words->is_too_long = 1;
		return;
	}
	memcpy(words->bytes + words->length, bytes, length);
	words->length += length;
	words->bytes[words->length++] = 0;
}

static void add(struct words *words, const char *text)
{
	add_bytes(words, text, strlen(text));
}

static void add_number(struct words *words, const char *name, uint32_t number)
{
	char text[64];

	snprintf(text, sizeof text, "--%s=%u", name, number);
	add(words, text);
}

static void add_text(struct words *words, const char *name, const char *value)
{
	char text[WORD_MAX_BYTES + 64];
	int length = snprintf(text, sizeof text, "%s=%s", name, value);

	if (length < 0 || (size_t)length >= sizeof text)
		words->is_too_long = 1;
	else
		add(words, text);
}

/* It is for people: what is too long of it is cut. */
static void add_command(struct words *words, int argc, char **argv)
{
	size_t room = COMMAND_MAX_BYTES;

	for (int i = 0; i < argc && room > 1; i++) {
		size_t length = strnlen(argv[i], room - 1);

		add_bytes(words, argv[i], length);
		room -= length + 1;
	}
}

static void add_choice(struct words *words, const char *name, const char *value)
{
	add(words, "--choose");
	add_text(words, name, value);
}

/* What a job chooses by its variables counts where it has chosen nothing by options. */
static void add_choices(spank_t spank, struct words *words)
{
	char value[WORD_MAX_BYTES];

	for (int choice = 0; choice < CHOICES; choice++) {
		if (chosen[choice]) {
			add_choice(words, choice_names[choice], strlen(chosen[choice]) < sizeof value ? chosen[choice] : "(too long)");
			continue;
		}
		spank_err_t got = spank_getenv(spank, choice_variables[choice], value, sizeof value);

		if (got == ESPANK_SUCCESS && *value)
			add_choice(words, choice_names[choice], value);
		else if (got == ESPANK_NOSPACE)
			/* Refused there: a limit that is not understood is not left out. */
			add_choice(words, choice_names[choice], "(too long)");
	}
}

/* A job of no array has its own id there, or none. */
int of_array(spank_t spank, uint32_t *array, uint32_t *element)
{
	return spank_get_item(spank, S_JOB_ARRAY_ID, array) == ESPANK_SUCCESS && *array != 0 && *array != NO_VAL &&
		spank_get_item(spank, S_JOB_ARRAY_TASK_ID, element) == ESPANK_SUCCESS && *element != NO_VAL;
}

/* In a step, all of that comes from variables that its user has set; of a batch script slurmctld says it. */
int of_true_array(spank_t spank, uint32_t job, uint32_t *array, uint32_t *element)
{
	/* All tasks of one slurmstepd are of one job, and slurmctld is asked once. */
	static int is_true = -1;
	uint32_t step;
	job_info_msg_t *found = NULL;

	if (!of_array(spank, array, element))
		return 0;
	if (is_true < 0 && spank_get_item(spank, S_JOB_STEPID, &step) == ESPANK_SUCCESS && step == SLURM_BATCH_SCRIPT)
		is_true = 1;
	if (is_true < 0) {
		is_true = 0;
		if (slurm_load_job(&found, job, SHOW_ALL) == SLURM_SUCCESS && found) {
			/* With the id of an array come all of its elements. */
			for (uint32_t i = 0; i < found->record_count; i++)
				if (found->job_array[i].job_id == job && found->job_array[i].array_job_id == *array &&
				    found->job_array[i].array_task_id == *element)
					is_true = 1;
			slurm_free_job_info_msg(found);
		}
	}
	return is_true;
}

/* Whether others may have a part of the job's devices. Its user can say so in his variables, and only then slurmctld is asked. */
static int shares_gpus(spank_t spank, uint32_t job)
{
	/* All tasks of one slurmstepd are of one job. */
	static int is_true = -1;
	char value[16];
	job_info_msg_t *found = NULL;

	if (is_true >= 0)
		return is_true;
	is_true = 0;
	if (spank_getenv(spank, "SLURM_SHARDS_ON_NODE", value, sizeof value) == ESPANK_ENV_NOEXIST &&
	    spank_getenv(spank, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", value, sizeof value) == ESPANK_ENV_NOEXIST)
		return 0;
	if (slurm_load_job(&found, job, SHOW_ALL) == SLURM_SUCCESS && found) {
		for (uint32_t i = 0; i < found->record_count; i++) {
			const char *given = found->job_array[i].tres_alloc_str;

			if (found->job_array[i].job_id == job && given && (strstr(given, "gres/shard") || strstr(given, "gres/mps")))
				is_true = 1;
		}
		slurm_free_job_info_msg(found);
	}
	return is_true;
}

/* What the meter is told: all of it comes from slurmstepd, but for what stands behind --choose and the command. */
int describe(spank_t spank, struct words *words, pid_t pid)
{
	uint32_t job, count, array = 0, element = 0;
	uid_t uid;
	char name[WORD_MAX_BYTES];
	char **argv = NULL;
	int argc = 0;

	if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS || spank_get_item(spank, S_JOB_UID, &uid) != ESPANK_SUCCESS ||
	    spank_get_item(spank, S_JOB_TOTAL_TASK_COUNT, &count) != ESPANK_SUCCESS)
		return -1;
	add_number(words, "pid", (uint32_t)pid);
	add_number(words, "uid", uid);
	add_number(words, "job", job);
	add_number(words, "tasks", count);
	if (of_true_array(spank, job, &array, &element)) {
		add_number(words, "array-job", array);
		add_number(words, "array-task", element);
	}
	if (shares_gpus(spank, job))
		add(words, "--shares-gpus");
	if (spank_getenv(spank, "SLURM_JOB_NAME", name, sizeof name) == ESPANK_SUCCESS && *name)
		add_text(words, "--job-name", name);
	add_choices(spank, words);
	add(words, "--");
	if (spank_get_item(spank, S_JOB_ARGV, &argc, &argv) == ESPANK_SUCCESS)
		add_command(words, argc, argv);
	if (argc < 1)
		add(words, "batch");
	return words->is_too_long ? -1 : 0;
}
