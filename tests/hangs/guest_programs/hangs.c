// SPDX-License-Identifier: MIT
/* Cases that hang in the kernel or crash it, each in another way: what does the harness bring back of them? */
#include "hgm.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static void provoke(const char *crash)
{
	int fd = CHECKED(open("/sys/kernel/debug/provoke-crash/DIRECT", O_WRONLY | O_CLOEXEC));

	EXPECT_EQ(CHECKED(write(fd, crash, strlen(crash))), strlen(crash));
	close(fd);
}

static void move_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	EXPECT_EQ(CHECKED(sched_setaffinity(0, sizeof(set), &set)), 0);
}

/* ssh is dead from here on: its server and the children of it stand still. */
static void stop_ssh(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	char path[300], name[32];
	FILE *file;

	while ((entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		file = atoi(entry->d_name) ? fopen(path, "re") : NULL;
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strncmp(name, "dropbear", 8))
			kill(atoi(entry->d_name), SIGSTOP);
		fclose(file);
	}
	closedir(dir);
}

static void *lock_up(void *unused)
{
	move_to(1);
	provoke("HARDLOCKUP");
	return unused;
}

STOCK_CASE(blocked, "a task that waits in the kernel for ever [drivers/misc/lkdtm/bugs.c:lkdtm_HUNG_TASK]", .deadline_s = 1)
{
	hgm_note("about to wait for ever");
	provoke("HUNG_TASK");
}

STOCK_CASE(deaf, "a processor with interrupts off, and no ssh [drivers/misc/lkdtm/bugs.c:lkdtm_HARDLOCKUP]", .deadline_s = 1)
{
	stop_ssh();
	move_to(1);
	provoke("HARDLOCKUP");
}

STOCK_CASE(dead, "every processor with interrupts off [drivers/misc/lkdtm/bugs.c:lkdtm_HARDLOCKUP]", .deadline_s = 1)
{
	pthread_t other;

	move_to(0);
	EXPECT_EQ(pthread_create(&other, NULL, lock_up, NULL), 0);
	usleep(200000);
	provoke("HARDLOCKUP");
}

STOCK_CASE(panic, "the kernel panics [drivers/misc/lkdtm/bugs.c:lkdtm_PANIC]", .deadline_s = 60)
{
	provoke("PANIC");
}

static _Atomic pid_t waiter;

static void *wait_for_ever(void *unused)
{
	waiter = gettid();
	provoke("HUNG_TASK");
	return unused;
}

/* Whether the thread sleeps in the kernel, where no signal reaches it. */
static bool sleeps_deeply(pid_t thread)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
	file = fopen(path, "re");
	EXPECT(file);
	EXPECT_EQ(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
	fclose(file);
	return state == 'D';
}

STOCK_CASE(undead, "a BUG in another process, and a last word after which the program cannot exit "
	   "[drivers/misc/lkdtm/bugs.c:lkdtm_BUG, lkdtm_HUNG_TASK]", .deadline_s = 60)
{
	pid_t child = CHECKED(fork());
	pthread_t thread;
	int status;

	if (!child) {
		provoke("BUG");
		_exit(0);
	}
	CHECKED(waitpid(child, &status, 0));
	EXPECT(WIFSIGNALED(status));
	hgm_thread_start(&thread, wait_for_ever, NULL);
	while (!waiter || !sleeps_deeply(waiter))
		sched_yield();
}
