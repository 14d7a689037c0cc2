/* A SPANK plugin: every task that Slurm starts (batch scripts, steps of srun, those within salloc) is metered, whatever its user wrote,
 * by a meter that is not the user's: it has another user and none of Slurm's groups. It has to be built for each version of Slurm
 * (Debian: libslurm-dev):
 *
 *     gcc -shared -fPIC -O2 -o /usr/libexec/jobmeter/jobmeter_spank.so jobmeter_spank.c description.c
 *
 * plugstack.conf, on the nodes and where jobs are submitted: `required /usr/libexec/jobmeter/jobmeter_spank.so`, with `comment=FILE` behind it
 * where `write-comment` is to run at the end of each step. README.md says what else a node needs.
 *
 * What this does not do is in jobmeter itself: `jobmeter slurm task` (root, then the meter's user) and `jobmeter slurm front` (the job's).
 * No callback fails: a failing task_post_fork would drain the node. What cannot be metered is refused in the task.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <slurm/slurm.h>

#include "description.h"

#define JOBMETER "/usr/bin/jobmeter"
/* The same program, which the job's user can execute and not read (mode 0711), so that he cannot trace it (ptrace(2)). */
#define FRONT "/usr/libexec/jobmeter/slurm-front"
/* The command's exit status where nothing let it go on; the front's is the task's. */
#define NOT_STARTED 125
/* How long the end of a task waits for its last reading. The meter gives a ledger 5 s, and leaves the rest to its spool. */
#define LAST_READING_WAIT_MAX_MS 30000
/* How long the end of a step waits for what the job cost to be written down. */
#define COMMENT_WAIT_MAX_MS 10000
/* What opens a command's gate names some variables. */
#define VARIABLES_MAX_BYTES 16384
/* What a child says first. */
#define WORD_MAX_BYTES 4096
#define RANK_MAX_BYTES 16

/* Of all that is started here: nothing of a job's own. */
static char *const environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL};

SPANK_PLUGIN(jobmeter, 1)

/* One task of this node. */
struct task {
	/* The meter's end, and that of front and command. */
	int meter, front;
	/* Ends with the meter. */
	int alive;
};

static struct task *tasks;
static uint32_t task_count;
static struct rlimit processes;

int slurm_spank_init(spank_t spank, int argc, char **argv)
{
	(void)argc, (void)argv;
	for (struct spank_option *option = options; option->name; option++)
		if (spank_option_register(spank, option) != ESPANK_SUCCESS)
			slurm_error("jobmeter: the option --%s cannot be registered", option->name);
	return 0;
}

static struct task *task_of(spank_t spank)
{
	uint32_t id = 0;

	return spank_get_item(spank, S_TASK_ID, &id) == ESPANK_SUCCESS && id < task_count ? &tasks[id] : NULL;
}

static void close_it(int *file)
{
	if (*file >= 0)
		close(*file);
	*file = -1;
}

/* Signals and limits as a program expects them that slurmstepd starts. */
static void become_plain(void)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};
	sigset_t none;

	sigemptyset(&none);
	for (int number = 1; number < NSIG; number++)
		sigaction(number, &plain, NULL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (processes.rlim_max != 0)
		setrlimit(RLIMIT_NPROC, &processes);
}

/* In a child of slurmstepd, which has other threads: nothing here allocates. Its own child is nobody's, in a session of its own:
 * slurmstepd's children end with their step. */
static void become_meter(char *const *words, int channel, int alive)
{
	int nothing;

	setsid();
	if (fork() != 0)
		_exit(0);
	become_plain();
	nothing = open("/dev/null", O_RDWR);
	/* Above those that are given, so that none is overwritten before it is read. */
	channel = fcntl(channel, F_DUPFD, 16);
	alive = fcntl(alive, F_DUPFD, 16);
	if (nothing < 0 || channel < 0 || alive < 0 || chdir("/") != 0)
		_exit(NOT_STARTED);
	for (int file = 0; file < 3; file++)
		if (dup2(nothing, file) < 0)
			_exit(NOT_STARTED);
	if (dup2(channel, 3) < 0 || dup2(alive, 4) < 0)
		_exit(NOT_STARTED);
	if (close_range(5, ~0U, 0) != 0)
		for (int file = 5; file < 65536; file++)
			close(file);
	execve(JOBMETER, words, environment);
	_exit(NOT_STARTED);
}

/* One for a task that is still to come: it makes ready while slurmstepd does, and is told of the task when that has been forked. */
static void start_meter(struct task *task)
{
	char *const words[] = {"jobmeter", "slurm", "task", "--channel=3", NULL};
	int alive[2];
	pid_t child;

	if (pipe2(alive, O_CLOEXEC) != 0)
		return;
	child = fork();
	if (child == 0)
		become_meter(words, task->meter, alive[1]);
	close(alive[1]);
	if (child < 0) {
		close(alive[0]);
		return;
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	task->alive = alive[0];
	close_it(&task->meter);
}

/* Before slurmstepd forks its tasks: each inherits its socket. */
int slurm_spank_init_post_opt(spank_t spank, int argc, char **argv)
{
	uint32_t count = 0, step = 0;
	int yes = 1;

	(void)argc, (void)argv;
	/* What stands for a whole job on a node has no task. */
	if (spank_remote(spank) != 1 || spank_get_item(spank, S_JOB_LOCAL_TASK_COUNT, &count) != ESPANK_SUCCESS ||
	    (spank_get_item(spank, S_JOB_STEPID, &step) == ESPANK_SUCCESS && step == SLURM_EXTERN_CONT))
		return 0;
	tasks = calloc(count, sizeof *tasks);
	for (uint32_t i = 0; tasks && i < count; i++) {
		int pair[2];

		tasks[i] = (struct task){-1, -1, -1};
		task_count = i + 1;
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
			continue;
		setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes);
		tasks[i].meter = pair[0];
		tasks[i].front = pair[1];
		start_meter(&tasks[i]);
	}
	return 0;
}

/* `epilogs=run` behind the plugin's path, for a site that has a TaskEpilog of its own: it runs as the user, too. */
static int may_run_epilogs(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (!strcmp(argv[i], "epilogs=run"))
			return 1;
	return 0;
}

/* As root in slurmstepd, once the task is in Slurm's groups and before it goes on. Where this comes to nothing, the task finds nobody at
 * its socket, and refuses to run. */
int slurm_spank_task_post_fork(spank_t spank, int argc, char **argv)
{
	struct task *task = task_of(spank);
	struct words *words = calloc(1, sizeof *words);
	pid_t pid;

	if (processes.rlim_max == 0)
		getrlimit(RLIMIT_NPROC, &processes);
	if (!task || !words || task->alive < 0 || spank_get_item(spank, S_TASK_PID, &pid) != ESPANK_SUCCESS ||
	    describe(spank, words, pid) != 0 ||
	    send(task->front, words->bytes, words->length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)words->length) {
		slurm_error("jobmeter: a task has no meter, and is refused");
		if (task)
			/* For this end and for the task's. */
			shutdown(task->front, SHUT_RDWR);
	}
	/* slurmstepd itself runs what `srun --task-epilog` names, as the user and after the task, where nothing meters it. All tasks have been
	 * forked by now. A process that has become a user who may have none cannot execute anything (execve(2), EAGAIN). */
	if (!may_run_epilogs(argc, argv)) {
		struct rlimit none = {.rlim_cur = 0, .rlim_max = processes.rlim_max};

		if (setrlimit(RLIMIT_NPROC, &none) != 0)
			slurm_error("jobmeter: task epilogs are not kept from running: %m");
	}
	if (task)
		close_it(&task->front);
	free(words);
	return 0;
}

/* By which Slurm says the devices of a task. Where it gives some, what the job's user has set there is overwritten; but a batch script has
 * no SLURM_STEP_GPUS of Slurm's. Those of other makers may add devices, and take none away. */
static const char *const gpu_variables[] = {"SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"};

/* Adds NAME=VALUE, with its NUL byte, for each of them that is set. */
static size_t add_gpu_variables(spank_t spank, char *bytes, size_t size)
{
	size_t length = 0;
	char value[1024];
	uint32_t step = SLURM_BATCH_SCRIPT;

	spank_get_item(spank, S_JOB_STEPID, &step);
	for (size_t i = step == SLURM_BATCH_SCRIPT; i < sizeof gpu_variables / sizeof *gpu_variables; i++) {
		if (spank_getenv(spank, gpu_variables[i], value, sizeof value) != ESPANK_SUCCESS)
			continue;
		int added = snprintf(bytes + length, size - length, "%s=%s", gpu_variables[i], value);

		if (added < 0 || (size_t)added >= size - length)
			break;
		length += (size_t)added + 1;
	}
	return length;
}

/* The child says who it is and which task, hands over its gate, and waits there for its variables. */
static void wait_at_gate(spank_t spank, int channel)
{
	char word[WORD_MAX_BYTES] = "c", bytes[VARIABLES_MAX_BYTES], control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec vector = {word, sizeof word};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int gate[2];
	ssize_t length;

	/* S_TASK_GLOBAL_ID counts within one component of a heterogeneous job. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, gate) != 0 ||
	    spank_getenv(spank, "SLURM_PROCID", word + 1, RANK_MAX_BYTES) != ESPANK_SUCCESS)
		_exit(NOT_STARTED);
	vector.iov_len = strlen(word) + 1;
	vector.iov_len += add_gpu_variables(spank, word + vector.iov_len, sizeof word - vector.iov_len);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &gate[1], sizeof(int));
	if (sendmsg(channel, &message, MSG_NOSIGNAL) < 0)
		_exit(NOT_STARTED);
	close(channel);
	close(gate[1]);
	do
		length = recv(gate[0], bytes, sizeof bytes - 1, 0);
	while (length < 0 && errno == EINTR);
	if (length <= 0)
		_exit(NOT_STARTED);
	bytes[length] = 0;
	for (char *pair = bytes; pair < bytes + length; pair += strlen(pair) + 1) {
		char *value = strchr(pair, '=');

		if (!value)
			_exit(NOT_STARTED);
		*value = 0;
		if (spank_setenv(spank, pair, value + 1, 1) != ESPANK_SUCCESS)
			_exit(NOT_STARTED);
		pair = value + 1;
	}
	close(gate[0]);
}

/* As the user, in the task, before its exec: it stays where Slurm knows it, as the front, and a child of it becomes the command. */
int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
	struct task *task = task_of(spank);
	char channel[32], command[32];
	char *words[] = {"jobmeter", "slurm", "front", channel, command, NULL};
	uint32_t array = 0, element = 0;
	pid_t child;

	(void)argc, (void)argv;
	for (uint32_t i = 0; i < task_count; i++) {
		close_it(&tasks[i].meter);
		if (&tasks[i] != task)
			close_it(&tasks[i].front);
	}
	if (!task || task->front < 0 || (child = fork()) < 0) {
		dprintf(2, "jobmeter: error: this task has no meter\n");
		_exit(NOT_STARTED);
	}
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* A job that was submitted from inside an array inherits the variables of that array. */
		if (!of_array(spank, &array, &element))
			spank_unsetenv(spank, "SLURM_ARRAY_JOB_ID");
		wait_at_gate(spank, task->front);
		return 0;
	}
	fcntl(task->front, F_SETFD, 0);
	snprintf(channel, sizeof channel, "--channel=%d", task->front);
	snprintf(command, sizeof command, "--command=%d", (int)child);
	execve(FRONT, words, environment);
	dprintf(2, "jobmeter: error: %s: %s\n", FRONT, strerror(errno));
	_exit(NOT_STARTED);
}

static int64_t now_ms(void)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As root, when Slurm has waited for the task: its groups go with its meter. */
int slurm_spank_task_exit(spank_t spank, int argc, char **argv)
{
	struct task *task = task_of(spank);
	int64_t until_ms = now_ms() + LAST_READING_WAIT_MAX_MS, left_ms;

	(void)argc, (void)argv;
	if (!task || task->alive < 0)
		return 0;
	while ((left_ms = until_ms - now_ms()) > 0) {
		struct pollfd ends = {.fd = task->alive, .events = POLLIN};
		int found = poll(&ends, 1, (int)left_ms);

		if (found > 0 || (found < 0 && errno != EINTR))
			break;
	}
	if (left_ms <= 0)
		slurm_error("jobmeter: the last reading of a task takes long; it goes on by itself");
	close_it(&task->alive);
	return 0;
}

/* Waits, and ends what does not end by itself. */
static void await_child(pid_t child, int wait_max_ms)
{
	int64_t until_ms = now_ms() + wait_max_ms;
	struct timespec look = {.tv_nsec = 5000000};
	pid_t ended;

	while ((ended = waitpid(child, NULL, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
		if (now_ms() >= until_ms) {
			slurm_error("jobmeter: what a job cost is not written down in time");
			kill(child, SIGKILL);
			until_ms += wait_max_ms;
		}
		nanosleep(&look, NULL);
	}
}

/* As root in slurmstepd, when all tasks of a step have ended here and Slurm does not know it yet. */
int slurm_spank_exit(spank_t spank, int argc, char **argv)
{
	uint32_t job, node, array = 0, element = 0;
	char job_text[32], ledger_text[32];
	pid_t child;

	for (int i = 0; i < argc; i++) {
		char *script = strncmp(argv[i], "comment=", 8) ? NULL : argv[i] + 8;
		char *words[] = {script, job_text, ledger_text, NULL};

		if (!script || !task_count || spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
		    spank_get_item(spank, S_JOB_NODEID, &node) != ESPANK_SUCCESS || node != 0)
			continue;
		snprintf(job_text, sizeof job_text, "%u", job);
		/* The elements of an array are tasks of one job there. */
		snprintf(ledger_text, sizeof ledger_text, "%u", of_true_array(spank, job, &array, &element) ? array : job);
		if ((child = fork()) == 0) {
			become_plain();
			execve(script, words, environment);
			_exit(NOT_STARTED);
		}
		if (child > 0)
			await_child(child, COMMENT_WAIT_MAX_MS);
	}
	return 0;
}
