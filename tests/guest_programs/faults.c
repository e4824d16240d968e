// SPDX-License-Identifier: MIT
/* Programs that misbehave on purpose: the harness's own tests see that each is reported as what it is. */
#include "hgm.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void put(const char *path, const char *text)
{
	int fd = CHECKED(open(path, O_WRONLY | O_CLOEXEC));

	EXPECT_EQ(write(fd, text, strlen(text)), strlen(text));
	CHECKED(close(fd));
}

/* LKDTM: drivers/misc/lkdtm */
static void provoke(const char *crash)
{
	put("/sys/kernel/debug/provoke-crash/DIRECT", crash);
}

STOCK_CASE(passes, "a case that passes")
{
}

STOCK_CASE(skips, "a case that skips")
{
	hgm_skip("kernel has no HGM, says a program that has not asked");
}

STOCK_CASE(fails, "a case that fails")
{
	EXPECT_EQ(1 + 1, 3);
}

STOCK_CASE(warn, "a kernel WARN under a case that passes")
{
	provoke("WARNING");
}

STOCK_CASE(bug, "a kernel BUG")
{
	provoke("BUG");
}

STOCK_CASE(panic, "a kernel panic")
{
	provoke("PANIC");
}

STOCK_CASE(hang, "a program that never ends", .deadline_s = 2)
{
	for (;;)
		pause();
}

STOCK_CASE(lockup, "a kernel that never ends", .deadline_s = 2)
{
	provoke("HARDLOCKUP");
}

STOCK_CASE(leak, "a huge page held by a file that outlives the program")
{
	char options[64];
	int fd;

	CHECKED(mkdir("/tmp/huge", 0700));
	snprintf(options, sizeof(options), "pagesize=%zu", hgm_huge);
	CHECKED(mount("none", "/tmp/huge", "hugetlbfs", 0, options));
	fd = CHECKED(open("/tmp/huge/left", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	CHECKED(posix_fallocate(fd, 0, (off_t)hgm_huge) ? -1 : 0);
}

STOCK_CASE(taint, "a kernel that is tainted without a word")
{
	put("/proc/sys/kernel/tainted", "64");
}

STOCK_CASE(exit_clash, "KTAP says ok, the exit status says no")
{
	printf("ok 1 exit_clash\n");
	_exit(1);
}

STOCK_CASE(signal_death, "a program that dies by a signal")
{
	raise(SIGSEGV);
}
