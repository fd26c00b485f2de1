package upgrade

import "time"

// A stamp is a time of the loop's clock in hundredths of a second, which saves half of a
// time.Duration. Differences of two stamps are right if they are below 497 days.
type stamp uint32

// stampUnit is the unit of a stamp.
const stampUnit = 10 * time.Millisecond

func stampOf(now time.Duration) stamp { return stamp(now / stampUnit) }

// since returns the time that has passed at least between s and now.
func (s stamp) since(now time.Duration) time.Duration {
	n := stampOf(now) - s
	if n == 0 {
		return 0
	}
	return time.Duration(n-1) * stampUnit
}

// A question is what is known of the last message of a client, for a lull: 0 if it has sent
// none, or else the stamp plus one of when bytes of that came, without its highest bit, and
// behind that the bit answered. Differences are right if they are below 248 days.
type question uint32

// answered tells that the backend has sent a whole message since.
const answered question = 1

func questionAt(now time.Duration) question { return question(stampOf(now)+1) << 1 }

// at returns the time of q, to the hundredth of a second, as it was on a clock that shows now.
func (q question) at(now time.Duration) time.Duration {
	ago := (questionAt(now) - q&^answered) >> 1
	return (now/stampUnit - time.Duration(ago)) * stampUnit
}

// sent notes a message in direction d for the next lull.
func (t *loopTunnel) sent(d direction) {
	switch q := &t.loop.asked[t.slot]; {
	case d == toBackend:
		*q = questionAt(t.loop.now)
	case *q != 0:
		*q |= answered
	}
	if t.ending != nil {
		t.ending.sent(t.loop.now, d)
	}
}

// asked returns when the client has sent its last message, and whether the backend has sent
// one since, as a lull wants to know it.
func (t *loopTunnel) asked() (at time.Duration, isAnswered bool) {
	q := t.loop.asked[t.slot]
	if q == 0 {
		return 0, false
	}
	return max(1, q.at(t.loop.now)), q&answered != 0
}
