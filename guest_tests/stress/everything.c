// SPDX-License-Identifier: MIT
/* Everything at once, for as long as one cares to wait: left out unless --stress SECONDS asks for it. */
#include "hgm.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define PAGES 2
#define WINDOW 64 /* base pages that a reader of mincore or pagemap asks for at a time */

enum { CONTINUES, COLLAPSES, ZAPS, LOOKS, FORKS, TOUCHES, KINDS };

static const char *const names[KINDS] = { "continue", "collapse", "zap", "look", "fork", "touch" };
static struct hgm_area area;
static atomic_bool over;
static atomic_long done[KINDS], refused[KINDS];
/*
 * Held for reading where a fault may allocate a page, for writing where pages are taken out of the file: without it
 * Linux 6.1 miscounts its reservations when the two race, with whole pages, too (mm/hugetlb.c:hugetlb_no_page against
 * hugetlb_unreserve_pages), and the pool could not be compared at the end.
 */
static pthread_rwlock_t allocation = PTHREAD_RWLOCK_INITIALIZER;

/* ---- accesses that may fail: holes raise SIGBUS, a protected page SIGSEGV ---- */

static __thread sigjmp_buf back;
static __thread volatile bool guarded;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (guarded)
		siglongjmp(back, 1);
	HGM_FAIL("signal %d at %p outside any access that may fail", number, info->si_addr);
}

/* The first word of a base page is its tag, or 0 of a page that is new in the file. */
static void expect_word(size_t base_page, uint64_t seen)
{
	if (seen && seen != hgm_tag(base_page))
		HGM_FAIL("base page %zu: expected its tag 0x%llx or 0, saw 0x%llx", base_page,
			 (unsigned long long)hgm_tag(base_page), (unsigned long long)seen);
}

/* Reads the first word of a base page, or writes its tag to it. */
static void touch(unsigned char *mapping, size_t base_page, bool write)
{
	volatile uint64_t *word = (uint64_t *)(mapping + base_page * hgm_base);
	volatile uint64_t seen = 0;

	if (!sigsetjmp(back, 1)) {
		guarded = true;
		if (write)
			*word = hgm_tag(base_page);
		else
			seen = *word;
	}
	guarded = false;
	expect_word(base_page, seen);
}

/* ---- what goes on at once ---- */

/* A sequence of its own for each thread; the threads' interleaving is what differs from run to run. */
static size_t pick(uint64_t *state, size_t bound)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (*state >> 33) % bound;
}

/* A place of a random size, aligned to it. Of 1 GiB, base pages all lie near its start, so that they meet. */
static size_t place(uint64_t *state, size_t *size)
{
	const size_t *sizes = hgm_piece_sizes();
	size_t count = 0, offset;

	while (sizes[count])
		count++;
	count = pick(state, count + 1);
	*size = count ? sizes[count - 1] : hgm_huge;
	offset = pick(state, area.length / hgm_base) * hgm_base;
	if (*size == hgm_base)
		offset = offset % hgm_huge % (16UL << 20) + offset / hgm_huge * hgm_huge;
	return offset - offset % *size;
}

static void note(int kind, int error)
{
	done[kind]++;
	refused[kind] += !!error;
}

static void *continues(void *seed)
{
	uint64_t state = (uintptr_t)seed;

	while (!over) {
		size_t size, offset = place(&state, &size), length = size * (1 + pick(&state, 3));
		int error;

		if (offset + length > area.length)
			length = size;
		error = hgm_try_continue(&area, offset, length, NULL);
		/* Mapped, not in the file just now, or the file is shorter just now: all may be, nothing else may. */
		if (error && error != EEXIST && error != EFAULT && error != EAGAIN)
			HGM_FAIL("UFFDIO_CONTINUE: %s", strerror(error));
		note(CONTINUES, error);
	}
	return NULL;
}

static void *collapses(void *seed)
{
	uint64_t state = (uintptr_t)seed;

	while (!over) {
		size_t size, offset = place(&state, &size);
		bool all = pick(&state, 8) == 0;

		EXPECT_ERRNO(hgm_try_collapse(&area, all ? 0 : offset, all ? area.length : size), 0);
		note(COLLAPSES, 0);
	}
	return NULL;
}

static void tag_through_alias(void)
{
	for (size_t i = 0; i < area.length / hgm_base; i += pick(&(uint64_t){ i + 1 }, 16) + 1)
		touch(area.alias, i, true);
}

static void *zaps(void *seed)
{
	const struct timespec breath = { .tv_nsec = 1000000 };
	uint64_t state = (uintptr_t)seed;

	while (!over) {
		size_t offset = pick(&state, PAGES) * hgm_huge;

		/* Mostly this one, which leaves the most to do for the others. */
		switch (pick(&state, 8)) {
		default:
			CHECKED(madvise(area.primary + offset, hgm_huge, MADV_DONTNEED));
			break;
		case 1:
			/* The mapping as a whole, for a part would split it, which Linux 6.1 warns of under lockdep. */
			CHECKED(mprotect(area.primary, area.length, PROT_READ));
			CHECKED(mprotect(area.primary, area.length, PROT_READ | PROT_WRITE));
			break;
		case 2:
			pthread_rwlock_wrlock(&allocation);
			CHECKED(fallocate(area.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, hgm_huge));
			tag_through_alias();
			pthread_rwlock_unlock(&allocation);
			break;
		case 3:
			pthread_rwlock_wrlock(&allocation);
			CHECKED(ftruncate(area.fd, offset));
			CHECKED(ftruncate(area.fd, area.length));
			tag_through_alias();
			pthread_rwlock_unlock(&allocation);
			break;
		}
		note(ZAPS, 0);
		/* Breath for the others to map something: the load, not a condition that anything waits for. */
		nanosleep(&breath, NULL);
	}
	return NULL;
}

static void read_all(const char *path)
{
	char text[4096];
	int fd = CHECKED(open(path, O_RDONLY | O_CLOEXEC));

	while (CHECKED(read(fd, text, sizeof(text))) > 0)
		;
	close(fd);
}

static void *looks(void *seed)
{
	const char *const files[] = { "/proc/self/smaps", "/proc/self/numa_maps", "/proc/self/smaps_rollup" };
	uint64_t state = (uintptr_t)seed;
	size_t total = area.length / hgm_base, window = total / 2 < WINDOW ? total / 2 : WINDOW;

	while (!over) {
		size_t offset = pick(&state, total - window) * hgm_base;
		uint64_t entries[WINDOW], word;
		unsigned char present[WINDOW];
		struct iovec here = { &word, sizeof(word) }, there = { area.primary + offset, sizeof(word) };
		void *pages[2] = { area.primary, area.primary + offset };
		int nodes[2] = { pick(&state, 2), pick(&state, 2) }, status[2];
		bool refusal;

		read_all(files[pick(&state, 3)]);
		hgm_pagemap_range(area.primary + offset, window, entries);
		CHECKED(mincore(area.primary + offset, window * hgm_base, present));
		/* These three may refuse: a hole, a page that is mapped in pieces, a machine with one node. */
		refusal = process_vm_readv(getpid(), &here, 1, &there, 1, 0) < 0;
		if (!refusal)
			expect_word(offset / hgm_base, word);
		note(LOOKS, refusal);
		syscall(SYS_move_pages, 0, 2, pages, NULL, status, 0);
		if (pick(&state, 4) == 0)
			syscall(SYS_move_pages, 0, 2, pages, nodes, status, 2 /* MPOL_MF_MOVE */);
	}
	return NULL;
}

static void *forks(void *seed)
{
	uint64_t state = (uintptr_t)seed;

	while (!over) {
		size_t base_page = pick(&state, area.length / hgm_base);
		int status;
		pid_t pid;

		pthread_rwlock_rdlock(&allocation);
		pid = CHECKED(fork());
		if (!pid) {
			/* Without a pager of its own, so its faults are filled with whole pages. */
			touch(area.primary, base_page, false);
			touch(area.primary, base_page % (hgm_huge / hgm_base), true);
			_exit(0);
		}
		CHECKED(waitpid(pid, &status, 0));
		pthread_rwlock_unlock(&allocation);
		EXPECT_EQ(status, 0);
		note(FORKS, 0);
	}
	return NULL;
}

static void *touches(void *seed)
{
	uint64_t state = (uintptr_t)seed;

	while (!over) {
		size_t size, offset = place(&state, &size);

		touch(area.primary, offset / hgm_base, pick(&state, 2));
		note(TOUCHES, 0);
	}
	return NULL;
}

HGM_CASE(everything, "CONTINUE, COLLAPSE, fork, DONTNEED, punch, truncate, mprotect, and readers through procfs, GUP and "
	 "page faults, all at once, see no wrong data and leave a full pool [the rules of RFC v1 under load]")
{
	void *(*const bodies[])(void *) = { continues, continues, continues, collapses, collapses, zaps,
					    looks,     looks,     forks,     touches,   touches };
	enum { THREADS = sizeof(bodies) / sizeof(*bodies) };
	const struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	const char *asked = getenv("HGM_STRESS_SECONDS");
	struct timespec length = { .tv_sec = asked ? atol(asked) : 10 };
	pthread_t threads[THREADS];

	EXPECT(length.tv_sec > 0);
	CHECKED(sigaction(SIGBUS, &action, NULL));
	CHECKED(sigaction(SIGSEGV, &action, NULL));
	hgm_area_open(&area, PAGES, 0);
	/* With MISSING, too, no fault of this process allocates a page of the file. */
	EXPECT_ERRNO(hgm_try_register(area.uffd, area.primary, area.length,
				      UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_MISSING), 0);
	for (int i = 0; i < THREADS; i++)
		hgm_thread_start(&threads[i], bodies[i], (void *)(uintptr_t)(i + 1));
	nanosleep(&length, NULL);
	over = true;
	for (int i = 0; i < THREADS; i++)
		hgm_thread_join(threads[i]);
	for (int kind = 0; kind < KINDS; kind++) {
		hgm_note("%s: %ld, of which %ld were refused", names[kind], done[kind], refused[kind]);
		/* In a short time all looks may have met holes: of 1 GiB only a few places are ever mapped. */
		if (done[kind] <= (kind == LOOKS ? 0 : refused[kind]))
			HGM_FAIL("%s: none has done anything", names[kind]);
	}
	CHECKED(munmap(area.primary, area.length));
	CHECKED(munmap(area.alias, area.length));
	CHECKED(close(area.uffd));
	CHECKED(close(area.fd));
	EXPECT_EQ(hgm_status_kb("HugetlbPages"), 0);
}
