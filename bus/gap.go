package bus

import "fmt"

// A Gap is the error by which a subscription says that messages are missing.
// Once it is returned the subscription misses nothing any more: what is read
// from elsewhere after a Gap makes up for it.
type Gap struct {
	// Lost is the number of messages that are missing, or -1 when nobody can
	// tell whether and how many there were.
	Lost int64
	// Topics are those that may miss messages. Nil means any of the
	// subscription's.
	Topics []string
	// Err is why; nil when the queue was full.
	Err error
}

// Error says how much is missing and why.
func (g *Gap) Error() string {
	switch {
	case g.Err == nil:
		return fmt.Sprintf("bus: the subscriber was too slow, %d messages are lost", g.Lost)
	case g.Lost >= 0:
		return fmt.Sprintf("bus: %d messages are lost: %v", g.Lost, g.Err)
	}
	return fmt.Sprintf("bus: messages may be missing: %v", g.Err)
}

// Unwrap returns why messages are missing.
func (g *Gap) Unwrap() error { return g.Err }

// and returns a gap that says what both say.
func (g *Gap) and(next *Gap) *Gap {
	sum := Gap{Lost: -1, Err: next.Err}
	if g.Lost >= 0 && next.Lost >= 0 {
		sum.Lost = g.Lost + next.Lost
	}
	return &sum
}
