// SPDX-License-Identifier: MIT
/* What a fault on a hole does: its message, its waiters, and what is mapped when there is no pager. */
#include "hgm.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/param.h>
#include <sys/timerfd.h>
#include <time.h>

/* A read at `offset` waits; returns the address in its message and lets it go on with a CONTINUE of the whole page. */
static uint64_t address_of_fault(struct hgm_area *area, size_t offset)
{
	struct hgm_reader reader;
	struct uffd_msg message;

	hgm_reader_start(&reader, area->primary + offset);
	message = hgm_message(area);
	EXPECT_EQ(message.arg.pagefault.flags, UFFD_PAGEFAULT_FLAG_MINOR);
	hgm_continue(area, offset - offset % hgm_huge, hgm_huge);
	EXPECT_EQ(hgm_reader_join(&reader), *(uint64_t *)(area->alias + offset));
	hgm_expect_no_message(area);
	return message.arg.pagefault.address;
}

STOCK_CASE(message_rounded, "without UFFD_FEATURE_EXACT_ADDRESS a minor fault's message has the huge page's address, "
	   "so old programs see no difference [fs/userfaultfd.c:userfault_msg]")
{
	struct hgm_area area;
	size_t offset = hgm_huge + 5 * hgm_base + 24;

	hgm_area_open(&area, 2, HGM_MESSAGES | HGM_ROUNDED);
	EXPECT_EQ(address_of_fault(&area, offset), (uintptr_t)area.primary + hgm_huge);
	hgm_expect_pieces(&area);
}

STOCK_CASE(message_exact, "with UFFD_FEATURE_EXACT_ADDRESS a minor fault's message has the very address that was "
	   "touched [fs/userfaultfd.c:userfault_msg]")
{
	struct hgm_area area;
	size_t offset = hgm_huge + 5 * hgm_base + 24;

	hgm_area_open(&area, 2, HGM_MESSAGES);
	EXPECT_EQ(address_of_fault(&area, offset), (uintptr_t)area.primary + offset);
	hgm_expect_pieces(&area);
}

STOCK_CASE(sigbus, "with UFFD_FEATURE_SIGBUS a fault on a missing mapping raises SIGBUS at the address touched, and a "
	   "mapped page does not [mm/hugetlb.c:hugetlb_no_page, fs/userfaultfd.c:handle_userfault]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_expect_holes(&area);
	hgm_continue(&area, hgm_huge, hgm_huge);
	hgm_expect_holes(&area);
	hgm_expect_pieces(&area);
}

HGM_CASE(hole_message, "a hole beside mapped pieces sends one message with the address touched, and its CONTINUE "
	 "maps one base page and wakes the reader [RFC v1 patches 14 and 20]")
{
	struct hgm_area area;
	const size_t holes[] = { 0, 2, hgm_huge / hgm_base / 2, hgm_huge / hgm_base - 1 };

	hgm_area_open(&area, 1, HGM_MESSAGES);
	hgm_continue(&area, hgm_base, hgm_base);
	for (size_t i = 0; i < sizeof(holes) / sizeof(*holes); i++) {
		size_t offset = holes[i] * hgm_base;
		struct hgm_reader reader;
		struct uffd_msg message;

		hgm_reader_start(&reader, area.primary + offset + 8 * i);
		message = hgm_message(&area);
		EXPECT_EQ(message.arg.pagefault.address, (uintptr_t)area.primary + offset + 8 * i);
		EXPECT_EQ(message.arg.pagefault.flags, UFFD_PAGEFAULT_FLAG_MINOR);
		/* The reader waits; nothing may be mapped for it yet. */
		hgm_expect_pieces(&area);
		hgm_continue(&area, offset, hgm_base);
		EXPECT_EQ(hgm_reader_join(&reader), *(uint64_t *)(area.alias + offset + 8 * i));
		hgm_expect_no_message(&area);
		hgm_expect_pieces(&area);
		hgm_expect_mapcount(&area, 1);
	}
}

/* RFC v2 gives pieces only to who asks for exact addresses as well. */
static void need_rounded_addresses(void)
{
	if (hgm_dialect() == HGM_RFC2)
		hgm_skip("not applicable: this version wants exact addresses");
}

HGM_CASE(hole_message_rounded, "without UFFD_FEATURE_EXACT_ADDRESS the message for a hole beside mapped pieces has the "
	 "base page's address, or else nobody could tell which piece is missed [PATCH v1 and v2: minor faults; RFC v1 as "
	 "posted has the huge page's, which patches/reference mends]")
{
	struct hgm_area area;
	struct hgm_reader reader;
	struct uffd_msg message;
	size_t offset = 5 * hgm_base;

	need_rounded_addresses();
	hgm_area_open(&area, 1, HGM_MESSAGES | HGM_ROUNDED);
	hgm_continue(&area, hgm_base, hgm_base);
	hgm_reader_start(&reader, area.primary + offset + 24);
	message = hgm_message(&area);
	EXPECT_EQ(message.arg.pagefault.address, (uintptr_t)area.primary + offset);
	EXPECT_EQ(message.arg.pagefault.flags, UFFD_PAGEFAULT_FLAG_MINOR);
	hgm_continue(&area, offset, hgm_base);
	EXPECT_EQ(hgm_reader_join(&reader), *(uint64_t *)(area.alias + offset + 24));
	hgm_expect_no_message(&area);
	hgm_expect_pieces(&area);
}

HGM_CASE(neighbour_stays_asleep, "a CONTINUE beside the piece that a reader waits for does not let it read "
	 "[RFC v1 patch 20: each piece is waited for by itself]")
{
	struct hgm_area area;
	struct hgm_reader reader;
	struct uffd_msg message;

	hgm_area_open(&area, 1, HGM_MESSAGES);
	hgm_reader_start(&reader, area.primary + 8 * hgm_base);
	message = hgm_message(&area);
	EXPECT_EQ(message.arg.pagefault.address, (uintptr_t)area.primary + 8 * hgm_base);
	hgm_continue(&area, 7 * hgm_base, hgm_base);
	hgm_continue(&area, 9 * hgm_base, hgm_base);
	/* Whether the kernel woke it and it fell asleep again or not: it has read nothing, and 8 is a hole. */
	hgm_expect_pieces(&area);
	EXPECT_EQ(reader.value, 0);
	hgm_continue(&area, 8 * hgm_base, hgm_base);
	EXPECT_EQ(hgm_reader_join(&reader), hgm_tag(8));
	hgm_expect_pieces(&area);
}

/* A reader who has not read for so many seconds after the piece was mapped is asleep, and will be for ever. */
enum { ASLEEP_S = 30 };
enum { READERS = 8, WAKE_ROUNDS = 400, RACE_ROUNDS = 2000, OVERLAP_ROUNDS = 200 };

/* Each round ends with nothing mapped: the whole huge page is dropped, of which these two pieces were mapped. */
static void drop_page(struct hgm_area *area, size_t one, size_t other)
{
	EXPECT_EQ(CHECKED(madvise(area->primary, hgm_huge, MADV_DONTNEED)), 0);
	hgm_now_empty(area, one, hgm_base);
	hgm_now_empty(area, other, hgm_base);
}

struct crowd {
	struct hgm_area *area;
	pthread_barrier_t barrier;
	size_t offset;
	int reads; /* of all readers in all rounds */
};

static void *read_each_round(void *argument)
{
	struct crowd *crowd = argument;

	for (int round = 0; round < WAKE_ROUNDS; round++) {
		pthread_barrier_wait(&crowd->barrier);
		if (*(volatile uint64_t *)(crowd->area->primary + crowd->offset) != hgm_tag(crowd->offset / hgm_base))
			HGM_FAIL("round %d: a reader saw what is not the tag of its base page", round);
		__atomic_add_fetch(&crowd->reads, 1, __ATOMIC_SEQ_CST);
		pthread_barrier_wait(&crowd->barrier);
	}
	return NULL;
}

static void expect_all_have_read(struct crowd *crowd, int round)
{
	const int patience = hgm_patience(ASLEEP_S);
	struct timespec start, now;
	int awake;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while ((awake = __atomic_load_n(&crowd->reads, __ATOMIC_SEQ_CST) - round * READERS) < READERS) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > patience)
			HGM_FAIL("round %d: %d of %d readers are still asleep %d s after base page %zu was mapped", round,
				 READERS - awake, READERS, patience, crowd->offset / hgm_base);
		sched_yield();
	}
}

/* In each round all readers touch one piece that is missing, and it is mapped at about the same time. */
static void wake_readers(unsigned flags, bool neighbour)
{
	struct hgm_area area;
	struct crowd crowd = { .area = &area };
	pthread_t readers[READERS];

	hgm_area_open(&area, 1, flags);
	pthread_barrier_init(&crowd.barrier, NULL, READERS + 1);
	for (int i = 0; i < READERS; i++)
		hgm_thread_start(&readers[i], read_each_round, &crowd);
	for (int round = 0; round < WAKE_ROUNDS; round++) {
		crowd.offset = (1 + hgm_random(hgm_huge / hgm_base - 1)) * hgm_base;
		if (neighbour)
			hgm_continue(&area, 0, hgm_base);
		pthread_barrier_wait(&crowd.barrier);
		for (size_t turns = hgm_random(READERS); turns; turns--)
			sched_yield();
		hgm_continue(&area, crowd.offset, hgm_base);
		expect_all_have_read(&crowd, round);
		pthread_barrier_wait(&crowd.barrier);
		drop_page(&area, 0, crowd.offset);
	}
	for (int i = 0; i < READERS; i++)
		hgm_thread_join(readers[i]);
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(no_reader_left_asleep, "many readers of one missing piece against a CONTINUE that waits for no message: all "
	 "of them wake, in hundreds of rounds [Peter Xu on RFC v1 patch 20: a waiter that sleeps for ever]",
	 .deadline_s = 120)
{
	wake_readers(HGM_MESSAGES, true);
}

/* A reader that an interrupt holds up on its way to sleep. */
enum { TIMERS = 256, MEASURED = 16, HELD_UP_ROUNDS = 500 };

struct late_reader {
	struct hgm_area *area;
	size_t offset;
	atomic_int round; /* which may begin */
	atomic_int reads; /* that have come to their end */
	_Atomic uint64_t touched; /* in ticks, just before the read; 0: it has not come to that */
	uint64_t to_sleep; /* ticks from there until it is among those who wait */
	uint64_t lead; /* ticks that it takes to set the timers, and as many again */
	long lead_ns; /* the same */
	int timers[TIMERS];
};

/* Of a counter that is read in no time. The clock may be a HPET (x86_64 without KVM), where each look takes too long. */
static uint64_t ticks(void)
{
#ifdef __x86_64__
	return __builtin_ia32_rdtsc();
#else
	uint64_t count;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
	return count;
#endif
}

static long now_ns(void)
{
	struct timespec now;

	CHECKED(clock_gettime(CLOCK_MONOTONIC, &now));
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void stay_on(int processor)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(processor, &here);
	CHECKED(sched_setaffinity(0, sizeof(here), &here));
}

/* All timers end at one time, in one interrupt of this processor, which takes as long as all their handlers. */
static void hold_up_at(const struct late_reader *late, long when)
{
	struct itimerspec at = { .it_value = { .tv_sec = when / 1000000000, .tv_nsec = when % 1000000000 } };

	for (int i = 0; i < TIMERS; i++)
		CHECKED(timerfd_settime(late->timers[i], TFD_TIMER_ABSTIME, &at, NULL));
}

static void *read_late(void *argument)
{
	struct late_reader *late = argument;

	stay_on(1);
	for (int round = 0; round < HELD_UP_ROUNDS; round++) {
		uint64_t begin;
		long begin_ns;

		while (atomic_load(&late->round) <= round)
			;
		begin_ns = now_ns();
		begin = ticks();
		if (round < MEASURED) {
			hold_up_at(late, begin_ns + 1000000000000L);
			late->lead = 2 * (ticks() - begin);
			late->lead_ns = 2 * (now_ns() - begin_ns);
		} else {
			/* The interrupt comes about when the reader is going to sleep: somewhat before it, or behind it. */
			begin += late->lead - late->to_sleep / 2 - hgm_random(late->to_sleep);
			hold_up_at(late, begin_ns + late->lead_ns);
			while (ticks() < begin)
				;
		}
		atomic_store(&late->touched, ticks());
		if (*(volatile uint64_t *)(late->area->primary + late->offset) != hgm_tag(late->offset / hgm_base))
			HGM_FAIL("round %d: the reader saw what is not the tag of its base page", round);
		atomic_fetch_add(&late->reads, 1);
	}
	return NULL;
}

HGM_CASE(held_up_reader_wakes, "a reader that an interrupt holds up between its fault and its sleep, while a CONTINUE "
	 "that waits for no message fills the hole: it wakes, in hundreds of rounds [fs/userfaultfd.c:"
	 "handle_userfault looks at the hole again once it can be woken]", .deadline_s = 120)
{
	const int patience = hgm_patience(ASLEEP_S);
	struct hgm_area area;
	struct late_reader late = { .area = &area, .to_sleep = UINT64_MAX };
	struct uffd_msg message;
	pthread_t reader;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		hgm_skip("not applicable: one processor");
	hgm_area_open(&area, 1, HGM_MESSAGES);
	for (int i = 0; i < TIMERS; i++)
		late.timers[i] = CHECKED(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
	hgm_thread_start(&reader, read_late, &late);
	stay_on(0);
	for (int round = 0; round < HELD_UP_ROUNDS; round++) {
		uint64_t start;
		long end;

		late.offset = (1 + hgm_random(hgm_huge / hgm_base - 1)) * hgm_base;
		hgm_continue(&area, 0, hgm_base);
		atomic_store(&late.touched, 0);
		atomic_fetch_add(&late.round, 1);
		while (!atomic_load(&late.touched))
			;
		if (round < MEASURED) {
			while (read(area.uffd, &message, sizeof(message)) < 0)
				EXPECT_EQ(errno, EAGAIN);
			late.to_sleep = MIN(late.to_sleep, ticks() - late.touched);
		} else {
			/* While the interrupt lasts, which is longer than the way to sleep. */
			for (start = late.touched + late.to_sleep + hgm_random(2 * late.to_sleep); ticks() < start;)
				;
		}
		hgm_continue(&area, late.offset, hgm_base);
		for (end = now_ns() + patience * 1000000000L; atomic_load(&late.reads) <= round; sched_yield())
			if (now_ns() > end)
				HGM_FAIL("round %d: the reader is still asleep %d s after base page %zu was mapped", round,
					 patience, late.offset / hgm_base);
		drop_page(&area, 0, late.offset);
	}
	hgm_thread_join(reader);
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(rounded_readers_wake, "without UFFD_FEATURE_EXACT_ADDRESS readers of one piece of a page of which nothing is "
	 "mapped are woken by a CONTINUE of that piece, which waits for no message [fs/userfaultfd.c:"
	 "userfaultfd_wake_function goes by the address in the message, that of the huge page]", .deadline_s = 120)
{
	need_rounded_addresses();
	wake_readers(HGM_MESSAGES | HGM_ROUNDED, false);
}

static void *continue_each_round(void *argument)
{
	struct crowd *crowd = argument;

	for (int round = 0; round < RACE_ROUNDS; round++) {
		int error;

		pthread_barrier_wait(&crowd->barrier);
		error = hgm_try_continue(crowd->area, crowd->offset, hgm_base, NULL);
		if (error)
			HGM_FAIL("round %d: CONTINUE of a piece of its own: %s", round, strerror(error));
		pthread_barrier_wait(&crowd->barrier);
	}
	return NULL;
}

HGM_CASE(two_threads_one_page, "two threads map the first two pieces of one huge page at once, thousands of rounds: "
	 "the mapcount is that of both each time, and that of none in between [Peter Xu on RFC v1: first mapping "
	 "decided outside the lock]", .deadline_s = 120)
{
	struct hgm_area area;
	struct crowd crowd = { .area = &area, .offset = hgm_huge - hgm_base };
	size_t mine = hgm_base;
	unsigned share = 0;
	pthread_t other;

	hgm_area_open(&area, 1, 0);
	pthread_barrier_init(&crowd.barrier, NULL, 2);
	hgm_thread_start(&other, continue_each_round, &crowd);
	for (int round = 0; round < RACE_ROUNDS; round++) {
		pthread_barrier_wait(&crowd.barrier);
		hgm_continue(&area, mine, hgm_base);
		pthread_barrier_wait(&crowd.barrier);
		area.leaf[crowd.offset / hgm_base] = hgm_base;
		if (!share)
			share = hgm_mapcount_share(&area, 0, 1);
		EXPECT_EQ(hgm_kpagecount(area.head[0] + 1), 1 + share);
		drop_page(&area, mine, crowd.offset);
		EXPECT_EQ(hgm_kpagecount(area.head[0]), 1);
	}
	hgm_thread_join(other);
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

/* A CONTINUE of `length` bytes at `offset` in each round, by a thread of its own. */
struct contender {
	struct crowd *crowd;
	size_t length;
	int error;
};

static void *contend(void *argument)
{
	struct contender *contender = argument;
	struct crowd *crowd = contender->crowd;

	for (int round = 0; round < OVERLAP_ROUNDS; round++) {
		pthread_barrier_wait(&crowd->barrier);
		contender->error = hgm_try_continue(crowd->area, crowd->offset, contender->length, NULL);
		pthread_barrier_wait(&crowd->barrier);
	}
	return NULL;
}

HGM_CASE(overlapping_sizes, "a CONTINUE of a large piece and one of a base page inside it at once: one of them maps, the "
	 "other says EEXIST, at every size, contiguous ones too, and the page counts once [RFC v1 patches 20 and 24]",
	 .deadline_s = 180)
{
	const size_t *sizes = hgm_piece_sizes();

	for (size_t size = hgm_huge, next = 0; size > hgm_base; size = sizes[next++]) {
		struct hgm_area area;
		struct crowd crowd = { .area = &area };
		struct contender large = { .crowd = &crowd, .length = size };
		pthread_t other;

		hgm_area_open(&area, 1, 0);
		pthread_barrier_init(&crowd.barrier, NULL, 2);
		hgm_thread_start(&other, contend, &large);
		for (int round = 0; round < OVERLAP_ROUNDS; round++) {
			size_t inside;
			int error;

			crowd.offset = hgm_random(hgm_huge / size) * size;
			inside = crowd.offset + hgm_random(size / hgm_base) * hgm_base;
			pthread_barrier_wait(&crowd.barrier);
			error = hgm_try_continue(&area, inside, hgm_base, NULL);
			pthread_barrier_wait(&crowd.barrier);
			EXPECT_ERRNO(error ? error : large.error, EEXIST);
			EXPECT_ERRNO(error ? large.error : error, 0);
			EXPECT_EQ(hgm_present(area.primary + crowd.offset, size), error ? size / hgm_base : 1);
			EXPECT_EQ(hgm_pfn(area.primary + inside), area.head[0] + inside / hgm_base);
			EXPECT_EQ(hgm_kpagecount(area.head[0] + inside / hgm_base), 2);
			EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED)), 0);
		}
		hgm_thread_join(other);
		hgm_expect_pieces(&area);
		hgm_expect_mapcount(&area, 1);
		hgm_area_close(&area);
	}
}

HGM_CASE(fault_without_pager, "once the mapping is unregistered a fault fills a hole with the size of the empty "
	 "entry it meets, no more and no less [RFC v1 patch 14]")
{
	struct hgm_area area;
	struct uffdio_range range;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, hgm_base, hgm_base);
	range = (struct uffdio_range){ .start = (uintptr_t)area.primary, .len = area.length };
	EXPECT_EQ(CHECKED(ioctl(area.uffd, UFFDIO_UNREGISTER, &range)), 0);
	hgm_expect_shape(&area);
	/* A hole in the lowest table, one in each table above, then an entry of the huge page's own level. */
	const size_t touched[] = { 4 * hgm_base, hgm_huge - hgm_base, hgm_huge / 2, hgm_huge + 7 * hgm_base };
	for (size_t i = 0; i < sizeof(touched) / sizeof(*touched); i++) {
		hgm_expect_tag(area.primary + touched[i], touched[i] / hgm_base);
		if (!area.leaf[touched[i] / hgm_base])
			hgm_now_faulted(&area, touched[i]);
		hgm_expect_shape(&area);
	}
}
