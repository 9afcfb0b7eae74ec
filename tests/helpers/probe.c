/* Writes into the file argv[1] what a program can see of how it was started, one `key=value` a line, value in hex. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;
static FILE *report;

static void say(const char *key, const char *value, size_t length)
{
    fprintf(report, "%s=", key);
    for (size_t i = 0; i < length; i++)
        fprintf(report, "%02x", (unsigned char)value[i]);
    fputc('\n', report);
}

static void text(const char *key, const char *value) { say(key, value, strlen(value)); }

static void number(const char *key, long value)
{
    char buffer[32];
    snprintf(buffer, sizeof buffer, "%ld", value);
    text(key, buffer);
}

int main(int argc, char **argv)
{
    struct stat found;
    char key[64], link[4096];
    int open_before[4096], count = 0;

    /* before the report is opened: it would take the lowest free descriptor */
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            open_before[count++] = fd;
    report = fopen(argv[1], "w");
    if (report == NULL)
        return 99;

    for (int i = 2; i < argc; i++)
        text("argument", argv[i]);
    for (char **entry = environ; *entry; entry++)
        text("variable", *entry);
    for (int i = 0; i < count; i++) {
        if (fstat(open_before[i], &found) < 0)
            continue;
        snprintf(key, sizeof key, "descriptor %d", open_before[i]);
        snprintf(link, sizeof link, "%lx:%lx %o", (long)found.st_dev, (long)found.st_ino,
                 fcntl(open_before[i], F_GETFL));
        text(key, link);
    }
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        struct rlimit limit;
        getrlimit(which, &limit);
        snprintf(key, sizeof key, "limit %d", which);
        snprintf(link, sizeof link, "%lx %lx", (long)limit.rlim_cur, (long)limit.rlim_max);
        text(key, link);
    }
    for (int signal_number = 1; signal_number <= 64; signal_number++) {
        struct sigaction action;
        sigset_t blocked;
        if (sigaction(signal_number, NULL, &action) < 0)
            continue;
        sigprocmask(SIG_BLOCK, NULL, &blocked);
        snprintf(key, sizeof key, "signal %d", signal_number);
        snprintf(link, sizeof link, "%s%s", action.sa_handler == SIG_IGN ? "ignored " : "",
                 sigismember(&blocked, signal_number) == 1 ? "blocked" : "");
        text(key, link);
    }
    mode_t mask = umask(0);
    umask(mask);
    number("umask", mask);
    number("uid", getuid()), number("euid", geteuid()), number("gid", getgid()), number("egid", getegid());
    gid_t groups[256];
    for (int i = 0, all = getgroups(256, groups); i < all; i++)
        number("group", groups[i]);
    number("process group", getpgrp()), number("session", getsid(0));
    for (int fd = 0; fd < 3; fd++)
        number("foreground group", tcgetpgrp(fd));
    number("nice", getpriority(PRIO_PROCESS, 0));
    number("scheduler", sched_getscheduler(0));
    number("personality", personality(0xffffffff));
    number("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    number("dumpable", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    number("timer slack", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    say("affinity", (char *)&cpus, sizeof cpus);
    const char *files[] = {"/proc/self/oom_score_adj", "/proc/self/cgroup", "/proc/self/coredump_filter",
                           "/proc/self/loginuid"};
    for (int i = 0; i < 4; i++) {
        int fd = open(files[i], O_RDONLY);
        ssize_t length = read(fd, link, sizeof link);
        say(files[i], link, length < 0 ? 0 : length);
        close(fd);
    }
    ssize_t length = readlink("/proc/self/cwd", link, sizeof link);
    say("directory", link, length < 0 ? 0 : length);
    return fclose(report) ? 98 : 7;
}
