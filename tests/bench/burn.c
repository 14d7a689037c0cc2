/* Burns CPU time on as many threads as it is told, for ever or for so many seconds of wall time. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static void *burn(void *none) {
    (void)none;
    for (volatile unsigned long i = 0;; i++) {
    }
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (argc > 2) {
        alarm((unsigned)atoi(argv[2]));
    }
    for (int i = 1; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, burn, NULL);
    }
    burn(NULL);
    return 0;
}
