// SPDX-License-Identifier: MIT
/* Programs in the frame of the guest tests that do what a test must not do: the harness has to report each as what it is. */
#include "hgm.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void write_text(const char *path, const char *text)
{
	int fd = CHECKED(open(path, O_WRONLY | O_CLOEXEC));

	EXPECT_EQ(CHECKED(write(fd, text, strlen(text))), strlen(text));
	close(fd);
}

static void provoke(const char *crash)
{
	write_text("/sys/kernel/debug/provoke-crash/DIRECT", crash);
}

STOCK_CASE(passes, "nothing is wrong here", .deadline_s = 10)
{
	hgm_note("all is well");
	EXPECT_EQ(1 + 1, 2);
}

STOCK_CASE(skips, "a case that is not about this machine", .deadline_s = 10)
{
	hgm_skip("not applicable: there is no machine it is about");
}

STOCK_CASE(fails, "an expectation that is not met", .deadline_s = 10)
{
	EXPECT_EQ(1 + 1, 3);
}

STOCK_CASE(warn, "passes, but the kernel warned [drivers/misc/lkdtm/bugs.c:lkdtm_WARNING]", .deadline_s = 10)
{
	provoke("WARNING");
}

STOCK_CASE(bug, "a BUG in the kernel, which kills the program [drivers/misc/lkdtm/bugs.c:lkdtm_BUG]", .deadline_s = 10)
{
	provoke("BUG");
}

STOCK_CASE(panic, "the kernel panics [drivers/misc/lkdtm/bugs.c:lkdtm_PANIC]", .deadline_s = 10)
{
	hgm_note("the kernel is about to panic");
	provoke("PANIC");
}

STOCK_CASE(hang, "never ends, though the kernel is well", .deadline_s = 5)
{
	hgm_note("waiting for ever");
	for (;;)
		pause();
}

STOCK_CASE(lockup, "a processor that never leaves the kernel [drivers/misc/lkdtm/bugs.c:lkdtm_HARDLOCKUP]", .deadline_s = 2)
{
	provoke("HARDLOCKUP");
}

STOCK_CASE(leak, "passes, and leaves a huge page in a file of a mounted hugetlbfs", .deadline_s = 10)
{
	const char *place = "/tmp/hgm-leak";
	char options[64], path[64];
	int fd;

	snprintf(options, sizeof(options), "pagesize=%zu", hgm_huge);
	snprintf(path, sizeof(path), "%s/page", place);
	if (mkdir(place, 0700) && errno != EEXIST)
		HGM_FAIL("mkdir: %s", strerror(errno));
	EXPECT_EQ(CHECKED(mount("none", place, "hugetlbfs", 0, options)), 0);
	hgm_need_pages(1);
	fd = CHECKED(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	EXPECT_EQ(CHECKED(fallocate(fd, 0, 0, hgm_huge)), 0);
}

STOCK_CASE(taint, "passes, and taints the kernel without a word in its log [kernel/sysctl.c:proc_taint]", .deadline_s = 10)
{
	write_text("/proc/sys/kernel/tainted", "64\n"); /* TAINT_USER */
}

STOCK_CASE(signal, "is killed by a signal in the middle", .deadline_s = 10)
{
	hgm_note("about to die");
	raise(SIGSEGV);
}
