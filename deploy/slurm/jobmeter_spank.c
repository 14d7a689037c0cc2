/* A SPANK plugin: every task that Slurm starts (batch scripts, steps of srun, those within salloc) runs under jobmeter, whatever the user
 * wrote. SPANK is the one place of Slurm that sees all of them: a job-submit plugin sees batch scripts alone, prologs can only
 * set variables. It has to be built again for each version of Slurm (Debian: libslurm-dev):
 *
 *     gcc -shared -fPIC -O2 -o /usr/libexec/jobmeter/jobmeter_spank.so jobmeter_spank.c
 *
 * On each node: that, `slurm-task` beside it, jobmeter in /usr/bin, `ledger` in /etc/jobmeter/config.toml, and for each user a key for
 * their own account alone, which they may read: `jobmeter --user ann key create ann --only-user --to /etc/jobmeter/keys/ann`.
 * slurm.conf names `prolog` and `epilog`; plugstack.conf has `required /usr/libexec/jobmeter/jobmeter_spank.so`.
 *
 * It does not see `srun --multi-prog`, the shell of salloc on a login node, nor ssh to a node. A job that says `jobmeter run` itself
 * finds no key for it, and fails. jobmeter has the job's user: who sets out to cheat can (see the table in the README).
 */
#include <limits.h>
#include <mntent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <slurm/spank.h>

#define LAUNCHER "/usr/libexec/jobmeter/slurm-task"

SPANK_PLUGIN(jobmeter, 1)

/* The directory of the cgroup v2 that this process is in. */
static int own_group(char *group, size_t size)
{
	char line[PATH_MAX];
	int found = 0;
	struct mntent *mount;
	FILE *mounts = setmntent("/proc/self/mounts", "r"), *groups = fopen("/proc/self/cgroup", "r");

	while (mounts && (mount = getmntent(mounts)) && strcmp(mount->mnt_type, "cgroup2"))
		;
	while (mounts && mount && groups && !found && fgets(line, sizeof line, groups)) {
		line[strcspn(line, "\n")] = 0;
		found = !strncmp(line, "0::", 3) && snprintf(group, size, "%s%s", mount->mnt_dir, line + 3) < (int)size;
	}
	if (mounts)
		endmntent(mounts);
	if (groups)
		fclose(groups);
	return found;
}

static int group_of_task(spank_t spank, char *group, size_t size, pid_t pid)
{
	uint32_t job, step;
	char above[PATH_MAX];

	return spank_get_item(spank, S_JOB_ID, &job) == ESPANK_SUCCESS && spank_get_item(spank, S_JOB_STEPID, &step) == ESPANK_SUCCESS
		&& own_group(above, sizeof above)
		/* Slurm's own v2 groups stay as they are: it signals what is in them, not what is below. There a task is alone in its
		 * group, which jobmeter meters as "enclosing". */
		&& !strstr(above, "/slurmstepd.scope")
		&& snprintf(group, size, "%s/jobmeter-slurm-%u.%u.%d", above, job, step, (int)pid) < (int)size;
}

/* As root, in the task: gives it a group that jobmeter may divide, without which an ordinary user's job is metered by samples of /proc,
 * sees to its own children only, and cannot be frozen. Where that fails, it is metered so, which the receipt says. */
int slurm_spank_task_init_privileged(spank_t spank, int argc, char **argv)
{
	static const char *const handed_over[] = {"", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"};
	char group[PATH_MAX], path[PATH_MAX + 32];
	uid_t uid;
	FILE *procs;

	if (spank_get_item(spank, S_JOB_UID, &uid) != ESPANK_SUCCESS || !group_of_task(spank, group, sizeof group, getpid()) ||
	    mkdir(group, 0755) != 0)
		return 0;
	for (size_t i = 0; i < sizeof handed_over / sizeof *handed_over; i++) {
		snprintf(path, sizeof path, "%s%s", group, handed_over[i]);
		if (chown(path, uid, -1) != 0)
			return 0;
	}
	snprintf(path, sizeof path, "%s/cgroup.procs", group);
	procs = fopen(path, "w");
	if (procs) {
		fputs("0", procs);
		fclose(procs);
	}
	return 0;
}

/* As the user, before the task's own prologs and exec: puts the launcher in the command's place. What fails here fails
 * the task, so that nothing runs unmetered. */
int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
	uint32_t array = 0;
	int count;
	char **words;

	if (spank_get_item(spank, S_JOB_ARGV, &count, &words) != ESPANK_SUCCESS || count < 1) {
		slurm_error("jobmeter: the command of this task is not known");
		return -1;
	}
	/* A job that was submitted from inside an array inherits the variables of that array. */
	if (spank_get_item(spank, S_JOB_ARRAY_ID, &array) != ESPANK_SUCCESS || array == 0)
		spank_unsetenv(spank, "SLURM_ARRAY_JOB_ID");
	if (spank_setenv(spank, "JOBMETER_COMMAND", words[0], 1) != ESPANK_SUCCESS)
		return -1;
	words[0] = strdup(LAUNCHER);
	return words[0] ? 0 : -1;
}

/* As root, when the task has ended: jobmeter has removed what it made below. */
int slurm_spank_task_exit(spank_t spank, int argc, char **argv)
{
	char group[PATH_MAX];
	pid_t pid;

	if (spank_get_item(spank, S_TASK_PID, &pid) == ESPANK_SUCCESS && group_of_task(spank, group, sizeof group, pid))
		rmdir(group);
	return 0;
}
