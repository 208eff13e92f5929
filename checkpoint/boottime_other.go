//go:build !linux

package checkpoint

import "time"

// bootTime is the monotonic clock where there is no better one.
func bootTime() time.Duration { return time.Since(processStart) }

var processStart = time.Now()
