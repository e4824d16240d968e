// SPDX-License-Identifier: MIT
/* MADV_COLLAPSE against one other call at the same time, many rounds: whichever comes first, the end is a known one. */
#include "hgm.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* A second thread that makes its move in each round, at the same time as the case makes its own. */
struct race {
	struct hgm_area *area;
	void (*move)(struct race *race);
	int rounds, round;
	pthread_barrier_t barrier;
	cpu_set_t processors; /* that both may use */
	atomic_ulong met; /* how often one of the two has come to the start of a move */
	pthread_t thread;
	size_t offset; /* of the piece the round is about */
	size_t late, rival_late; /* by how much each of the two comes late in this round: neither is always the first */
	unsigned char *other; /* a second mapping, if the move is about one */
	struct hgm_child child; /* and a second process */
	int error; /* what the move came to */
};

/* Far less than what a move takes, and up to several times that. */
enum { TARRY = 1 << 15 };

static void tarry(size_t turns)
{
	for (volatile size_t turn = 0; turn < turns; turn++)
		;
}

/* Each of the two stays on a processor of its own, if there are two: on one they would take turns, and hardly ever meet. */
static void settle(const struct race *race, int number)
{
	cpu_set_t here;

	number %= CPU_COUNT(&race->processors);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &race->processors) || number--)
			continue;
		CPU_ZERO(&here);
		CPU_SET(cpu, &here);
		CHECKED(sched_setaffinity(0, sizeof(here), &here));
	}
}

/* The start of both moves: who is woken from the barrier is late by more than most moves take, who spins is not. */
static void meet(struct race *race)
{
	unsigned long both;

	pthread_barrier_wait(&race->barrier);
	both = (atomic_fetch_add(&race->met, 1) | 1) + 1;
	for (unsigned int turn = 1; atomic_load(&race->met) < both; turn++)
		if (turn % 1024 == 0)
			sched_yield(); /* both may be on one processor */
}

static void *rival(void *argument)
{
	struct race *race = argument;

	settle(race, 1);
	for (int round = 0; round < race->rounds; round++) {
		meet(race);
		tarry(race->rival_late);
		race->move(race);
		pthread_barrier_wait(&race->barrier);
	}
	return NULL;
}

static void race_start(struct race *race)
{
	CHECKED(sched_getaffinity(0, sizeof(race->processors), &race->processors));
	pthread_barrier_init(&race->barrier, NULL, 2);
	hgm_thread_start(&race->thread, rival, race);
	settle(race, 0);
}

/* Both moves of a round; returns what the collapse of the first huge page came to. */
static int race_round(struct race *race)
{
	int error;

	hgm_at("round %d of %d", ++race->round, race->rounds);
	race->late = hgm_random(TARRY) >> hgm_random(15);
	race->rival_late = hgm_random(TARRY) >> hgm_random(15);
	meet(race);
	tarry(race->late);
	error = hgm_try_collapse(race->area, 0, hgm_huge);
	pthread_barrier_wait(&race->barrier);
	return error;
}

/* The first huge page with its first piece mapped and another one chosen, which is never the first. */
static void map_first_piece(struct race *race)
{
	race->offset = (1 + hgm_random(hgm_huge / hgm_base - 1)) * hgm_base;
	hgm_continue(race->area, 0, hgm_base);
}

/* What can be seen of the first huge page at little cost: a sample of its pieces, their content, and both counters. */
static void expect_page(struct race *race, size_t leaf)
{
	struct hgm_area *area = race->area;
	const size_t sample[] = { 0, race->offset, hgm_huge / 2, hgm_huge - hgm_base };
	size_t mapped = leaf ? hgm_huge : 0;

	for (size_t i = 0; i < sizeof(sample) / sizeof(*sample); i++) {
		uint64_t entry = hgm_pagemap(area->primary + sample[i]);

		EXPECT_EQ(!!(entry & HGM_PM_PRESENT), !!leaf);
		if (leaf)
			hgm_expect_tag(area->primary + sample[i], sample[i] / hgm_base);
	}
	EXPECT_EQ(hgm_status_kb("HugetlbPages") - area->hugetlb_kb, mapped >> 10);
	EXPECT_EQ(hgm_kpagecount(area->head[0] + race->offset / hgm_base), 1 + !!leaf);
	hgm_expect_one_entry(area->primary, leaf);
}

static void drop(struct hgm_area *area)
{
	CHECKED(madvise(area->primary, hgm_huge, MADV_DONTNEED));
	hgm_now_empty(area, 0, hgm_huge);
}

static void move_continue(struct race *race)
{
	race->error = hgm_try_continue(race->area, race->offset, hgm_base, NULL);
}

HGM_CASE(against_continue, "a collapse and a CONTINUE of another piece of the page at once leave one leaf that counts "
	 "once; the CONTINUE has mapped, or finds the place mapped [RFC v1 patches 18 and 20]", .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_continue, .rounds = 1000 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		if (race.error && race.error != EEXIST)
			HGM_FAIL("CONTINUE: expected success or EEXIST, saw %s", strerror(race.error));
		expect_page(&race, hgm_huge);
		drop(&area);
	}
	hgm_thread_join(race.thread);
	expect_page(&race, 0);
}

static void move_dontneed(struct race *race)
{
	race->error = madvise(race->area->primary, hgm_huge, MADV_DONTNEED) ? errno : 0;
}

HGM_CASE(against_dontneed, "a collapse and MADV_DONTNEED of the page at once leave nothing mapped and nothing counted, "
	 "for a collapse maps nothing where nothing is [RFC v1 patch 18; mm/hugetlb.c:zap_hugepage_range]",
	 .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_dontneed, .rounds = 1000 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		EXPECT_ERRNO(race.error, 0);
		hgm_now_empty(&area, 0, hgm_huge);
		expect_page(&race, 0);
	}
	hgm_thread_join(race.thread);
}

static void move_munmap(struct race *race)
{
	race->error = munmap(race->area->primary, hgm_huge) ? errno : 0;
}

HGM_CASE(against_munmap, "a collapse while the mapping goes away ends with success or ENOMEM, and nothing stays counted "
	 "[mm/madvise.c:madvise_walk_vmas]", .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_munmap, .rounds = 500 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		int error;

		map_first_piece(&race);
		error = race_round(&race);
		if (error && error != ENOMEM)
			HGM_FAIL("COLLAPSE: expected success or ENOMEM, saw %s", strerror(error));
		EXPECT_ERRNO(race.error, 0);
		hgm_now_empty(&area, 0, hgm_huge);
		EXPECT_EQ(hgm_kpagecount(area.head[0]), 1);
		EXPECT_EQ(hgm_status_kb("HugetlbPages"), area.hugetlb_kb);
		hgm_area_remap(&area);
	}
	hgm_thread_join(race.thread);
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

static void move_collapse(struct race *race)
{
	race->error = hgm_try_collapse(race->area, 0, hgm_huge);
}

HGM_CASE(against_collapse, "two collapses of one page at once leave one leaf that counts once: the second finds "
	 "nothing to do [RFC v1 patch 18]", .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_collapse, .rounds = 500 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		EXPECT_ERRNO(race.error, 0);
		expect_page(&race, hgm_huge);
		drop(&area);
	}
	hgm_thread_join(race.thread);
	expect_page(&race, 0);
}

static void move_unmap_other(struct race *race)
{
	race->error = munmap(race->other, hgm_huge) ? errno : 0;
}

HGM_CASE(against_munmap_elsewhere, "a collapse while another mapping of the page goes away: one leaf that counts once "
	 "is left [RFC v1 cover: each VMA counts for itself]", .deadline_s = 120)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_unmap_other, .rounds = 500 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		race.other = hgm_map(area.fd, 0, hgm_huge, MAP_SHARED);
		hgm_expect_tag(race.other + race.offset, race.offset / hgm_base);
		EXPECT_ERRNO(race_round(&race), 0);
		EXPECT_ERRNO(race.error, 0);
		expect_page(&race, hgm_huge);
		drop(&area);
	}
	hgm_thread_join(race.thread);
	expect_page(&race, 0);
}

static void move_end_child(struct race *race)
{
	hgm_tell(&race->child);
	hgm_join(&race->child);
}

HGM_CASE(against_exit, "a collapse while another process that maps the page exits: what it had mapped counts no more, "
	 "and one leaf that counts once is left [mm/hugetlb.c:__unmap_hugepage_range_final]", .deadline_s = 240)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_end_child, .rounds = 100 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		if (hgm_fork(&race.child)) {
			/* Without a pager: both of its mappings are filled with the whole page. */
			hgm_expect_tag(area.alias, 0);
			hgm_expect_tag(area.primary + race.offset, race.offset / hgm_base);
			hgm_tell(&race.child);
			hgm_wait(&race.child);
			hgm_child_done();
		}
		hgm_wait(&race.child);
		EXPECT_EQ(hgm_kpagecount(area.head[0]), 3 + hgm_mapcount_share(&area, 0, 0));
		EXPECT_ERRNO(race_round(&race), 0);
		expect_page(&race, hgm_huge);
		drop(&area);
	}
	hgm_thread_join(race.thread);
	expect_page(&race, 0);
}

/* Races collapses against a move that takes the page out of the file, and gives the file a new one after each round. */
static void race_for_the_page(void (*move)(struct race *race))
{
	struct hgm_area area;
	/* Each round clears a new huge page. */
	struct race race = { .area = &area, .move = move, .rounds = hgm_huge > 1 << 28 ? 4 : 300 };
	long free_before;

	hgm_area_open(&area, 1, 0);
	free_before = hgm_pool("free");
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		uint64_t old = area.head[0];

		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		EXPECT_ERRNO(race.error, 0);
		hgm_now_empty(&area, 0, hgm_huge);
		EXPECT_EQ(hgm_present(area.primary, hgm_huge) + hgm_present(area.alias, hgm_huge), 0);
		hgm_expect_one_entry(area.primary, false);
		EXPECT_EQ(hgm_status_kb("HugetlbPages"), area.hugetlb_kb - (long)(hgm_huge >> 10));
		EXPECT_EQ(hgm_kpagecount(old), 0);
		EXPECT_EQ(hgm_pool("free"), free_before + 1);
		CHECKED(ftruncate(area.fd, area.length));
		/* A new page for the next round: the file's first touch after the hole. */
		EXPECT_EQ(*(volatile uint64_t *)area.alias, 0);
		area.head[0] = hgm_pfn(area.alias);
	}
	hgm_thread_join(race.thread);
	EXPECT_EQ(hgm_kpagecount(area.head[0]), 1);
}

static void move_punch(struct race *race)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	race->error = fallocate(race->area->fd, mode, 0, hgm_huge) ? errno : 0;
}

HGM_CASE(against_punch, "a collapse while its page is punched out of the file leaves the page unmapped everywhere and "
	 "back in the pool: a collapse holds the page lock, or finds no page [fs/hugetlbfs/inode.c:remove_inode_hugepages]",
	 .deadline_s = 180)
{
	race_for_the_page(move_punch);
}

static void move_truncate(struct race *race)
{
	race->error = ftruncate(race->area->fd, 0) ? errno : 0;
}

HGM_CASE(against_truncate, "a collapse while the file is truncated leaves the page unmapped everywhere and back in "
	 "the pool [fs/hugetlbfs/inode.c:hugetlb_vmtruncate, remove_inode_hugepages]", .deadline_s = 180)
{
	race_for_the_page(move_truncate);
}

static void move_fork(struct race *race)
{
	struct hgm_child child;

	if (hgm_fork(&child)) {
		hgm_expect_tag(race->area->primary + race->offset, race->offset / hgm_base);
		hgm_child_done();
	}
	hgm_join(&child);
}

HGM_CASE(against_fork, "a collapse while the process forks: the child reads the right piece, the parent has one leaf, "
	 "and after the child only the parent counts [mm/memory.c:vma_needs_copy]", .deadline_s = 240)
{
	struct hgm_area area;
	struct race race = { .area = &area, .move = move_fork, .rounds = 60 };

	hgm_area_open(&area, 1, 0);
	race_start(&race);
	for (int round = 0; round < race.rounds; round++) {
		map_first_piece(&race);
		EXPECT_ERRNO(race_round(&race), 0);
		expect_page(&race, hgm_huge);
		drop(&area);
	}
	hgm_thread_join(race.thread);
}

/* Maps pieces of each huge page of the file in a mapping of its own, collapses them and drops them, until it is killed. */
_Noreturn static void collapse_for_ever(const struct hgm_area *area, const struct hgm_child *parent)
{
	struct hgm_area own = *area;

	own.uffd = hgm_uffd_for_pieces(UFFD_FEATURE_SIGBUS);
	own.primary = hgm_map(area->fd, 0, area->length, MAP_SHARED);
	hgm_register_for_pieces(own.uffd, own.primary, own.length);
	for (bool told = false;; told = true) {
		for (size_t page = 0; page < own.pages; page++)
			hgm_continue(&own, page * hgm_huge, hgm_base);
		if (!told)
			hgm_tell(parent);
		EXPECT_ERRNO(hgm_try_collapse(&own, 0, own.length), 0);
		CHECKED(madvise(own.primary, own.length, MADV_DONTNEED));
		hgm_now_empty(&own, 0, own.length);
	}
}

static void *collapse_each(void *argument)
{
	struct hgm_area *area = argument;

	for (size_t page = 0; page < area->pages; page++) {
		hgm_continue(area, page * hgm_huge + hgm_base, hgm_base);
		hgm_collapse(area, page * hgm_huge, hgm_huge);
	}
	return NULL;
}

HGM_CASE(killed, "a process that is killed in the midst of a collapse leaves nothing locked: others map, collapse and drop "
	 "the same pages after it [mm/hugetlb.c:hugetlb_fault_mutex_table is for all processes]", .deadline_s = 120)
{
	struct hgm_area area;
	size_t pages = hgm_pool("free") < 8 ? 1 : 8;

	hgm_area_open(&area, pages, 0);
	for (int round = 0; round < 40; round++) {
		struct hgm_child child;
		pthread_t next;
		int status;

		hgm_at("round %d", round);
		if (hgm_fork(&child))
			collapse_for_ever(&area, &child);
		hgm_wait(&child);
		/* At any moment of what it does. */
		usleep(hgm_random(2000));
		CHECKED(kill(child.pid, SIGKILL));
		CHECKED(waitpid(child.pid, &status, 0));
		EXPECT(WIFSIGNALED(status));
		close(child.channel);
		/* In a thread, as one that meets a lock nobody gives back can only be watched. */
		hgm_thread_start(&next, collapse_each, &area);
		hgm_thread_join(next);
		hgm_expect_mapcount(&area, 1);
		CHECKED(madvise(area.primary, area.length, MADV_DONTNEED));
		hgm_now_empty(&area, 0, area.length);
	}
	hgm_expect_pieces(&area);
}

/* Somebody who uses one piece over and over while the pieces around it are collapsed, in a thread of its own. */
struct user {
	void (*turn)(struct user *user);
	struct hgm_area *area;
	size_t offset;
	volatile bool done;
	volatile unsigned long turns;
	pthread_t thread;
};

/* A number goes into the second word of the piece, and must be seen through the other mapping. */
static void write_once(struct user *user)
{
	volatile uint64_t *here = (uint64_t *)(user->area->primary + user->offset) + 1;
	volatile uint64_t *there = (uint64_t *)(user->area->alias + user->offset) + 1;

	*here = user->turns + 1;
	if (*there != user->turns + 1)
		HGM_FAIL("write %lu to base page %zu: saw %llu through the other mapping", user->turns + 1,
			 user->offset / hgm_base, (unsigned long long)*there);
}

static void read_once(struct user *user)
{
	hgm_expect_tag(user->area->primary + user->offset, user->offset / hgm_base);
}

/*
 * The walkers of page tables: GUP must find the piece; the others, whom a collapse need not keep out, may see none for a
 * moment, but no other page and no more than the huge page.
 */
static void walk_once(struct user *user)
{
	size_t piece = user->offset / hgm_base;
	unsigned char *at = user->area->primary + user->offset, in_core[2] = { 0x55, 0x55 };
	uint64_t word = 0, entry = hgm_pagemap(at);
	struct iovec here = { &word, sizeof(word) }, there = { at, sizeof(word) };
	long kb;

	if (entry & HGM_PM_PRESENT)
		EXPECT_EQ(entry & HGM_PM_PFN, user->area->head[0] + piece);
	EXPECT_EQ(CHECKED(mincore(at, hgm_base, in_core)), 0);
	if (in_core[0] > 1 || in_core[1] != 0x55)
		HGM_FAIL("mincore of one base page: expected 0 or 1 and no byte beyond, saw 0x%x and 0x%x", in_core[0],
			 in_core[1]);
	EXPECT_EQ(CHECKED(process_vm_readv(getpid(), &here, 1, &there, 1, 0)), sizeof(word));
	EXPECT_EQ(word, hgm_tag(piece));
	/* The alias lies right before the primary, and nobody touches how it is mapped. */
	kb = hgm_smaps_kb(user->area->alias, 2 * user->area->length) - (long)(hgm_huge >> 10);
	if (kb < 0 || kb > (long)(hgm_huge >> 10))
		HGM_FAIL("smaps: expected all of the alias and 0 to %zu kB of the primary, saw %ld kB more than the alias",
			 hgm_huge >> 10, kb);
}

/* A word that processes share is found by GUP without locks, for as long as it is there (kernel/futex/core.c). */
static void futex_once(struct user *user)
{
	unsigned char *word = user->area->primary + user->offset;

	for (int turn = 0; turn < 100; turn++)
		EXPECT_EQ(CHECKED(syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0)), 0);
}

static void *use(void *argument)
{
	struct user *user = argument;

	while (!user->done) {
		user->turn(user);
		user->turns++;
	}
	return NULL;
}

/*
 * In each round one piece is mapped and used by all, and collapsed around, from the second smallest size up to the huge
 * page; each collapse comes after everybody has had a turn since the one before.
 */
static void collapse_around(void (*const *turns)(struct user *user), size_t count, int rounds)
{
	struct hgm_area area;
	const size_t *sizes = hgm_piece_sizes();
	size_t near = hgm_huge / hgm_base < 512 ? hgm_huge / hgm_base : 512;

	hgm_area_open(&area, 1, 0);
	for (int round = 0; round < rounds; round++) {
		size_t offset = hgm_random(near) * hgm_base, left = 0;
		uint64_t *second_word = (uint64_t *)(area.alias + offset) + 1;
		struct user users[4] = { 0 };

		hgm_at("round %d of %d", round + 1, rounds);
		hgm_continue(&area, offset, hgm_base);
		for (size_t i = 0; i < count; i++) {
			users[i] = (struct user){ .turn = turns[i], .area = &area, .offset = offset };
			hgm_thread_start(&users[i].thread, use, &users[i]);
		}
		while (sizes[left])
			left++;
		while (left--) {
			size_t step = left ? sizes[left - 1] : hgm_huge;

			for (size_t i = 0; i < count; i++)
				for (unsigned long seen = users[i].turns; users[i].turns == seen; )
					sched_yield();
			hgm_collapse(&area, offset - offset % step, step);
			hgm_expect_tables(&area);
		}
		for (size_t i = 0; i < count; i++) {
			users[i].done = true;
			hgm_thread_join(users[i].thread);
			if (users[i].turn == write_once)
				EXPECT_EQ(*second_word, users[i].turns);
		}
		*second_word = 0;
		EXPECT_EQ(hgm_pfn(area.primary + offset), area.head[0] + offset / hgm_base);
		EXPECT_EQ(hgm_kpagecount(area.head[0]), 1 + hgm_mapcount_share(&area, 0, offset / hgm_base));
		drop(&area);
	}
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(against_writers, "a writer to a mapped piece always finds it, and what it writes is seen through the other "
	 "mapping at once, while the pieces around it are collapsed, step by step [PATCH v2 patch 34; the pages stay where "
	 "they are, so a stale translation shows elsewhere only: collapse.c, reaches_former_pieces]", .deadline_s = 180)
{
	void (*const turns[])(struct user *) = { write_once };

	collapse_around(turns, 1, 30);
}

HGM_CASE(against_users, "a writer, a reader and GUP find a mapped piece, and pagemap, mincore and smaps show no other one, "
	 "no more than there is and nothing less of the other mapping, all at once, while the pieces around it are collapsed, "
	 "step by step [Peter Xu on PATCH v1: tables freed under walkers]", .deadline_s = 240)
{
	void (*const turns[])(struct user *) = { write_once, read_once, walk_once };

	collapse_around(turns, 3, 60);
}

HGM_CASE(against_fast_gup, "GUP without locks finds a mapped piece while the pieces around it are collapsed, step by step, "
	 "and walks no page table that is gone [mm/gup.c:lockless_pages_from_mm; asm-generic/tlb.h: freed tables]",
	 .deadline_s = 240)
{
	void (*const turns[])(struct user *) = { futex_once, futex_once, read_once };

	collapse_around(turns, 3, 60);
}
