// A job of known burn. `burner MODE AMOUNT [PROGRAM]`, where AMOUNT is ms of CPU time.
//
// With TRUTH in its environment it first moves itself into the group whose cgroup.procs that names, and writes to the file
// BEFORE how many µs it had burned until then; with BECOME it then becomes that user.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long burned_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void burn_until(long us) {
    volatile unsigned long sum = 0;
    while (burned_us() < us)
        for (int i = 0; i < 10000; i++) sum += i;
}

static int put(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    return file < 0 || write(file, text, strlen(text)) < 0 || close(file);
}

static int enter(void) {
    const char *truth = getenv("TRUTH"), *before = getenv("BEFORE"), *user = getenv("BECOME");
    char text[32];
    if (truth) {
        snprintf(text, sizeof text, "%ld", burned_us());
        if (put(before, text) || put(truth, "0")) return 1;
    }
    unsetenv("TRUTH");
    if (user) {
        int uid = atoi(user);
        if (setresgid(uid, uid, uid) || setresuid(uid, uid, uid)) return 1;
    }
    return 0;
}

static long worker_us;

static void *work(void *unused) {
    burn_until(worker_us);
    exit(0);
}

// One after the other, each of 5 ms; whoever ignores SIGCHLD learns of their end all the same.
static void children(long us, int generations) {
    for (long done = 0; done < us; done += 5000) {
        pid_t child = fork();
        if (child == 0) {
            if (generations > 1 && (setsid(), fork() != 0)) _exit(0);
            burn_until(5000);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
}

// Many that end at any moment, each with memory to give back.
static void storm(long count) {
    for (int chain = 0; chain < 4; chain++)
        if (fork() == 0) {
            for (long i = 0; i < count; i++) {
                pid_t child = fork();
                if (child == 0) {
                    size_t bytes = 16 << 20;
                    memset(mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, bytes);
                    _exit(0);
                }
                waitpid(child, NULL, 0);
            }
            _exit(0);
        }
    while (wait(NULL) > 0) {}
}

int main(int count, char **arguments) {
    if (count < 3 || enter()) return 2;
    const char *mode = arguments[1];
    long us = atol(arguments[2]) * 1000;
    pthread_t thread;
    if (!strcmp(mode, "plain")) burn_until(us);
    if (!strcmp(mode, "children")) children(us, 1);
    if (!strcmp(mode, "daemons")) children(us, 2);
    if (!strcmp(mode, "ignored")) { signal(SIGCHLD, SIG_IGN); children(us, 1); }
    if (!strcmp(mode, "storm")) storm(us / 1000);
    if (!strcmp(mode, "thread")) {
        worker_us = us;
        pthread_create(&thread, NULL, work, NULL);
        pthread_exit(NULL);
    }
    // In a child, so that the clock that the command was given at its start does not see it.
    if (!strcmp(mode, "exec")) {
        pid_t child = fork();
        if (child == 0) { execl(arguments[3], arguments[3], "plain", arguments[2], NULL); _exit(127); }
        waitpid(child, NULL, 0);
    }
    // As a set-uid program: what the file gives it, it gives back; or it keeps that for good.
    if (!strcmp(mode, "becomes-root") && setresuid(0, 0, 0)) return 3;
    if (!strcmp(mode, "becomes-root")) { puts("root"); fflush(stdout); burn_until(us); }
    return 0;
}
