/* The least that can be done: `floor NAME N COMMAND...` runs COMMAND between sem_wait and sem_post of a named semaphore.

   No order, no time limit, nobody to ask who holds it, and a unit that is lost if this process is killed. */

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv) {
    pid_t pid;
    int status = 0;
    sem_t *slots = argc > 3 ? sem_open(argv[1], O_CREAT, 0600, (unsigned)atoi(argv[2])) : SEM_FAILED;
    if (slots == SEM_FAILED)
        return 99;
    while (sem_wait(slots))
        if (errno != EINTR)
            return 99;
    int failed = posix_spawnp(&pid, argv[3], NULL, NULL, argv + 3, environ);
    if (!failed)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    sem_post(slots);
    return failed ? 127 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
