// SPDX-License-Identifier: MIT
#include "../kselftest.h"

int main(void)
{
	ksft_print_header();
	ksft_set_plan(2);
	ksft_test_result_pass("one\n");
	ksft_test_result_skip("no such thing here\n");
	return ksft_exit_pass();
}
