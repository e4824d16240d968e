// SPDX-License-Identifier: MIT
/* Cases that hang in the kernel or crash it, each in another way: what does the harness bring back of them? */
#include "hgm.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

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
