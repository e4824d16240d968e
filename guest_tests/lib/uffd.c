// SPDX-License-Identifier: MIT
/* Files and mappings of huge pages, and userfaultfd. */
#include "inside.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

int hgm_huge_file(size_t pages)
{
	/* The C library lacks MFD_HUGE_SHIFT; it is the same as that of mmap (include/uapi/linux/memfd.h). */
	int fd = memfd_create("hgm", MFD_CLOEXEC | MFD_HUGETLB | __builtin_ctzl(hgm_huge) << MAP_HUGE_SHIFT);

	if (fd < 0 || ftruncate(fd, pages * hgm_huge))
		FAIL_HERE("a file of %zu huge pages of %s: %s", pages, hgm_size_name(hgm_huge), strerror(errno));
	return fd;
}

int hgm_memfd_(size_t pages)
{
	hgm_need_pages_(pages);
	return hgm_huge_file(pages);
}

void *hgm_map_(int fd, size_t offset, size_t length, int flags)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, offset);

	if (at == MAP_FAILED)
		FAIL_HERE("mmap of 0x%zx bytes of huge pages of %s: %s", length, hgm_size_name(hgm_huge), strerror(errno));
	return at;
}

int hgm_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		FAIL_HERE("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_API, &api)) {
		int error = errno;

		close(uffd);
		return -error;
	}
	return uffd;
}

int hgm_try_register(int uffd, void *at, size_t length, uint64_t mode)
{
	struct uffdio_register registration = { .range = { .start = (uintptr_t)at, .len = length }, .mode = mode };

	return ioctl(uffd, UFFDIO_REGISTER, &registration) ? errno : 0;
}

int hgm_uffd_continue(int uffd, const void *at, size_t length, long long *mapped)
{
	struct uffdio_continue request = { .range = { .start = (uintptr_t)at, .len = length } };
	int error = ioctl(uffd, UFFDIO_CONTINUE, &request) ? errno : 0;

	if (mapped)
		*mapped = request.mapped;
	return error;
}
