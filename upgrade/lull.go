package upgrade

import (
	"time"

	"github.com/limpet-go/limpet/internal/lull"
)

// An engine keeps, for each of its tunnels, when the ends have last sent a message, and
// hands that to the course at the tunnel's turn. From then on it reports each message.

// sent reports a message in direction d, for a lull that the tunnel may be waiting for. A
// message of the client's counts from its first byte on, one of the backend's when it is
// whole.
func (c *course) sent(now time.Duration, d direction) {
	if d == toBackend {
		c.lull.Ask(now)
	} else {
		c.lull.Answer()
	}
}

// closeGracefully is close at the next lull, or when grace is over. asked and answered
// are as in [lull.Lull]. A tunnel of which something has ended is closed at once.
func (c *course) closeGracefully(now, grace time.Duration, code int, reason string, asked time.Duration, answered bool) order {
	latest := now + min(grace, lull.Most)
	switch {
	case c.closing:
		return carryOn
	case c.waiting && grace > 0:
		c.lull.Latest = min(c.lull.Latest, latest)
	case grace <= 0 || c.endsAlready():
		return c.close(now, code, reason)
	default:
		c.waiting, c.code, c.reason = true, code, reason
		c.lull = lull.Lull{Asked: asked, Answered: answered, Latest: latest}
	}
	if now < c.lull.At() {
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
