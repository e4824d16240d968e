// SPDX-License-Identifier: MIT
/* PMD sharing: processes that map the same gigabyte of a file share the table of its 2 MiB entries. */
#include "hgm.h"

#include <sys/ioctl.h>

#define SLOT (1UL << 30) /* what one such table maps, with base pages of 4 KiB */

/* The file with all of a slot in it, at an address of which a table begins; pages come as they are touched. */
static unsigned char *map_slot(int fd)
{
	unsigned char *at = mmap(NULL, 2 * SLOT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		HGM_FAIL("address space of 2 GiB: %s", strerror(errno));
	at += (SLOT - (uintptr_t)at % SLOT) % SLOT;
	if (mmap(at, SLOT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) != at)
		HGM_FAIL("mmap of 1 GiB of huge pages: %s", strerror(errno));
	return at;
}

static int slot_file(void)
{
	int fd;

	/* arm64 shares tables with base pages of 4 KiB only (arch/arm64/Kconfig: ARCH_WANT_HUGE_PMD_SHARE). */
	if (hgm_base != 4096)
		hgm_skip("not applicable: huge pages of 2 MiB are no PMD entries here");
	fd = memfd_create("hgm", MFD_CLOEXEC | MFD_HUGETLB | 21U << MAP_HUGE_SHIFT);
	if (fd < 0 || ftruncate(fd, SLOT))
		HGM_FAIL("a file of 1 GiB: %s", strerror(errno));
	return fd;
}

/* Two words far apart in the second page of the slot. */
static volatile uint64_t *word(unsigned char *slot, int which)
{
	return (volatile uint64_t *)(slot + hgm_huge + (which ? hgm_huge - 8 : 0));
}

/* In a process of its own: map the slot, read what the first process wrote, and stay until told to go. */
static void sharer(struct hgm_child *child, int fd)
{
	unsigned char *slot;

	if (!hgm_fork(child))
		return;
	slot = map_slot(fd);
	EXPECT_EQ(*word(slot, 0), 1);
	*word(slot, 1) = 2;
	hgm_tell(child);
	hgm_wait(child);
	EXPECT_EQ(*word(slot, 0), 1);
	EXPECT_EQ(*word(slot, 1), 2);
	CHECKED(munmap(slot, SLOT));
	hgm_child_done();
}

STOCK_CASE(shared_table_counts_once, "processes that share a PMD table count once for all of them, and one that leaves "
	   "takes nothing from the others [mm/hugetlb.c:huge_pmd_share, huge_pmd_unshare]", .sizes = "2M")
{
	int fd = slot_file();
	unsigned char *slot = map_slot(fd);
	struct hgm_child other;
	uint64_t pfn;

	*word(slot, 0) = 1;
	pfn = hgm_pfn((void *)word(slot, 0));
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
	sharer(&other, fd);
	hgm_wait(&other);
	EXPECT_EQ(*word(slot, 1), 2);
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
	hgm_tell(&other);
	hgm_join(&other);
	EXPECT_EQ(*word(slot, 1), 2);
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
	CHECKED(munmap(slot, SLOT));
	EXPECT_EQ(hgm_kpagecount(pfn), 0);
}

HGM_CASE(pieces_beside_shared_table, "a mapping in pieces beside processes that share a PMD table adds its own count and "
	 "nothing else, and each goes in its turn without harm to the rest [a kernel that skipped unsharing was fatal: RFC "
	 "v1]", .sizes = "2M")
{
	int fd = slot_file(), uffd;
	unsigned char *slot = map_slot(fd), *granular = map_slot(fd);
	struct uffdio_continue piece = { .range = { .len = hgm_base } };
	struct hgm_child other;
	uint64_t pfn;

	if (hgm_dialect() != HGM_RFC1)
		hgm_skip("not applicable: this case opens its own userfaultfd, as RFC v1 takes it");
	*word(slot, 0) = 1;
	pfn = hgm_pfn((void *)word(slot, 0));
	uffd = hgm_uffd(UFFD_FEATURE_SIGBUS);
	EXPECT(uffd >= 0);
	EXPECT_ERRNO(hgm_try_register(uffd, granular, SLOT, UFFDIO_REGISTER_MODE_MINOR), 0);
	sharer(&other, fd);
	hgm_wait(&other);
	piece.range.start = (uintptr_t)granular + 2 * hgm_huge - hgm_base;
	EXPECT_EQ(CHECKED(ioctl(uffd, UFFDIO_CONTINUE, &piece)), 0);
	EXPECT_EQ(*word(granular, 1), 2);
	EXPECT_EQ(hgm_pfn((void *)word(granular, 1)), pfn + 511);
	EXPECT_EQ(hgm_present(granular, 2 * hgm_huge), 1);
	EXPECT_EQ(hgm_kpagecount(pfn), 2);
	/* The table is shared still: one process goes, the count stays. */
	hgm_tell(&other);
	hgm_join(&other);
	EXPECT_EQ(hgm_kpagecount(pfn), 2);
	EXPECT_EQ(*word(slot, 0), 1);
	CHECKED(munmap(slot, SLOT));
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
	EXPECT_EQ(*word(granular, 1), 2);
	CHECKED(munmap(granular, SLOT));
	EXPECT_EQ(hgm_kpagecount(pfn), 0);
	close(uffd);
}
