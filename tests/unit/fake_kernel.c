// SPDX-License-Identifier: MIT
/*
 * The system calls that tell the posted versions of high-granularity mapping apart, answered as the version that
 * FAKE_KERNEL names would. Preloaded into programs, so that C and Python meet the same kernel.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define BIT_13 (1ULL << 13)
#define MADV_SPLIT 26

/* What it takes for CONTINUE to map base pages. */
enum pieces { NEVER, ALWAYS, WITH_BIT, WITH_SPLIT };

static const struct version {
	const char *name, *release;
	bool bit_13; /* reported by UFFDIO_API */
	enum pieces pieces;
	int over_marker; /* what CONTINUE of a base page comes to where write protection has left a marker */
	int refusal; /* and where base pages are not mapped */
} versions[] = {
	{ "NONE", "6.1.192", false, NEVER, 0, EINVAL },
	{ "NEWER", "6.12.3-amd64", true, NEVER, 0, EINVAL }, /* there the bit is WP_UNPOPULATED */
	{ "BROKEN", "6.1.192", false, NEVER, 0, ENOENT },
	{ "RFC1", "5.19.0-rc3", true, ALWAYS, 0, 0 },
	{ "RFC2", "6.1.0-rc1+", true, WITH_BIT, 0, EINVAL },
	{ "V1", "6.2.0-rc2", false, WITH_SPLIT, EEXIST, EINVAL },
	{ "V2", "6.2.0", false, WITH_SPLIT, EFAULT, EINVAL },
};

/* Of the last userfaultfd that was opened; each probe opens one of its own. */
static unsigned long long features;
static bool is_split, has_marker;

static const struct version *version(void)
{
	for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++)
		if (!strcmp(versions[i].name, getenv("FAKE_KERNEL")))
			return &versions[i];
	abort();
}

static int answer(int error)
{
	errno = error;
	return error ? -1 : 0;
}

static int api(struct uffdio_api *asked)
{
	unsigned long long known = (1ULL << 13) - 1;

	if (version()->bit_13)
		known |= BIT_13;
	features = asked->features;
	is_split = has_marker = false;
	if (features & ~known)
		return answer(EINVAL);
	asked->features = known;
	return answer(0);
}

/* Of one base page, which is not in the page cache. */
static int try_continue(void)
{
	const bool maps[] = { [ALWAYS] = true, [WITH_BIT] = features & BIT_13, [WITH_SPLIT] = is_split };

	if (!maps[version()->pieces])
		return answer(version()->refusal);
	return answer(has_marker ? version()->over_marker : EFAULT);
}

int ioctl(int fd, unsigned long request, ...)
{
	int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	switch ((unsigned int)request) {
	case UFFDIO_API:
		return api(argument);
	case UFFDIO_REGISTER:
		return answer(0);
	case UFFDIO_WRITEPROTECT:
		has_marker = true;
		return answer(0);
	case UFFDIO_CONTINUE:
		return try_continue();
	}
	return next(fd, request, argument);
}

int madvise(void *at, size_t length, int advice)
{
	if (advice != MADV_SPLIT)
		return syscall(SYS_madvise, at, length, advice);
	is_split = version()->pieces == WITH_SPLIT;
	return answer(is_split ? 0 : EINVAL);
}

long syscall(long number, ...)
{
	long (*next)(long, ...) = dlsym(RTLD_NEXT, "syscall");
	long words[6];
	va_list arguments;

	va_start(arguments, number);
	for (int i = 0; i < 6; i++)
		words[i] = va_arg(arguments, long);
	va_end(arguments);
	if (number == SYS_userfaultfd)
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	return next(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

/* Of ordinary pages: this host may have no huge ones. */
int memfd_create(const char *name, unsigned int flags)
{
	return syscall(SYS_memfd_create, name, flags & MFD_CLOEXEC);
}

int uname(struct utsname *system)
{
	int failed = syscall(SYS_uname, system);

	strcpy(system->release, version()->release);
	return failed;
}
