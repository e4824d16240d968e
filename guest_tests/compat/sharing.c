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

/* A second process shares the table of `slot`; then `slot` is registered, and this process alone must lose the table. */
static void share_and_register(unsigned char *slot, int fd, int uffd, struct hgm_child *other, bool pieces)
{
	uint64_t pfn;

	*word(slot, 0) = 1;
	pfn = hgm_pfn((void *)word(slot, 0));
	sharer(other, fd);
	hgm_wait(other);
	/* One table, one entry: or else this case is about nothing. */
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
	if (pieces)
		hgm_register_for_pieces(uffd, slot, SLOT);
	else
		EXPECT_ERRNO(hgm_try_register(uffd, slot, SLOT, UFFDIO_REGISTER_MODE_MINOR), 0);
	EXPECT_EQ(hgm_present(slot, 4 * hgm_huge), 0);
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
}

static int try_continue(int uffd, void *at, size_t length)
{
	struct uffdio_continue piece = { .range = { .start = (uintptr_t)at, .len = length } };

	return ioctl(uffd, UFFDIO_CONTINUE, &piece) ? errno : 0;
}

STOCK_CASE(registration_unshares, "a process that registers its mapping for minor faults leaves the shared table, with "
	   "nothing mapped, and the others keep it [fs/userfaultfd.c:userfaultfd_register, "
	   "mm/hugetlb.c:hugetlb_unshare_all_pmds]", .sizes = "2M")
{
	int fd = slot_file(), uffd = hgm_uffd(UFFD_FEATURE_SIGBUS);
	unsigned char *slot = map_slot(fd);
	struct hgm_child other;
	uint64_t pfn;

	EXPECT(uffd >= 0);
	share_and_register(slot, fd, uffd, &other, false);
	EXPECT_ERRNO(try_continue(uffd, slot + hgm_huge, hgm_huge), 0);
	pfn = hgm_pfn((void *)word(slot, 0));
	EXPECT_EQ(hgm_kpagecount(pfn), 2);
	EXPECT_EQ(*word(slot, 1), 2);
	hgm_tell(&other);
	hgm_join(&other);
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
	CHECKED(munmap(slot, SLOT));
	EXPECT_EQ(hgm_kpagecount(pfn), 0);
	close(uffd);
}

HGM_CASE(pieces_after_sharing, "a process that has left a shared table maps pieces and collapses them in a table of "
	 "its own: those who share see none of it, and their entries count on [RFC v1 skips unsharing]", .sizes = "2M")
{
	int fd = slot_file(), uffd = hgm_uffd_for_pieces(UFFD_FEATURE_SIGBUS);
	unsigned char *slot = map_slot(fd);
	struct hgm_child other;
	uint64_t pfn;

	share_and_register(slot, fd, uffd, &other, true);
	EXPECT_ERRNO(try_continue(uffd, slot + 2 * hgm_huge - hgm_base, hgm_base), 0);
	EXPECT_EQ(hgm_present(slot, 4 * hgm_huge), 1);
	pfn = hgm_pfn((void *)word(slot, 1)) - (hgm_huge / hgm_base - 1);
	EXPECT_EQ(*word(slot, 1), 2);
	EXPECT_EQ(hgm_kpagecount(pfn + hgm_huge / hgm_base - 1), 2);
	EXPECT_ERRNO(madvise(slot + hgm_huge, hgm_huge, HGM_MADV_COLLAPSE) ? errno : 0, 0);
	EXPECT_EQ(hgm_present(slot, 4 * hgm_huge), hgm_huge / hgm_base);
	hgm_expect_one_entry(slot + hgm_huge, true);
	EXPECT_EQ(*word(slot, 0), 1);
	EXPECT_EQ(hgm_kpagecount(pfn), 2);
	CHECKED(munmap(slot, SLOT));
	EXPECT_EQ(hgm_kpagecount(pfn), 1);
	/* It reads both words before it ends. */
	hgm_tell(&other);
	hgm_join(&other);
	EXPECT_EQ(hgm_kpagecount(pfn), 0);
	close(uffd);
}

HGM_CASE(pieces_beside_shared_table, "a mapping in pieces beside processes that share a PMD table adds its own count and "
	 "nothing else, and each goes in its turn without harm to the rest [a kernel that skipped unsharing was fatal: RFC "
	 "v1]", .sizes = "2M")
{
	int fd = slot_file(), uffd = hgm_uffd_for_pieces(UFFD_FEATURE_SIGBUS);
	unsigned char *slot = map_slot(fd), *granular = map_slot(fd);
	struct hgm_child other;
	uint64_t pfn;

	*word(slot, 0) = 1;
	pfn = hgm_pfn((void *)word(slot, 0));
	hgm_register_for_pieces(uffd, granular, SLOT);
	sharer(&other, fd);
	hgm_wait(&other);
	EXPECT_ERRNO(try_continue(uffd, granular + 2 * hgm_huge - hgm_base, hgm_base), 0);
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

HGM_CASE(table_with_pieces_is_not_shared, "a table with pieces in it is shared with nobody, also once its mapping is no longer "
	 "registered: another process that maps the same has the whole page, and the pieces stay what they were "
	 "[mm/hugetlb.c:huge_pmd_share]", .sizes = "2M")
{
	int fd = slot_file(), uffd = hgm_uffd_for_pieces(UFFD_FEATURE_SIGBUS);
	unsigned char *slot = map_slot(fd);
	struct uffdio_range range = { .start = (uintptr_t)slot, .len = SLOT };
	struct hgm_child other;
	uint64_t pfn;

	*word(slot, 0) = 1;
	pfn = hgm_pfn((void *)word(slot, 0));
	CHECKED(madvise(slot + hgm_huge, hgm_huge, MADV_DONTNEED));
	hgm_register_for_pieces(uffd, slot, SLOT);
	EXPECT_ERRNO(try_continue(uffd, slot + 2 * hgm_huge - hgm_base, hgm_base), 0);
	CHECKED(ioctl(uffd, UFFDIO_UNREGISTER, &range));
	if (hgm_fork(&other)) {
		unsigned char *mine = map_slot(fd);

		EXPECT_EQ(*word(mine, 0), 1);
		EXPECT_EQ(hgm_present(mine + hgm_huge, hgm_huge), hgm_huge / hgm_base);
		hgm_tell(&other);
		hgm_wait(&other);
		hgm_child_done();
	}
	hgm_wait(&other);
	EXPECT_EQ(hgm_present(slot, 4 * hgm_huge), 1);
	EXPECT_EQ(hgm_kpagecount(pfn + 511), 2);
	hgm_tell(&other);
	hgm_join(&other);
	EXPECT_EQ(hgm_present(slot, 4 * hgm_huge), 1);
	EXPECT_EQ(hgm_kpagecount(pfn + 511), 1);
	CHECKED(munmap(slot, SLOT));
	EXPECT_EQ(hgm_kpagecount(pfn), 0);
	close(uffd);
}
