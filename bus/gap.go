package bus

import "fmt"

// A Gap is the error by which [Subscription].Next says that messages are missing. It stands
// where they are missing: before the later messages of the same topics. By the time that
// Next returns it, the subscription gets all messages again: a subscriber that now reads
// the state from where it is kept, a database for example, has missed nothing.
type Gap struct {
	// Lost is the number of messages that are missing, or -1 if nobody can tell
	// whether there were any.
	Lost int64
	// Topics are the topics whose messages may be missing. Nil means all topics of
	// the subscription.
	Topics []string
	// Err is the reason. It is nil if the queue was full.
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

// and returns one gap for two: for the sum of what is lost, and the reason of the
// second. Its topics may be any.
func (g *Gap) and(next *Gap) *Gap {
	sum := Gap{Lost: -1, Err: next.Err}
	if g.Lost >= 0 && next.Lost >= 0 {
		sum.Lost = g.Lost + next.Lost
	}
	return &sum
}
