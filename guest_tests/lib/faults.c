// SPDX-License-Identifier: MIT
/* Accesses that may fail, and the messages they cause. */
#include "inside.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>

/* Volatile: the compiler sees nobody between the lines of a probe who would read them. */
static __thread sigjmp_buf *volatile probing;
static __thread volatile int bus_code;
static __thread void *volatile bus_address;
static __thread volatile int bus_shift;

void hgm_on_sigbus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	bus_code = info->si_code;
	bus_address = info->si_addr;
	bus_shift = info->si_addr_lsb;
	if (probing)
		siglongjmp(*probing, 1);
	/* Raised by an access of the case, so nothing of stdio is held by this thread. */
	FAIL_HERE("SIGBUS at %p (si_code %d), where a page was expected", info->si_addr, info->si_code);
}

bool hgm_sigbus(const void *at, int *code, void **address)
{
	sigjmp_buf back;
	volatile bool raised = true;

	if (!sigsetjmp(back, 1)) {
		probing = &back;
		(void)*(const volatile unsigned char *)at;
		raised = false;
	}
	probing = NULL;
	if (code)
		*code = raised ? bus_code : 0;
	if (address)
		*address = raised ? bus_address : NULL;
	return raised;
}

static void on_refusal(int number)
{
	(void)number;
	siglongjmp(*probing, 1);
}

bool hgm_write_refused_(void *at)
{
	const struct sigaction probe = { .sa_handler = on_refusal };
	struct sigaction before;
	sigjmp_buf back;
	volatile bool raised = true;

	/* Only for so long: anywhere else a SIGSEGV is a mistake of the case. */
	if (sigaction(SIGSEGV, &probe, &before))
		FAIL_HERE("%s", strerror(errno));
	if (!sigsetjmp(back, 1)) {
		volatile unsigned char *byte = at;

		probing = &back;
		*byte = *byte;
		raised = false;
	}
	probing = NULL;
	if (sigaction(SIGSEGV, &before, NULL))
		FAIL_HERE("%s", strerror(errno));
	return raised;
}

int hgm_sigbus_shift(void)
{
	return bus_shift;
}

void hgm_expect_holes_(const struct hgm_area *area)
{
	size_t total = area->pages * PIECES, stride = total / 512 ? total / 512 : 1;

	for (size_t i = 0; i < total; i++) {
		unsigned char *at = area->primary + i * hgm_base + i % hgm_base;
		bool edge = i + 1 == total || area->leaf[i + 1] || !i || area->leaf[i - 1] || i % stride == 0;
		void *address;
		int code;

		if (area->leaf[i] || !edge)
			continue;
		if (!hgm_sigbus(at, &code, &address))
			FAIL_HERE("read of base page %zu, a hole: expected SIGBUS, saw a value", i);
		if (code != BUS_ADRERR || address != at)
			FAIL_HERE("SIGBUS of base page %zu: expected si_code %d at %p, saw %d at %p", i, BUS_ADRERR, at,
				  code, address);
	}
}

struct uffd_msg hgm_message_(const struct hgm_area *area)
{
	struct pollfd ready = { .fd = area->uffd, .events = POLLIN };
	struct uffd_msg message;
	int count = poll(&ready, 1, PATIENCE_S * 1000);
	ssize_t got;

	if (count != 1)
		FAIL_HERE("no userfaultfd message in %d s%s%s", PATIENCE_S, count < 0 ? ": " : "",
			  count < 0 ? strerror(errno) : "");
	got = read(area->uffd, &message, sizeof(message));
	if (got != sizeof(message))
		FAIL_HERE("userfaultfd message: %zd bytes: %s", got, got < 0 ? strerror(errno) : "too short");
	if (message.event != UFFD_EVENT_PAGEFAULT)
		FAIL_HERE("userfaultfd message: expected a fault, saw event 0x%x", message.event);
	return message;
}

void hgm_expect_no_message_(const struct hgm_area *area)
{
	struct uffd_msg message;
	ssize_t got = read(area->uffd, &message, sizeof(message));

	if (got >= 0)
		FAIL_HERE("expected no userfaultfd message, saw one for address 0x%llx",
			  (unsigned long long)message.arg.pagefault.address);
	if (errno != EAGAIN)
		FAIL_HERE("userfaultfd message: %s", strerror(errno));
}


int hgm_try_load(const void *at)
{
	int pipes[2], error = 0;

	if (pipe2(pipes, O_CLOEXEC))
		FAIL_HERE("pipe: %s", strerror(errno));
	if (write(pipes[1], at, 8) != 8)
		error = errno;
	close(pipes[0]);
	close(pipes[1]);
	return error;
}

int hgm_try_store(void *at)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), error = 0;

	if (zero < 0)
		FAIL_HERE("/dev/zero: %s", strerror(errno));
	if (read(zero, at, 8) != 8)
		error = errno;
	close(zero);
	return error;
}
