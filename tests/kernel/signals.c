// A command that says which signals reach it, by numbers: the C library lets nobody name 32 and 33.
//   count        blocks all and prints each, until 64 comes
//   die N        ends of signal N
//   inherited    prints the signals that it found blocked and ignored
//   with BLOCKED IGNORED COMMAND...   becomes COMMAND, with exactly these sets (in hexadecimal)
//   terminal COMMAND...               COMMAND leads a session on a terminal of its own. Says its number, and takes from its standard input
//                                     what is typed: but W changes the size of the window, and X takes the terminal away
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct info { int number, error, code, padding, pid, uid; uint64_t value; uint64_t rest[12]; };

static uint64_t mask(int how, uint64_t set) {
    uint64_t before = 0;
    syscall(SYS_rt_sigprocmask, how, &set, &before, 8);
    return before;
}

static int count(void) {
    mask(SIG_SETMASK, UINT64_MAX);
    puts("ready");
    fflush(stdout);
    for (;;) {
        uint64_t all = UINT64_MAX;
        struct info info;
        int number = syscall(SYS_rt_sigtimedwait, &all, &info, NULL, 8);
        if (number == 64) return 0;
        if (number <= 0) continue;
        if (info.code == SI_QUEUE) printf("%d=%d\n", number, (int)info.value);
        else printf("%d\n", number);
        fflush(stdout);
    }
}

static int die(int number) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    uint64_t action[4] = {0, 0, 0, 0};
    syscall(SYS_rt_sigaction, number, action, NULL, 8);
    mask(SIG_SETMASK, 0);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
    return 0;
}

static int inherited(void) {
    uint64_t ignored = 0;
    for (int number = 1; number <= 64; number++) {
        uint64_t action[4] = {0, 0, 0, 0};
        if (syscall(SYS_rt_sigaction, number, NULL, action, 8) == 0 && action[0] == (uintptr_t)SIG_IGN)
            ignored |= 1UL << (number - 1);
    }
    printf("blocked %016lx ignored %016lx\n", (unsigned long)mask(SIG_BLOCK, 0), (unsigned long)ignored);
    return 0;
}

static int with(char **words) {
    uint64_t blocked = strtoull(words[0], NULL, 16), ignored = strtoull(words[1], NULL, 16);
    for (int number = 1; number <= 64; number++) {
        uint64_t action[4] = {ignored >> (number - 1) & 1 ? (uintptr_t)SIG_IGN : (uintptr_t)SIG_DFL, 0, 0, 0};
        syscall(SYS_rt_sigaction, number, action, NULL, 8);
    }
    mask(SIG_SETMASK, blocked);
    execv(words[2], words + 2);
    return 65;
}

static int terminal(char **words) {
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) || unlockpt(master)) return 66;
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    int said[2];
    if (pipe2(said, O_CLOEXEC)) return 66;
    pid_t leader = fork();
    if (leader == 0) {
        char byte;
        if (read(said[0], &byte, 1) != 1) _exit(69);
        setsid();
        if (ioctl(slave, TIOCSCTTY, 0)) _exit(67);
        dup2(slave, 0);
        execv(words[0], words);
        _exit(65);
    }
    close(slave);
    printf("%d\n", leader);
    fflush(stdout);
    close(1);
    char key = 0;
    if (write(said[1], &key, 1) != 1) return 69;
    while (read(0, &key, 1) == 1) {
        struct winsize size = {40, 100, 0, 0};
        if (key == 'X') close(master);
        else if (key == 'W') ioctl(master, TIOCSWINSZ, &size);
        else if (write(master, &key, 1) != 1) return 68;
    }
    int status;
    waitpid(leader, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int count_of, char **words) {
    if (count_of == 2 && !strcmp(words[1], "count")) return count();
    if (count_of == 3 && !strcmp(words[1], "die")) return die(atoi(words[2]));
    if (count_of == 2 && !strcmp(words[1], "inherited")) return inherited();
    if (count_of > 4 && !strcmp(words[1], "with")) return with(words + 2);
    if (count_of > 2 && !strcmp(words[1], "terminal")) return terminal(words + 2);
    return 64;
}
