/* The floor that `virtc run` is measured against: what a VM costs when nothing of virtc is in it.
 *
 *   floor ready                          loads the modules of the start, says so on the serial line
 *   floor run TAG DIR PROGRAM ARG...     loads all, mounts DIR of share TAG with the scratch disk
 *                                        over it, and runs PROGRAM in that root
 *   floor net TAG DIR PROGRAM ARG...     the same with the driver of network devices
 *   floor clone BRIDGE TAG DIR PROGRAM ARG...
 *                                        in a template: loads all, mounts the scratch disk, says so on
 *                                        the second serial line, and reads a line there. A clone has its
 *                                        other devices behind BRIDGE then, and runs PROGRAM as above
 *   floor stream PORT BYTES              sends BYTES to the host's vsock port; in a second
 *                                        connection reads to the end, then answers with a byte
 */
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static void check(long result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "floor: %s: %m\n", what);
        tcdrain(2);
        exit(1); /* of init: the kernel panics, and the VM ends */
    }
}

/* The modules of one section of the initrd's list, which is {"section":["/path",...],...}. */
static void load_modules(const char *wanted) {
    static char list[65536];
    const char *section = "";
    int fd = open("/etc/virtc/modules.json", O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, list, sizeof list - 1);
    check(size, "modules.json");
    close(fd);
    list[size] = 0;
    for (char *s = strtok(list, "\""); s; s = strtok(NULL, "\"")) {
        if (*s >= 'a' && *s <= 'z')
            section = s;
        if (*s != '/' || strcmp(section, wanted))
            continue;
        int module = open(s, O_RDONLY | O_CLOEXEC);
        check(syscall(SYS_finit_module, module, "", 0), s);
        close(module);
    }
}

static void mount_at(const char *source, const char *at, const char *type, unsigned long flags,
                     const char *options) {
    mkdir(at, 0755);
    check(mount(source, at, type, flags, options), at);
}

static void load_rest(void) {
    while (wait(NULL) > 0) /* for what is loaded beside the boot */
        ;
    load_modules("background");
}

static void write_to(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd, path);
    check(write(fd, text, strlen(text)), path);
    close(fd);
}

/* Waits in a template, and has the devices of a clone found. */
static void wait_for_devices(const char *bridge) {
    char pattern[128];
    struct termios raw;
    glob_t bus;
    char byte;
    int port = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
    check(tcgetattr(port, &raw), "ttyS1");
    cfmakeraw(&raw);
    check(tcsetattr(port, TCSANOW, &raw), "ttyS1");
    mount_at("sys", "/sys", "sysfs", 0, NULL);
    /* The devices are looked for below. ACPI's interpretation of the event that tells of them would
     * take longer. The kernel knows the word with its end of line only. */
    write_to("/sys/firmware/acpi/interrupts/gpe01", "disable\n");
    check(write(port, "T", 1), "ttyS1");
    check(read(port, &byte, 1) - 1, "ttyS1");
    snprintf(pattern, sizeof pattern, "/sys/bus/pci/devices/0000:00:%s/pci_bus/*/rescan", bridge);
    check(-glob(pattern, 0, NULL, &bus), pattern);
    write_to(bus.gl_pathv[0], "1");
}

static void mount_scratch(void) {
    mount_at("/dev/vda", "/run/scratch", "ext4", MS_NODEV | MS_NOATIME, NULL);
}

static void run(char **argv) {
    char options[512];
    mount_at(argv[0], "/run/share", "virtiofs", MS_NODEV, NULL);
    mkdir("/run/scratch/upper", 0755);
    mkdir("/run/scratch/work", 0755);
    snprintf(options, sizeof options,
             "lowerdir=/run/share/%s,upperdir=/run/scratch/upper,workdir=/run/scratch/work", argv[1]);
    mount_at("overlay", "/run/root", "overlay", 0, options);
    if (fork() == 0) { /* the kernel would panic at the end of init itself */
        check(chroot("/run/root"), "chroot");
        check(chdir("/"), "chdir");
        execv(argv[2], argv + 2);
        check(-1, argv[2]);
    }
}

static int dial(const char *port) {
    struct sockaddr_vm host = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = atoi(port)};
    int s = socket(AF_VSOCK, SOCK_STREAM, 0);
    check(connect(s, (struct sockaddr *)&host, sizeof host), "connect");
    return s;
}

static void stream(const char *port, long bytes) {
    static char buffer[65536];
    int s = dial(port);
    while (bytes > 0) {
        ssize_t n = write(s, buffer, bytes < (long)sizeof buffer ? bytes : (long)sizeof buffer);
        check(n, "send");
        bytes -= n;
    }
    close(s);
    s = dial(port);
    for (ssize_t n = 1; n > 0;)
        check(n = read(s, buffer, sizeof buffer), "receive");
    check(write(s, "\n", 1), "answer");
}

int main(int argc, char **argv) {
    mount_at("dev", "/dev", "devtmpfs", 0, NULL);
    int serial = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
    for (int fd = 0; fd < 3; fd++)
        dup2(serial, fd);
    if (fork() == 0) {
        load_modules("beside");
        _exit(0);
    }
    load_modules("boot");
    if (argc > 4 && !strcmp(argv[1], "net"))
        load_modules("virtio_net");
    if (argc > 4 && (!strcmp(argv[1], "run") || !strcmp(argv[1], "net"))) {
        load_rest();
        mount_scratch();
        run(argv + 2);
    } else if (argc > 5 && !strcmp(argv[1], "clone")) {
        load_rest();
        mount_scratch();
        wait_for_devices(argv[2]);
        run(argv + 3);
    } else if (argc > 3 && !strcmp(argv[1], "stream")) {
        stream(argv[2], atol(argv[3]));
    } else {
        check(write(1, "ready\n", 6), "serial line");
    }
    for (;;)
        pause();
}
