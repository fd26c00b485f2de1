package balancer

import "time"

// Looks find out between two checks that a backend has fallen silent, so that it is checked
// at once. A stopped process would otherwise be found up to an interval later.
//
// The goroutine that checks the backend looks ten times an interval, and ten times a second at
// most, whether something was heard of the backend since the look before. It remembers the
// last 64 looks. The backend is silent when at least two looks in a row have heard nothing,
// and three times as many as there ever were among those 64, while requests or tunnels are
// open. So a pause is compared with other pauses, and not with the number of things that
// were heard: many clients often get something at the same moment.
//
// A backend that lives is seldom silent in this sense: once in minutes if its requests are
// independent of each other, and if there are pauses, once in 64 looks at most. It is only a
// reason to look closer: the check finds out whether the backend lives.
//
// A check in the middle of an unusual silence waits for as much less as the backend has been
// silent already, though for half of the timeout at least: whom many clients have asked need
// not be asked once more before the wait begins to count.
//
// A backend of which less than one thing a look was heard in the last interval isn't looked
// at before its next check. So looks cost nothing where there is no traffic.
type looks struct {
	every  time.Duration
	on     bool      // there was enough traffic
	last   int64     // what was heard until the last look
	pauses uint64    // the last 64 looks, the latest one in the lowest bit, which is set if it has heard nothing
	quiet  int       // how many looks have heard nothing since something was heard or the backend was checked
	end    time.Time // of the last check or of the last look that has heard something

	// Since when the traffic is counted, and what had been heard until then:
	since time.Time
	first int64
}

// looksInInterval is how many looks there are in an interval of a second or more.
const looksInInterval = 10

func newLooks(interval time.Duration, heard int64) *looks {
	return &looks{every: max(interval/looksInInterval, 100*time.Millisecond), since: time.Now(), first: heard}
}

// before returns the time of the next look, or that of the check if there is none before. Looks
// at all backends of a pool, which began then, come together: they wake this process once.
func (l *looks) before(check, began time.Time) time.Time {
	look := check
	if l.on {
		look = began.Add(time.Since(began).Truncate(l.every) + l.every)
	}
	if look.After(check) {
		return check
	}
	return look
}

// silent looks once, and reports whether the backend is silent. heard counts what was ever
// heard of it, and open is the number of its requests and tunnels.
func (l *looks) silent(heard, open int64) bool {
	if !l.on {
		return false
	}
	l.pauses <<= 1
	if heard != l.last {
		l.last, l.quiet, l.end = heard, 0, time.Now()
		return false
	}
	if l.quiet++; l.quiet > 0 {
		l.pauses |= 1
	}
	return open > 0 && l.quiet >= max(2, 3*l.longestPause())
}

// patience returns how long a check made now is to wait for its answer, of timeout at most.
func (l *looks) patience(timeout time.Duration, open int64) time.Duration {
	silent := time.Since(l.end)
	if !l.on || open == 0 || silent < time.Duration(1+l.longestPause())*l.every {
		return timeout
	}
	return max(timeout-silent, timeout/2)
}

// longestPause returns the largest number of looks in a row, of those before the present
// silence, that have heard nothing.
func (l *looks) longestPause() (n int) {
	for pauses := l.pauses >> max(l.quiet, 0); pauses != 0; pauses &= pauses << 1 {
		n++
	}
	return n
}

// checked is called after a check, which is a sign of life too. The first look after it may
// follow at once, and doesn't count as a quiet one.
func (l *looks) checked(heard int64) {
	l.quiet, l.end = -1, time.Now()
	passed := time.Since(l.since)
	if passed < l.every*looksInInterval/2 {
		return // something else than the interval has caused the check
	}
	if !l.on {
		l.last = l.first // the first look hears something, as it may follow at once
	}
	l.on = heard-l.first >= int64(passed/l.every)
	l.since, l.first = time.Now(), heard
}
