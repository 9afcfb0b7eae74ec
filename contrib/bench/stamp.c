/* A job that says when it runs, and spends no time on anything else: `stamp LOG NAME MS`, `stamp LOG NAME FIFO`.

   It appends "NAME begin PID NANOSECONDS" to LOG at its start and "NAME end ..." right before its end, by
   CLOCK_MONOTONIC. In between it sleeps so many milliseconds, or until a byte comes through the FIFO, or nobody has it
   open for writing any more: so no job outlives the benchmark. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int stamp(int log, const char *name, const char *what) {
    struct timespec now;
    char line[256];
    clock_gettime(CLOCK_MONOTONIC, &now);
    int size = snprintf(line, sizeof line, "%s %s %d %lld\n", name, what, (int)getpid(),
                        now.tv_sec * 1000000000LL + now.tv_nsec);
    /* one write of O_APPEND: lines of jobs that run at once do not mix */
    return write(log, line, size) == size ? 0 : 1;
}

int main(int argc, char **argv) {
    int log = argc == 4 ? open(argv[1], O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (log < 0 || stamp(log, argv[2], "begin"))
        return 99;
    if (argv[3][0] == '/') {
        char byte;
        int fifo = open(argv[3], O_RDONLY | O_CLOEXEC);
        if (fifo < 0 || read(fifo, &byte, 1) < 0)
            return 99;
    } else {
        long ms = atol(argv[3]);
        struct timespec span = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&span, NULL);
    }
    return stamp(log, argv[2], "end") ? 99 : 0;
}
