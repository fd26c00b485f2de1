package middleware

import "time"

// SetAbsent sets how long tunnels wait for a backend that isn't in the pool, and the time over
// which they are closed then.
func (h *Handover) SetAbsent(wait, turn time.Duration) { h.absentTime, h.absentTurn = wait, turn }
