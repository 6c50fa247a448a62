#include <unistd.h>
#include "ctestsupport.h"

#include <malloc.h>
#include <sys/fsuid.h>

size_t ctest_allocated_bytes(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

int ctest_fork_paused(void) {
    pid_t child = fork();
    if (child == 0) {
        for (;;) pause();
    }
    return child;
}

void ctest_use_file_rights(unsigned user, unsigned group) {
    setfsgid(group);
    setfsuid(user);
}
