//go:build !unix

package process

import "time"

// CPU returns 0: it can't be told here.
func CPU() time.Duration { return 0 }
