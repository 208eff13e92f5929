package checkpoint

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime reads CLOCK_BOOTTIME. CLOCK_MONOTONIC, which package time uses, stands still while the
// machine is suspended; a lease does not.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(processStart) // kernels before 2.6.39
	}
	return time.Duration(t.Nano())
}

var processStart = time.Now()
