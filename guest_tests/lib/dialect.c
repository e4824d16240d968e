// SPDX-License-Identifier: MIT
/* Which of the posted versions the kernel speaks. */
#include "inside.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

uint64_t hgm_uffd_features(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		FAIL_HERE("userfaultfd: %s", strerror(errno));
	close(uffd);
	return api.features;
}

/* Bit 13 means another thing since Linux 6.4 (WP_UNPOPULATED). */
static bool bit_13_is_hgm(void)
{
	struct utsname system;
	int major, minor;

	if (uname(&system) || sscanf(system.release, "%d.%d", &major, &minor) != 2)
		FAIL_HERE("the kernel's release cannot be read");
	return major < 6 || (major == 6 && minor < 4);
}

/*
 * CONTINUE of one base page of a fresh shared mapping, whose page is not in the page cache. A kernel that maps huge pages
 * only refuses the range before it looks for the page: EINVAL (mm/userfaultfd.c:__mcopy_atomic_hugetlb). One that maps
 * base pages goes on to look: EFAULT. Nothing else is an answer that could be mistaken for "no HGM".
 */
static bool takes_base_pages(uint64_t features, bool split, uint64_t mode, int not_now)
{
	int uffd = hgm_uffd(features | UFFD_FEATURE_SIGBUS);
	int fd = hgm_huge_file(1);
	char *at;
	int error;

	if (uffd < 0)
		FAIL_HERE("probe for HGM: UFFDIO_API with features 0x%llx: %s", (unsigned long long)features,
			  strerror(-uffd));
	at = hgm_map_(fd, 0, hgm_huge, MAP_SHARED | MAP_NORESERVE);
	if (split && madvise(at, hgm_huge, HGM_MADV_SPLIT))
		FAIL_HERE("probe for HGM: MADV_SPLIT worked once and then not: %s", strerror(errno));
	error = hgm_try_register(uffd, at, hgm_huge, mode);
	if (error)
		FAIL_HERE("probe for HGM: UFFDIO_REGISTER: %s", strerror(error));
	if (mode & UFFDIO_REGISTER_MODE_WP) {
		struct uffdio_writeprotect protect = { .range = { .start = (uintptr_t)at, .len = hgm_huge },
						       .mode = UFFDIO_WRITEPROTECT_MODE_WP };

		if (ioctl(uffd, UFFDIO_WRITEPROTECT, &protect))
			FAIL_HERE("probe for HGM: UFFDIO_WRITEPROTECT: %s", strerror(errno));
	}
	error = hgm_uffd_continue(uffd, at, hgm_base, NULL);
	munmap(at, hgm_huge);
	close(fd);
	close(uffd);
	if (error != EFAULT && error != not_now)
		FAIL_HERE("probe for HGM: CONTINUE of a base page that is not in the page cache: expected EFAULT (HGM) "
			  "or %s (none), saw %s", hgm_error_name(not_now), hgm_error_name(error));
	return error == EFAULT;
}

static bool takes_madv_split(void)
{
	int fd = hgm_huge_file(1);
	void *at;
	int error;

	at = hgm_map_(fd, 0, hgm_huge, MAP_SHARED | MAP_NORESERVE);
	error = madvise(at, hgm_huge, HGM_MADV_SPLIT) ? errno : 0;
	munmap(at, hgm_huge);
	close(fd);
	if (error && error != EINVAL)
		FAIL_HERE("probe for HGM: MADV_SPLIT: expected success (HGM) or EINVAL (none), saw %s",
			  hgm_error_name(error));
	return !error;
}

static enum hgm_dialect probe(void)
{
	if (takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS, false, UFFDIO_REGISTER_MODE_MINOR, EINVAL))
		return HGM_RFC1;
	if (takes_madv_split()) {
		if (!takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS, true, UFFDIO_REGISTER_MODE_MINOR, EINVAL))
			FAIL_HERE("probe for HGM: MADV_SPLIT works, yet CONTINUE of a base page is refused");
		/* PATCH v1 takes a write-protect marker for a mapped page: EEXIST. PATCH v2 patch 14 mended that. */
		return takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS, true,
					UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP, EEXIST) ? HGM_V2 : HGM_V1;
	}
	if (hgm_uffd_features() & HGM_FEATURE_MINOR_HUGETLBFS_HGM && bit_13_is_hgm()) {
		if (!takes_base_pages(UFFD_FEATURE_EXACT_ADDRESS | HGM_FEATURE_MINOR_HUGETLBFS_HGM, false,
				      UFFDIO_REGISTER_MODE_MINOR, EINVAL))
			FAIL_HERE("probe for HGM: the kernel has feature bit 13, yet CONTINUE of a base page is refused");
		return HGM_RFC2;
	}
	return HGM_NONE;
}

enum hgm_dialect hgm_dialect(void)
{
	static enum hgm_dialect dialect;
	static bool known;

	if (!known)
		dialect = probe();
	known = true;
	return dialect;
}

void hgm_only_without_hgm(void)
{
	if (hgm_dialect() != HGM_NONE)
		hgm_skip("not applicable: kernel has HGM");
}
