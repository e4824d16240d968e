// SPDX-License-Identifier: MIT
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	puts("now it hangs");
	fflush(stdout);
	for (;;)
		pause();
}
