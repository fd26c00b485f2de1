package bus

import (
	"errors"
	"time"
)

// How patient [Redis] and [Streams] are with the server that they share.
const (
	// deadAfter is how long Redis may take to answer. Then it is connected to anew.
	deadAfter = time.Second

	// grace is how long a connection that is doubted may take to say something once
	// another one is answered: what Redis has sent on it first may still be read.
	grace = 50 * time.Millisecond

	// steady is how long a connection must have lived for another one to be made at
	// once when it breaks.
	steady = 100 * time.Millisecond

	// defaultTimeout is how long a call may take for which no Timeout is set. A
	// restart of Redis takes less.
	defaultTimeout = 3 * time.Second

	// The pause before another attempt to connect or to read begins with minPause
	// and doubles up to maxPause.
	minPause, maxPause = 50 * time.Millisecond, 500 * time.Millisecond

	// retryPause is the pause before a node is asked again for what it, or another
	// node of the Cluster, has refused: the nodes need a moment to learn of a slot
	// that has moved.
	retryPause = 100 * time.Millisecond
)

// errLate is the reason of a Gap for a topic that was added, but not subscribed to
// within the time limit of Add.
var errLate = errors.New("Redis has confirmed the subscription late")
