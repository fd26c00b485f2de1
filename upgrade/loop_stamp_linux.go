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

// at returns the time of s, to the hundredth of a second, as it was on a clock that shows now.
func (s stamp) at(now time.Duration) time.Duration {
	return time.Duration(int64(now/stampUnit)-int64(stampOf(now)-s)) * stampUnit
}

// sent notes a message in direction d for the next lull.
func (t *loopTunnel) sent(d direction) {
	if d == toBackend {
		t.loop.asked[t.slot] = stampOf(t.loop.now) + 1
	}
	if t.ending != nil {
		t.ending.sent(t.loop.now, d)
	}
}

// asked returns when the client has sent its last message, and whether the backend has sent
// one since, as a lull wants to know it. The tunnel is active.
func (t *loopTunnel) asked() (at time.Duration, answered bool) {
	s := t.loop.asked[t.slot]
	if s == 0 {
		return 0, false
	}
	s--
	const before = 1 << 31 // half of all differences are negative
	answered = t.spoken-s < before && t.flows[toClient].frames.between()
	return max(1, s.at(t.loop.now)), answered
}
