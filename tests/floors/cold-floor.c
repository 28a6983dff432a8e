/*
 * The cold floor: the same confinement steps sublet's nursery and init perform (shim/src/plan.rs), in plain C with
 * nothing around them, from just before the mkdir of the worker's cgroup until the program inside has said "ready".
 * What sublet takes above this is its own doing; what this takes is the kernel's.
 *
 *     gcc -O2 -static -o cold-floor cold-floor.c && gcc -O2 -static -o ready ready.c
 *     ./cold-floor [-n SAMPLES] [-w WARMUP] [-g GAP_MS] [-c CGROUP_V2_DIR] [-s] [-t] PROGRAM
 *
 *   -n  samples counted (200)
 *   -w  samples run first and thrown away (10)
 *   -g  pause between samples in milliseconds (0). The kernel takes network namespaces down in the background; with
 *       no pause that work shares the machine with the next sample, as it does under a stream of first calls.
 *   -c  directory in a cgroup v2 tree, made (one level) when missing and then removed again; every worker is born in
 *       a leaf below it. Without -c no cgroup is made.
 *   -s  also print the median time of each step
 *   -t  lay the same 250 rules out as a binary search instead of the chain seccompiler writes. The kernel runs a new
 *       filter once for every system call number there is, to know which ones it always allows; for a chain that is
 *       most of what installing it costs. Printed as "cold-floor-tree".
 *
 * Processes, as in sublet:
 *
 *     this program ---clone3---> init (pid 1 of the sandbox) ---fork, exec---> PROGRAM (static; says ready on fd 3)
 *
 * Prints one line of JSON: {"name":"cold-floor","unit":"ns","samples":[...],"teardown":[...]}. `teardown` is kill,
 * reap and rmdir. A step that fails ends the run with the step's name: a floor that skips one would be a lie. The
 * first sandbox is checked from outside (filter, capabilities, namespaces, cgroup, mounts) for the same reason.
 *
 * Needs root, x86_64, Linux 5.14.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef __x86_64__
#error "the rule list below is x86_64's"
#endif
/* Newer than the headers of Debian 12. */
#ifndef SYS_uretprobe
#define SYS_uretprobe 335
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_map_shadow_stack
#define SYS_map_shadow_stack 453
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum {
	SAMPLES_MAX = 100000,
	/* Host ids of init and function, the first slot of sublet's default range; inside they are 0 and 1000. */
	HOST_ID_INIT = 0x70000000,
	HOST_ID_FUNCTION = 0x70000001,
	INSIDE_ID_FUNCTION = 1000,
	FD_CHANNEL = 3,
	FD_PROGRAM = 4,
	READY_TIMEOUT_MS = 5000,
	/* No number in `allowed` is above it. */
	NUMBER_MAX = 511,
};

/* The 239 names of sublet's first allow-list, and 11 of Docker's to make it 250. */
static const int allowed[] = {
	SYS_accept, SYS_accept4, SYS_access, SYS_alarm, SYS_arch_prctl, SYS_bind, SYS_brk, SYS_capget, SYS_chdir,
	SYS_chmod, SYS_chown, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_close,
	SYS_close_range, SYS_connect, SYS_copy_file_range, SYS_creat, SYS_dup, SYS_dup2, SYS_dup3, SYS_epoll_create,
	SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_epoll_wait, SYS_eventfd, SYS_eventfd2,
	SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_faccessat, SYS_faccessat2, SYS_fadvise64, SYS_fallocate,
	SYS_fchdir, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2, SYS_fchown, SYS_fchownat, SYS_fcntl, SYS_fdatasync,
	SYS_fgetxattr, SYS_flistxattr, SYS_flock, SYS_fork, SYS_fremovexattr, SYS_fsetxattr, SYS_fstat, SYS_fstatfs,
	SYS_fsync, SYS_ftruncate, SYS_futex, SYS_futimesat, SYS_get_robust_list, SYS_get_thread_area, SYS_getcpu,
	SYS_getcwd, SYS_getdents, SYS_getdents64, SYS_getegid, SYS_geteuid, SYS_getgid, SYS_getgroups, SYS_getitimer,
	SYS_getpeername, SYS_getpgid, SYS_getpgrp, SYS_getpid, SYS_getppid, SYS_getpriority, SYS_getrandom,
	SYS_getresgid, SYS_getresuid, SYS_getrlimit, SYS_getrusage, SYS_getsid, SYS_getsockname, SYS_getsockopt,
	SYS_gettid, SYS_gettimeofday, SYS_getuid, SYS_getxattr, SYS_inotify_add_watch, SYS_inotify_init,
	SYS_inotify_init1, SYS_inotify_rm_watch, SYS_ioctl, SYS_ioprio_get, SYS_kill, SYS_lchown, SYS_lgetxattr,
	SYS_link, SYS_linkat, SYS_listen, SYS_listxattr, SYS_llistxattr, SYS_lremovexattr, SYS_lseek, SYS_lsetxattr,
	SYS_lstat, SYS_madvise, SYS_map_shadow_stack, SYS_membarrier, SYS_memfd_create, SYS_mincore, SYS_mkdir,
	SYS_mkdirat, SYS_mlock, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_mseal, SYS_msync, SYS_munlock, SYS_munlockall,
	SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_open, SYS_openat, SYS_openat2, SYS_pause, SYS_personality,
	SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pipe, SYS_pipe2, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect,
	SYS_poll, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_prlimit64, SYS_pselect6, SYS_pwrite64,
	SYS_pwritev, SYS_pwritev2, SYS_read, SYS_readlink, SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmmsg,
	SYS_recvmsg, SYS_removexattr, SYS_rename, SYS_renameat, SYS_renameat2, SYS_restart_syscall, SYS_rmdir, SYS_rseq,
	SYS_rt_sigaction, SYS_rt_sigpending, SYS_rt_sigprocmask, SYS_rt_sigqueueinfo, SYS_rt_sigreturn,
	SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_rt_tgsigqueueinfo, SYS_sched_get_priority_max,
	SYS_sched_get_priority_min, SYS_sched_getaffinity, SYS_sched_getattr, SYS_sched_getparam,
	SYS_sched_getscheduler, SYS_sched_rr_get_interval, SYS_sched_yield, SYS_select, SYS_sendfile, SYS_sendmmsg,
	SYS_sendmsg, SYS_sendto, SYS_set_robust_list, SYS_set_thread_area, SYS_set_tid_address, SYS_setgid,
	SYS_setitimer, SYS_setpgid, SYS_setpriority, SYS_setregid, SYS_setresgid, SYS_setresuid, SYS_setreuid,
	SYS_setrlimit, SYS_setsid, SYS_setsockopt, SYS_setuid, SYS_setxattr, SYS_shutdown, SYS_sigaltstack,
	SYS_signalfd, SYS_signalfd4, SYS_socket, SYS_socketpair, SYS_stat, SYS_statfs, SYS_statx, SYS_symlink,
	SYS_symlinkat, SYS_sync, SYS_sync_file_range, SYS_syncfs, SYS_sysinfo, SYS_tgkill, SYS_time, SYS_timer_create,
	SYS_timer_delete, SYS_timer_getoverrun, SYS_timer_gettime, SYS_timer_settime, SYS_timerfd_create,
	SYS_timerfd_gettime, SYS_timerfd_settime, SYS_times, SYS_tkill, SYS_truncate, SYS_umask, SYS_uname, SYS_unlink,
	SYS_unlinkat, SYS_uretprobe, SYS_utime, SYS_utimensat, SYS_utimes, SYS_vfork, SYS_wait4, SYS_waitid, SYS_write,
	SYS_writev,
	/* The 11. */
	SYS_cachestat, SYS_ioprio_set, SYS_mlock2, SYS_mlockall, SYS_readahead, SYS_remap_file_pages,
	SYS_sched_setaffinity, SYS_sched_setattr, SYS_sched_setparam, SYS_sched_setscheduler, SYS_setfsuid,
};
enum { RULES = sizeof(allowed) / sizeof(allowed[0]) };
_Static_assert(RULES == 250, "the floor is stated for 250 rules");

/* Steps in order, and their printed names. */
enum step {
	STEP_CGROUP, STEP_CLONE, STEP_MAPS, STEP_UNSHARE, STEP_ROOT, STEP_PROC, STEP_PIVOT, STEP_NETWORK, STEP_LIMITS,
	STEP_CAPS, STEP_SECCOMP, STEP_FORK, STEP_EXEC, STEPS,
};
static const char *const step_names[STEPS] = {
	"mkdir cgroup, socketpair", "clone3", "id maps", "unshare cgroup and time", "tmpfs root, binds", "proc",
	"tmpfs /tmp, seal, pivot_root", "hostname, loopback", "rlimits, descriptors", "capabilities, uid", "seccomp",
	"fork", "exec until ready",
};

/* Shared with the child: when each step ended, and which call failed. */
static struct shared {
	uint64_t ended_ns[STEPS];
	char failed[96];
	int failed_errno;
} *shared;

static struct sock_filter filter[5 + 2 * RULES];
static unsigned short filter_length;
static volatile sig_atomic_t stopped;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void on_signal(int signal)
{
	(void)signal;
	stopped = 1;
}

/* ---- the child: init ------------------------------------------------------------------------------------------- */

/* Every step of init goes through this: a failure is named and ends the sandbox (the parent sees end of file). */
static void must(int ok, const char *what)
{
	if (ok)
		return;
	shared->failed_errno = errno;
	snprintf(shared->failed, sizeof(shared->failed), "%s", what);
	_exit(111);
}

static void done(enum step step)
{
	shared->ended_ns[step] = now_ns();
}

static void bind_device(const char *from, const char *to)
{
	int fd = open(to, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

	must(fd >= 0, to);
	close(fd);
	must(mount(from, to, NULL, MS_BIND, NULL) == 0, from);
}

static void make_root(void)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };
	int usr;

	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "make / private");
	usr = open_tree(AT_FDCWD, "/usr", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	must(usr >= 0, "open_tree /usr");
	must(mount_setattr(usr, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) == 0, "mount_setattr /usr");

	/* On /tmp of our own mount namespace: any directory will do, the host sees nothing of it. */
	must(mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k,nr_inodes=32") == 0, "tmpfs root");
	must(chdir("/tmp") == 0, "chdir to the root");
	must(mkdir("usr", 0755) == 0, "mkdir usr");
	must(mkdir("proc", 0755) == 0, "mkdir proc");
	must(mkdir("dev", 0755) == 0, "mkdir dev");
	must(mkdir("tmp", 0755) == 0, "mkdir tmp");
	must(symlink("usr/bin", "bin") == 0, "symlink bin");
	must(symlink("usr/lib", "lib") == 0, "symlink lib");
	must(symlink("usr/lib64", "lib64") == 0, "symlink lib64");
	must(move_mount(usr, "", AT_FDCWD, "usr", MOVE_MOUNT_F_EMPTY_PATH) == 0, "move_mount /usr");
	close(usr);
	bind_device("/dev/null", "dev/null");
	bind_device("/dev/zero", "dev/zero");
}

static void enter_root(void)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };

	must(mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		   "mode=0700,uid=1000,gid=1000,size=16m,nr_inodes=1024") == 0, "tmpfs /tmp");
	must(mount_setattr(AT_FDCWD, ".", 0, &attr, sizeof(attr)) == 0, "seal the root");
	must(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
	must(umount2(".", MNT_DETACH) == 0, "detach the old root");
	must(chdir("/") == 0, "chdir /");
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	must(fd >= 0, "socket for loopback");
	must(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "loopback up");
	close(fd);
}

static void limit(int resource, rlim_t value, const char *what)
{
	struct rlimit both = { value, value };

	must(setrlimit(resource, &both) == 0, what);
}

static void limits_and_descriptors(void)
{
	int null;

	limit(RLIMIT_NOFILE, 1024, "rlimit nofile");
	limit(RLIMIT_CORE, 0, "rlimit core");
	limit(RLIMIT_FSIZE, 16 << 20, "rlimit fsize");
	limit(RLIMIT_MEMLOCK, 64 << 10, "rlimit memlock");
	limit(RLIMIT_MSGQUEUE, 0, "rlimit msgqueue");
	limit(RLIMIT_SIGPENDING, 128, "rlimit sigpending");
	limit(RLIMIT_RTPRIO, 0, "rlimit rtprio");
	limit(RLIMIT_NICE, 0, "rlimit nice");
	limit(RLIMIT_STACK, 8 << 20, "rlimit stack");

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	must(null >= 0, "open /dev/null");
	for (int fd = 0; fd <= 2; fd++)
		must(dup2(null, fd) == fd, "dup2 /dev/null");
	must(syscall(SYS_close_range, FD_PROGRAM + 1, ~0u, 0) == 0, "close_range");
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	for (int cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	must(errno == EINVAL, "drop the bounding set");
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0, "clear ambient");
	/* Raw calls: the process has one thread, and glibc's wrappers would go looking for others. */
	must(syscall(SYS_setresgid, INSIDE_ID_FUNCTION, INSIDE_ID_FUNCTION, INSIDE_ID_FUNCTION) == 0, "setresgid");
	must(syscall(SYS_setresuid, INSIDE_ID_FUNCTION, INSIDE_ID_FUNCTION, INSIDE_ID_FUNCTION) == 0, "setresuid");
	must(syscall(SYS_capset, &header, none) == 0, "capset");
	/* After the change of uid, which clears it. */
	must(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0, "pdeathsig");
}

static void install_filter(void)
{
	struct sock_fprog program = { .len = filter_length, .filter = filter };

	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
	must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp");
}

static void init(const char *program_name)
{
	static char *const environment[] = { "PATH=/usr/bin", NULL };
	char *const arguments[] = { (char *)program_name, NULL };
	char go;
	pid_t function;

	must(read(FD_CHANNEL, &go, 1) == 1, "wait for the id maps");
	done(STEP_MAPS);
	must(syscall(SYS_setresgid, 0, 0, 0) == 0 && syscall(SYS_setresuid, 0, 0, 0) == 0, "become 0 inside");
	must(unshare(CLONE_NEWCGROUP | CLONE_NEWTIME) == 0, "unshare cgroup and time");
	must(setsid() > 0, "setsid");
	done(STEP_UNSHARE);
	make_root();
	done(STEP_ROOT);
	must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible") == 0, "proc");
	done(STEP_PROC);
	enter_root();
	done(STEP_PIVOT);
	must(sethostname("worker", 6) == 0, "sethostname");
	loopback_up();
	done(STEP_NETWORK);
	limits_and_descriptors();
	done(STEP_LIMITS);
	drop_capabilities();
	done(STEP_CAPS);
	install_filter();
	done(STEP_SECCOMP);

	function = fork();
	must(function >= 0, "fork");
	if (function == 0) {
		done(STEP_FORK);
		/* By descriptor, opened before the host's root went away: no mount is needed for it. */
		syscall(SYS_execveat, FD_PROGRAM, "", arguments, environment, AT_EMPTY_PATH);
		must(0, "execveat");
	}
	close(FD_CHANNEL);
	close(FD_PROGRAM);
	while (waitpid(function, NULL, 0) < 0 && errno == EINTR)
		;
	_exit(0);
}

/* ---- the parent ------------------------------------------------------------------------------------------------ */

static char worker_dir[4096 + 32];
static int worker_pidfd = -1;
static const char *made_dir;

/* 0 when there is nothing to remove or it was removed. Busy for a moment after the last process was reaped. */
static int remove_worker_dir(void)
{
	uint64_t until_ns = now_ns() + 2000000000u;

	while (worker_dir[0] && rmdir(worker_dir) != 0) {
		if (errno != EBUSY || now_ns() > until_ns)
			return -1;
		sched_yield();
	}
	worker_dir[0] = 0;
	return 0;
}

static int reap(siginfo_t *info)
{
	while (waitid(P_PIDFD, (id_t)worker_pidfd, info, WEXITED) != 0)
		if (errno != EINTR)
			return -1;
	close(worker_pidfd);
	worker_pidfd = -1;
	return 0;
}

/* Also halfway through a sandbox. Killing its pid 1 ends all of it. */
static void clean_up(void)
{
	siginfo_t info;

	if (worker_pidfd >= 0 && syscall(SYS_pidfd_send_signal, worker_pidfd, SIGKILL, NULL, 0) == 0)
		reap(&info);
	if (remove_worker_dir() != 0)
		fprintf(stderr, "cold-floor: left behind: %s: %m\n", worker_dir);
	if (made_dir)
		rmdir(made_dir);
}

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...)
{
	va_list arguments;

	fputs("cold-floor: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	/* A parent's call often fails only because the child did. */
	if (shared && shared != MAP_FAILED && shared->failed[0])
		fprintf(stderr, " (inside: step \"%s\": %s)", shared->failed, strerror(shared->failed_errno));
	fputc('\n', stderr);
	clean_up();
	exit(1);
}

static void emit(struct sock_filter instruction)
{
	filter[filter_length++] = instruction;
}

static void emit_verdict(int allow)
{
	emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, allow ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EPERM));
}

/* Ranges of numbers with one verdict, by where they begin. */
static struct range { int from, allow; } ranges[2 * RULES + 1];

static void emit_search(int from, int to)
{
	int middle = (from + to) / 2, jump = filter_length;

	if (to - from == 1) {
		emit_verdict(ranges[from].allow);
		return;
	}
	emit((struct sock_filter){ 0 });
	emit_search(from, middle);
	/* A jump is one byte; the ranges of this list need about 90. */
	if (filter_length - jump - 1 > 255)
		fail("the binary search does not fit the jumps of a filter");
	filter[jump] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (unsigned)ranges[middle].from,
						    (unsigned char)(filter_length - jump - 1), 0);
	emit_search(middle, to);
}

/* Foreign ABI killed, 250 numbers allowed, EPERM for the rest (the x32 numbers among it). */
static void make_filter(int tree)
{
	int count = 0;

	emit((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
	emit((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
	emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	emit((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
	if (!tree) {
		/* As seccompiler writes it: "is it this number? allow", 250 times. */
		for (int i = 0; i < RULES; i++) {
			emit((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1));
			emit_verdict(1);
		}
		emit_verdict(0);
		return;
	}
	for (int number = 0; number <= NUMBER_MAX + 1; number++) {
		int allow = 0;

		for (int i = 0; i < RULES; i++)
			allow |= allowed[i] == number;
		if (count == 0 || ranges[count - 1].allow != allow)
			ranges[count++] = (struct range){ number, allow };
	}
	emit_search(0, count);
}

static int write_file(const char *path, const char *text)
{
	ssize_t length = (ssize_t)strlen(text);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ok = fd >= 0 && write(fd, text, (size_t)length) == length;

	if (fd >= 0)
		close(fd);
	return ok;
}

static void write_maps(pid_t pid)
{
	static char map[64];
	char path[64];

	if (!map[0])
		snprintf(map, sizeof(map), "0 %d 1\n%d %d 1\n", HOST_ID_INIT, INSIDE_ID_FUNCTION, HOST_ID_FUNCTION);
	snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
	if (!write_file(path, "deny"))
		fail("write %s: %m", path);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	if (!write_file(path, map))
		fail("write %s: %m", path);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	if (!write_file(path, map))
		fail("write %s: %m", path);
}

static void read_file(pid_t pid, const char *name, char *out, size_t size)
{
	char path[64];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? -1 : read(fd, out, size - 1);
	if (got < 0)
		fail("read %s: %m", path);
	close(fd);
	out[got] = 0;
}

/* Once per run and not measured: a sandbox that is not one would make a very fine floor. */
static void check_posture(pid_t pid, const char *leaf)
{
	static const char *const lines[] = {
		"\nSeccomp:\t2\n", "\nSeccomp_filters:\t1\n", "\nNoNewPrivs:\t1\n", "\nCapInh:\t0000000000000000\n",
		"\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n", "\nCapBnd:\t0000000000000000\n",
		"\nCapAmb:\t0000000000000000\n", "\nUid:\t1879048193\t1879048193\t1879048193\t1879048193\n",
	};
	static const char *const namespaces[] = {
		"user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time_for_children",
	};
	static const char *const mounts[] = { " / / ro", " /usr ro,", " /proc rw,", " /tmp rw,", " /dev/null ", " /dev/zero " };
	static char text[65536];
	char path[64], inside[64] = "", outside[64] = "";
	int lines_seen = 0;

	read_file(pid, "status", text, sizeof(text));
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (!strstr(text, lines[i]))
			fail("posture: /proc/%d/status lacks \"%s\"", pid, lines[i] + 1);

	for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, namespaces[i]);
		if (readlink(path, inside, sizeof(inside) - 1) < 0)
			fail("posture: %s: %m", path);
		snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i]);
		if (readlink(path, outside, sizeof(outside) - 1) < 0)
			fail("posture: %s: %m", path);
		if (strcmp(inside, outside) == 0)
			fail("posture: namespace %s is the host's", namespaces[i]);
	}

	read_file(pid, "mountinfo", text, sizeof(text));
	for (const char *at = text; (at = strchr(at, '\n')); at++)
		lines_seen++;
	if (lines_seen != sizeof(mounts) / sizeof(mounts[0]))
		fail("posture: %d mounts inside:\n%s", lines_seen, text);
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++)
		if (!strstr(text, mounts[i]))
			fail("posture: no mount like \"%s\" inside:\n%s", mounts[i], text);

	if (leaf) {
		read_file(pid, "cgroup", text, sizeof(text));
		/* Read from outside the cgroup namespace, so the path is the host's; v2 is the line "0::". */
		char *v2 = strstr(text, "0::");
		if (!v2 || !strstr(v2, leaf))
			fail("posture: cgroup of %d is not %s:\n%s", pid, leaf, text);
	}
}

struct times {
	uint64_t start_ns, ready_ns, teardown_ns, step_ns[STEPS];
};

static void run_once(const char *cgroup_dir, const char *program, int program_fd, int index, int check, struct times *out)
{
	static char kill_path[sizeof(worker_dir) + 16];
	struct clone_args arguments = { 0 };
	struct pollfd readable;
	siginfo_t info;
	int channel[2], cgroup_fd = -1, ended, got;
	char leaf[32], byte = 1;
	uint64_t from_ns;
	pid_t pid;

	memset(shared, 0, sizeof(*shared));
	if (cgroup_dir) {
		snprintf(leaf, sizeof(leaf), "w-%d-%d", getpid(), index);
		snprintf(worker_dir, sizeof(worker_dir), "%s/%s", cgroup_dir, leaf);
		snprintf(kill_path, sizeof(kill_path), "%s/cgroup.kill", worker_dir);
	}

	out->start_ns = now_ns();
	if (cgroup_dir) {
		if (mkdir(worker_dir, 0755) != 0) {
			int error = errno;
			char path[sizeof(worker_dir)];

			strcpy(path, worker_dir);
			worker_dir[0] = 0;
			fail("mkdir %s: %s", path, strerror(error));
		}
		cgroup_fd = open(worker_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (cgroup_fd < 0)
			fail("open %s: %m", worker_dir);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
		fail("socketpair: %m");
	done(STEP_CGROUP);

	arguments.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD;
	arguments.pidfd = (uint64_t)(uintptr_t)&worker_pidfd;
	arguments.exit_signal = SIGCHLD;
	if (cgroup_dir) {
		arguments.flags |= CLONE_INTO_CGROUP;
		arguments.cgroup = (uint64_t)cgroup_fd;
	}
	pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
	if (pid < 0)
		fail("clone3%s%s: %m", cgroup_dir ? " into " : "", cgroup_dir ? worker_dir : "");
	if (pid == 0) {
		/* Park both above the two numbers they are going to, whatever those hold now. */
		int mine = fcntl(channel[1], F_DUPFD_CLOEXEC, 10), image = fcntl(program_fd, F_DUPFD_CLOEXEC, 10);

		must(mine >= 0 && image >= 0 && dup2(mine, FD_CHANNEL) == FD_CHANNEL &&
		     dup3(image, FD_PROGRAM, O_CLOEXEC) == FD_PROGRAM, "place descriptors");
		/* The parent's end too, or end of file never comes. */
		must(syscall(SYS_close_range, FD_PROGRAM + 1, ~0u, 0) == 0, "close_range");
		init(program);
	}
	done(STEP_CLONE);
	close(channel[1]);
	write_maps(pid);
	got = (int)write(channel[0], &byte, 1);
	readable = (struct pollfd){ .fd = channel[0], .events = POLLIN };
	while (got == 1 && (got = poll(&readable, 1, READY_TIMEOUT_MS)) < 0 && errno == EINTR)
		got = 1;
	ended = got != 1 || read(channel[0], &byte, 1) != 1;
	out->ready_ns = now_ns() - out->start_ns;
	done(STEP_EXEC);

	if (!ended && check)
		check_posture(pid, cgroup_dir ? leaf : NULL);
	for (int i = 0; i < STEPS; i++)
		out->step_ns[i] = shared->ended_ns[i] - (i ? shared->ended_ns[i - 1] : out->start_ns);

	from_ns = now_ns();
	if (cgroup_dir ? !write_file(kill_path, "1") : syscall(SYS_pidfd_send_signal, worker_pidfd, SIGKILL, NULL, 0) != 0)
		fail("kill worker %d: %m", pid);
	if (reap(&info) != 0)
		fail("reap %d: %m", pid);
	if (remove_worker_dir() != 0)
		fail("rmdir %s: %m", worker_dir);
	out->teardown_ns = now_ns() - from_ns;

	close(channel[0]);
	if (cgroup_fd >= 0)
		close(cgroup_fd);
	if (ended)
		fail("%s %s", program, got == 0 ? "did not say ready in time" : "ended before it said ready");
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print(const char *name, const struct times *all, int count, int steps)
{
	uint64_t *column = calloc((size_t)count, sizeof(*column));

	if (!column)
		fail("out of memory");
	printf("{\"name\":\"%s\",\"unit\":\"ns\",\"samples\":[", name);
	for (int i = 0; i < count; i++)
		printf("%s%llu", i ? "," : "", (unsigned long long)all[i].ready_ns);
	printf("],\"teardown\":[");
	for (int i = 0; i < count; i++)
		printf("%s%llu", i ? "," : "", (unsigned long long)all[i].teardown_ns);
	printf("]");
	for (int step = 0; steps && step < STEPS; step++) {
		for (int i = 0; i < count; i++)
			column[i] = all[i].step_ns[step];
		qsort(column, (size_t)count, sizeof(*column), by_value);
		printf("%s\"%s\":%llu", step ? "," : ",\"steps_p50\":{", step_names[step],
		       (unsigned long long)column[count / 2]);
	}
	printf("%s}\n", steps ? "}" : "");
	free(column);
}

static int number(const char *text, int min, int max)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (!*text || *end || value < min || value > max)
		fail("\"%s\" is not a number from %d to %d", text, min, max);
	return (int)value;
}

int main(int argc, char **argv)
{
	int samples = 200, warm_up = 10, gap_ms = 0, steps = 0, tree = 0, option, program_fd;
	struct sigaction stop = { .sa_handler = on_signal };
	const char *cgroup_dir = NULL;
	struct times *all;

	while ((option = getopt(argc, argv, "n:w:g:c:st")) != -1) {
		switch (option) {
		case 'n': samples = number(optarg, 1, SAMPLES_MAX); break;
		case 'w': warm_up = number(optarg, 1, SAMPLES_MAX); break;
		case 'g': gap_ms = number(optarg, 0, 10000); break;
		case 'c': cgroup_dir = optarg; break;
		case 's': steps = 1; break;
		case 't': tree = 1; break;
		default: optind = argc + 1;
		}
	}
	if (optind != argc - 1) {
		fprintf(stderr, "usage: %s [-n SAMPLES] [-w WARMUP] [-g GAP_MS] [-c CGROUP_V2_DIR] [-s] [-t] PROGRAM\n", argv[0]);
		return 2;
	}
	if (geteuid() != 0)
		fail("must be run as root");
	if (cgroup_dir && strlen(cgroup_dir) > 4000)
		fail("the name of the cgroup directory is too long");
	/* setgroups is denied inside, so what the child must not have goes here. */
	if (setgroups(0, NULL) != 0)
		fail("setgroups: %m");
	program_fd = open(argv[optind], O_PATH | O_CLOEXEC);
	if (program_fd < 0)
		fail("open %s: %m", argv[optind]);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	all = calloc((size_t)samples, sizeof(*all));
	if (shared == MAP_FAILED || !all)
		fail("out of memory");
	make_filter(tree);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGHUP, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (cgroup_dir && mkdir(cgroup_dir, 0755) == 0)
		made_dir = cgroup_dir;
	else if (cgroup_dir && errno != EEXIST)
		fail("mkdir %s: %m", cgroup_dir);

	for (int i = -warm_up; i < samples; i++) {
		struct times unused;

		if (stopped)
			fail("stopped by a signal");
		run_once(cgroup_dir, argv[optind], program_fd, i + warm_up, i == -warm_up, i < 0 ? &unused : &all[i]);
		if (gap_ms)
			poll(NULL, 0, gap_ms);
	}
	clean_up();
	print(tree ? "cold-floor-tree" : "cold-floor", all, samples, steps);
	return 0;
}
