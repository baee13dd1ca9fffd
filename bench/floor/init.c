/* The floor that `virtc run` is measured against: what a VM costs when nothing of virtc is in it.
 *
 *   floor ready                    loads the modules, says so on the serial line
 *   floor run TAG PROGRAM ARG...   then mounts share TAG with a tmpfs over it, runs PROGRAM in it
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void check(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "floor: %s: %m\n", what);
        exit(1); /* of init: the kernel panics, and the VM ends */
    }
}

/* All paths of the list up to the modules that are loaded on demand only. */
static void load_modules(void) {
    static char list[65536];
    int fd = open("/etc/virtc/modules.json", O_RDONLY);
    check(read(fd, list, sizeof list - 1), "modules.json");
    for (char *s = strtok(list, "\""); s && strcmp(s, "on_demand"); s = strtok(NULL, "\"")) {
        if (*s != '/')
            continue;
        int module = open(s, O_RDONLY | O_CLOEXEC);
        check(syscall(SYS_finit_module, module, "", 0), s);
        close(module);
    }
}

static void mount_at(const char *source, const char *at, const char *type, const char *options) {
    mkdir(at, 0755);
    check(mount(source, at, type, 0, options), at);
}

int main(int argc, char **argv) {
    mount_at("dev", "/dev", "devtmpfs", NULL);
    int serial = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
    for (int fd = 0; fd < 3; fd++)
        dup2(serial, fd);
    load_modules();
    if (argc > 3 && !strcmp(argv[1], "run")) {
        mount_at(argv[2], "/run/share", "virtiofs", NULL);
        mount_at("scratch", "/run/scratch", "tmpfs", NULL);
        mkdir("/run/scratch/upper", 0755);
        mkdir("/run/scratch/work", 0755);
        mount_at("overlay", "/run/root", "overlay",
                 "lowerdir=/run/share,upperdir=/run/scratch/upper,workdir=/run/scratch/work");
        if (fork() == 0) { /* the kernel would panic at the end of init itself */
            check(chroot("/run/root"), "chroot");
            check(chdir("/"), "chdir");
            execv(argv[3], argv + 3);
            check(-1, argv[3]);
        }
    } else {
        check(write(1, "ready\n", 6), "serial line");
    }
    for (;;)
        pause();
}
