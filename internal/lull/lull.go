// Package lull finds the moment at which a client may be sent away from its backend: when
// nothing that it has sent is waiting for its answer.
package lull

import "time"

// A Lull is that moment for one client. Nothing tells a proxy which message answers which, if
// any does. What it goes by is who has sent a message last, and when:
//
//	the client has sent        the backend, since   the lull comes
//	nothing yet                                     at once
//	a message                  nothing              when the message is answerTime old
//	a message, and there is    a message            when the client's message is calmTime old
//	calmTime + nextTime until
//	Latest
//	a message, later           a message            at once
//
// It comes at Latest in any case. The third case is for what the backend sends of its own
// accord, and for clients that send several messages before they wait for an answer: what
// the backend has sent need not have been the answer. The fourth is for clients that don't
// pause for so long: then the next answer may come too late. An idle client most often is
// one that has sent the last message, such as an Engine.IO client, which answers its server's
// pings: that message is old.
//
// All times are counted from any moment that is the same for all three.
type Lull struct {
	Asked    time.Duration // when the client's last message came, 0 for never
	Answered bool          // the backend has sent a whole message since
	Latest   time.Duration
}

const (
	// Most is how long somebody should wait for a lull, at most.
	Most = time.Second

	// answerTime is how long a message may still be answered, as far as a lull is concerned.
	answerTime = time.Second
	// calmTime is how long a client has to be silent although the backend has sent
	// something. Most answers come sooner.
	calmTime = 400 * time.Millisecond
	// nextTime is how long a client's next message has to be answered, if it comes while
	// calmTime runs.
	nextTime = 300 * time.Millisecond
)

// Ask notes a message of the client's, whole or not.
func (l *Lull) Ask(now time.Duration) { l.Asked, l.Answered = max(1, now), false }

// Answer notes a whole message of the backend's.
func (l *Lull) Answer() { l.Answered = true }

// At returns when the lull comes if nobody sends anything until then. That may be long ago.
func (l *Lull) At() time.Duration {
	var at time.Duration
	switch {
	case l.Asked == 0:
	case !l.Answered:
		at = l.Asked + answerTime
	case l.Asked+calmTime+nextTime <= l.Latest:
		at = l.Asked + calmTime
	}
	return min(at, l.Latest)
}
