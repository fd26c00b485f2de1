package upgrade

import "time"

// A lull is the moment at which a WebSocket is closed gracefully: when nothing that the
// client has sent is waiting for its answer. Nothing tells the gateway which message answers
// which, if any does. What it goes by is who has sent a message last, and when:
//
//	the client has sent        the backend, since   the lull comes
//	nothing yet                                     at once
//	a message                  nothing              when the message is answerTime old
//	a message, and there is    a message            when the client's message is calmTime old
//	calmTime + nextTime until
//	latest
//	a message, later           a message            at once
//
// It comes at latest in any case. The third case is for what the backend sends of its own
// accord, and for clients that send several messages before they wait for an answer: what
// the backend has sent need not have been the answer. The fourth is for clients that don't
// pause for so long: then the next answer may come too late. An idle client most often is one that has sent the last message, such as an
// Engine.IO client, which answers its server's pings: that message is old.
//
// An engine keeps the times for each of its tunnels, and hands them to the course at the
// tunnel's turn. From then on it reports each message to the course.
type lull struct {
	waiting  bool          // for the lull; the others are set only then
	answered bool          // the backend has sent a whole message since the client's last one
	asked    time.Duration // when bytes of the client's last message came, 0 for never
	latest   time.Duration
}

const (
	// lullTime is how long a tunnel waits for a lull, at most.
	lullTime = time.Second
	// answerTime is how long a message may still be answered, as far as a lull is concerned.
	answerTime = time.Second
	// calmTime is how long a client has to be silent although the backend has sent
	// something. Most answers come sooner.
	calmTime = 400 * time.Millisecond
	// nextTime is how long a client's next message has to be answered, if it comes while
	// calmTime runs.
	nextTime = 300 * time.Millisecond
)

// at returns when the lull comes if nobody sends anything until then.
func (l *lull) at() time.Duration {
	var at time.Duration // long ago
	switch {
	case l.asked == 0:
	case !l.answered:
		at = l.asked + answerTime
	case l.asked+calmTime+nextTime <= l.latest:
		at = l.asked + calmTime
	}
	return min(at, l.latest)
}

// sent reports a message in direction d, which is whole if it is the backend's. A message of
// the client's counts from its first byte on.
func (l *lull) sent(now time.Duration, d direction) {
	if l.answered = d == toClient; !l.answered {
		l.asked = max(1, now)
	}
}

// closeGracefully is close at the next lull, or when grace is over. asked and answered
// are as in lull. A tunnel of which something has ended is closed at once.
func (c *course) closeGracefully(now, grace time.Duration, code int, reason string, asked time.Duration, answered bool) order {
	latest := now + min(grace, lullTime)
	switch {
	case c.closing:
		return carryOn
	case c.waiting && grace > 0:
		c.latest = min(c.latest, latest)
	case grace <= 0 || c.endsAlready():
		return c.close(now, code, reason)
	default:
		c.lull = lull{waiting: true, answered: answered, asked: asked, latest: latest}
		c.code, c.reason = code, reason
	}
	if now < c.lull.at() {
		return carryOn
	}
	return c.closeInLull(now)
}

// closeInLull is close for a tunnel that was waiting for a lull, which has come.
func (c *course) closeInLull(now time.Duration) order {
	return c.begin(now, c.code, c.reason, Summary{By: SideGateway, Code: c.code, Reason: c.reason})
}

// lingersIn reports whether bytes pass in direction d although the tunnel is closing. After
// a lull what the client sends goes to the backend as before, until the client has answered
// the close frame, which may take frameTime. It has sent that before it knew of the close,
// and might send it to nobody else. The backend gets the client's answer, or its own close
// frame, behind that. What it answers itself is dropped: behind a close frame the client
// must not be sent any data (RFC 6455, section 5.5.1).
func (c *course) lingersIn(d direction) bool { return c.lingers && d == toBackend }

// endsAlready reports whether something of the tunnel has ended.
func (c *course) endsAlready() bool {
	return c.closeSeen || c.lost != [2]bool{} || c.ended != [2]bool{}
}
