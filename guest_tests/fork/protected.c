// SPDX-License-Identifier: MIT
/* Where fork does copy the tables of shared huge pages: a child that keeps userfaultfd's write protection. */
#include "hgm.h"

#include <poll.h>
#include <sys/ioctl.h>

#define WP_HUGETLBFS (1 << 12) /* UFFD_FEATURE_WP_HUGETLBFS_SHMEM, Linux 5.19 */

/* Reads the one fork event, which fork() waits for, and keeps the child's descriptor open. */
static void *read_fork_event(void *argument)
{
	const struct hgm_area *area = argument;
	struct pollfd ready = { .fd = area->uffd, .events = POLLIN };
	struct uffd_msg message;

	EXPECT_EQ(CHECKED(poll(&ready, 1, hgm_patience(40) * 1000)), 1);
	EXPECT_EQ(CHECKED(read(area->uffd, &message, sizeof(message))), sizeof(message));
	EXPECT_EQ(message.event, UFFD_EVENT_FORK);
	return (void *)(uintptr_t)message.arg.fork.ufd;
}

/* The primary registered for write protection and minor faults, by a userfaultfd that follows forks. */
static void open_protected(struct hgm_area *area)
{
	struct uffdio_range range;
	int error;

	if (!(hgm_uffd_features() & WP_HUGETLBFS))
		hgm_skip("not applicable: kernel has no write protection of hugetlb");
	hgm_area_open(area, 2, 0);
	range = (struct uffdio_range){ .start = (uintptr_t)area->primary, .len = area->length };
	CHECKED(ioctl(area->uffd, UFFDIO_UNREGISTER, &range));
	close(area->uffd);
	area->uffd = hgm_uffd(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EXACT_ADDRESS);
	if (area->uffd < 0)
		HGM_FAIL("UFFDIO_API with UFFD_FEATURE_EVENT_FORK: %s", strerror(-area->uffd));
	error = hgm_try_register(area->uffd, area->primary, area->length,
				 UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MINOR);
	if (error)
		HGM_FAIL("UFFDIO_REGISTER for write protection and minor faults: %s", strerror(error));
}

/* Forks; the child looks at its copy before it touches anything. Its mapping counts like the parent's. */
static void fork_and_compare(struct hgm_area *area, bool copied)
{
	struct hgm_child child;
	pthread_t monitor;

	hgm_thread_start(&monitor, read_fork_event, area);
	if (hgm_fork(&child)) {
		EXPECT_EQ(hgm_present(area->primary, hgm_huge), copied ? hgm_huge / hgm_base : 0);
		EXPECT_EQ(hgm_present(area->primary + hgm_huge, hgm_huge), 0);
		for (size_t i = 0; copied && i < hgm_huge / hgm_base; i++)
			hgm_expect_tag(area->primary + i * hgm_base, i);
		hgm_tell(&child);
		hgm_wait(&child);
		hgm_child_done();
	}
	hgm_wait(&child);
	hgm_thread_join(monitor);
	EXPECT_EQ(hgm_kpagecount(area->head[0] + 3), copied ? 3 : 1);
	hgm_tell(&child);
	hgm_join(&child);
	hgm_expect_mapcount(area, 1);
	hgm_expect_pieces(area);
}

STOCK_CASE(whole_page_is_copied, "with MODE_WP and EVENT_FORK a child starts with a copy of the parent's whole pages, and "
	   "not of what the parent has not mapped [mm/hugetlb.c:copy_hugetlb_page_range]", .arch = "x86_64")
{
	struct hgm_area area;

	open_protected(&area);
	hgm_continue(&area, 0, hgm_huge);
	fork_and_compare(&area, true);
}

HGM_CASE(pieces_with_protection, "where write protection does not go with pieces, CONTINUE of a piece is refused with "
	 "EINVAL, nothing is mapped, and a fork copies whole pages as before [patches/reference: refused]", .arch = "x86_64")
{
	struct hgm_area area;

	if (hgm_dialect() != HGM_RFC1)
		hgm_skip("not applicable: later versions allow it");
	open_protected(&area);
	EXPECT_ERRNO(hgm_try_continue(&area, 3 * hgm_base, hgm_base, NULL), EINVAL);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	hgm_continue(&area, 0, hgm_huge);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_huge + hgm_base, hgm_base, NULL), EINVAL);
	fork_and_compare(&area, true);
}

/* UFFDIO_WRITEPROTECT of all of the primary, or the end of it: 0 or errno. */
static int try_protect(const struct hgm_area *area, bool on)
{
	struct uffdio_writeprotect request = { .range = { .start = (uintptr_t)area->primary, .len = area->length },
					       .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	return ioctl(area->uffd, UFFDIO_WRITEPROTECT, &request) ? errno : 0;
}

HGM_CASE(protection_over_pieces, "registering for write protection over a mapping in pieces is refused or leaves the "
	 "pieces as they were; write-protecting them is no crash [patches/reference: EINVAL]", .arch = "x86_64")
{
	struct hgm_area area;
	int error, protected;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	error = hgm_try_register(area.uffd, area.primary, area.length,
				 UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MINOR);
	hgm_note("UFFDIO_REGISTER with MODE_WP over pieces: %s", error ? strerror(error) : "success");
	if (hgm_dialect() == HGM_RFC1)
		EXPECT(error == EINVAL || error == EBUSY);
	hgm_expect_shape(&area);
	/* Of what is not registered for it, write protection is ENOENT (mm/userfaultfd.c:mwriteprotect_range). */
	protected = try_protect(&area, true);
	hgm_note("UFFDIO_WRITEPROTECT of pieces: %s", protected ? strerror(protected) : "success");
	if (error)
		EXPECT_ERRNO(protected, ENOENT);
	hgm_expect_shape(&area);
	if (!protected)
		EXPECT_ERRNO(try_protect(&area, false), 0);
	/* Whatever came of it, each piece can be written to now. */
	EXPECT_ERRNO(hgm_try_store(area.primary + 3 * hgm_base + 16), 0);
	EXPECT_ERRNO(hgm_try_store(area.primary + hgm_huge - hgm_base + 16), 0);
	hgm_expect_shape(&area);
}
