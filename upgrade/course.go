package upgrade

import (
	"io"
	"os"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// A course decides how one tunnel ends. An engine reports each event that has to
// do with the end, and carries out the order that it gets back. The course itself
// does no I/O and reads no clock: an engine passes in the time, counted from any
// moment that stays the same for the tunnel. The zero value, with websocket set
// where it is one, is the course of a tunnel of which nothing has ended.
//
// A pump guards its course by pumped.mu; a loop allocates one for a tunnel at its
// first event, and guards it by loop.mu.
//
// Each direction of the tunnel is in one of three phases. Nothing leads back.
//
//	phase      bytes from the source            is left for
//	relaying   are passed on                    discarding or over
//	discarding   are read and dropped             over, when the source or its time ends
//	over       are not read                     -
//
// The whole tunnel is open, half open (one direction relays, the other one doesn't,
// and the first may not be silent for longer than quiet) or closing (both
// directions get their close frame as soon as one can be put there, see settle, and
// have time until goneBy). What an event does, with "notes X" for what becomes the
// Summary unless something was noted before:
//
//	event                        open or half open                        closing
//	close (from outside, or by   notes Gateway; closing                   nothing
//	  the gateway's limits)
//	closeFrame (one has passed)  notes its sender; an end of the          the same
//	                             backend is expected from now on
//	sourceEnded: client, by EOF  notes Client; half open for halfTime,    the direction
//	                             or reset if the client is lost           settles, and
//	  client, by reset           notes Client; reset                      is over
//	  backend, of a WebSocket    notes Backend; closing with 1012, the
//	    without a close frame    frame for the client only; as below if
//	                             the client has ended
//	  backend, otherwise         notes Backend; half open for halfTime,
//	                             a WebSocket for discardTime
//	  any, while discarding        over                                     over
//	destinationLost: client      notes Client; discarding and half open     discarding
//	                             for discardTime, or reset if the client
//	                             has ended
//	  backend                    the same without a note: the other
//	                             direction will find out why
//	expire: discarding             over after discardTime                     cut at goneBy
//	  relaying                   cut if it was silent for quiet           settles at frameBy,
//	                                                                      cut at goneBy
//	cut                          notes what it is given; over             the same
type course struct {
	websocket  bool
	phases     [2]phase // by direction
	ended      [2]bool  // nothing more comes from the direction's source
	lost       [2]bool  // nothing can be written to the direction's destination
	closeSeen  bool     // a close frame of an end has passed
	known      bool     // cause is set
	closing    bool     // as are the next five
	backendToo bool     // a close frame is due to the backend too
	code       int
	reason     string
	frameBy    time.Duration // until then a passing frame may end
	goneBy     time.Duration // until then the ends may close
	cause      Summary       // By, Code, Reason and Err of what happened first
	quiet      time.Duration // how long the direction that still relays may be silent
	quietBy    time.Duration // when that is over; 0 while both directions relay
	discardBy  time.Duration // until then a direction whose destination is lost is drained
}

// direction is one of the two directions of a tunnel.
type direction uint8

const (
	toBackend direction = iota
	toClient
)

// from returns the source of d.
func (d direction) from() Side {
	if d == toBackend {
		return SideClient
	}
	return SideBackend
}

// phase is how far a direction is on its way to the end.
type phase uint8

const (
	relaying   phase = iota
	discarding       // see discardTime
	over
)

// order is what an engine has to do about an event beside what the phases and
// deadlines of its directions say.
type order uint8

const (
	carryOn    order = iota
	settleBoth       // call settle for both directions as soon as each has nothing under way
	halfClose        // shut down the writing to the destination of the event's direction
	cutBoth          // close both connections
	resetBoth        // the same, so that the backend sees a reset
)

// How long a closing tunnel may take, and one that is open in one direction only.
const (
	// frameTime is how long a close frame waits for the end of the frame that is
	// passing.
	frameTime = time.Second
	// discardTime is how long what an end still sends is read and dropped after it
	// got its close frame: closing with bytes unread would be a reset, which
	// takes the close frame back from an end that has not read it yet.
	discardTime = time.Second
	// halfTime is how long the other direction may be silent once one has ended.
	halfTime = 30 * time.Second
)

// close begins to close the tunnel with a close frame to both ends. Only the first
// reason to close counts.
func (c *course) close(now time.Duration, code int, reason string) order {
	return c.begin(now, code, reason, Summary{By: SideGateway, Code: code, Reason: reason})
}

func (c *course) begin(now time.Duration, code int, reason string, cause Summary) order {
	if c.closing {
		return carryOn
	}
	c.note(cause)
	c.closing, c.code, c.reason = true, code, reason
	c.backendToo = cause.By == SideGateway
	c.frameBy = now + frameTime
	c.goneBy = c.frameBy + discardTime
	return settleBoth
}

// closeFrame reports that a close frame passes in direction d. It has to be called
// before the frame is written, so that its answer can't come first.
func (c *course) closeFrame(d direction, code int) {
	if !c.closeSeen {
		c.closeSeen = true
		c.note(Summary{By: d.from(), Code: code})
	}
}

// sourceEnded reports the end of what comes in direction d. err is nil for an
// orderly end and tells how the connection broke otherwise.
func (c *course) sourceEnded(now time.Duration, d direction, err error) order {
	c.ended[d] = true
	if c.phases[d] != relaying {
		c.phases[d] = over
		return carryOn
	}
	if c.closing {
		return settleBoth
	}
	broken := err != nil
	unannounced := c.websocket && !c.closeSeen
	if !broken && unannounced {
		err = io.ErrUnexpectedEOF
	}
	quiet := halfTime
	if d == toBackend {
		c.note(Summary{By: SideClient, Err: err})
		if broken || c.lost[toClient] {
			c.finish()
			return resetBoth // so that the backend learns at once that nobody is there
		}
	} else {
		if unannounced && !c.ended[toBackend] {
			const code = closecode.ServiceRestart
			return c.begin(now, code, "backend lost", Summary{By: SideBackend, Code: code, Err: err})
		}
		c.note(Summary{By: SideBackend, Err: err})
		if c.websocket {
			quiet = discardTime
		}
	}
	c.phases[d] = over
	c.leave(now, quiet)
	return halfClose
}

// destinationLost reports that nothing can be written in direction d any more. The
// other direction, which reads from there, is to find what that end has left, and
// how it ended.
func (c *course) destinationLost(now time.Duration, d direction, err error) order {
	if c.lost[d] {
		return carryOn
	}
	c.lost[d] = true
	if c.phases[d] == relaying {
		c.phases[d] = c.unwritten(d)
	}
	if c.closing {
		return carryOn
	}
	if d == toClient {
		c.note(Summary{By: SideClient, Err: err})
		if c.ended[toBackend] {
			c.finish()
			return resetBoth
		}
	}
	c.leave(now, discardTime)
	c.discardBy = c.quietBy
	return carryOn
}

// settle ends the writing in direction d if the tunnel is closing, and reports
// whether it did: then frame, if not nil, is to be written, and the writing shut
// down behind it. The engine tells whether the direction is within a frame whose end
// can be waited for, and whether it is at a boundary, where a frame may be put.
func (c *course) settle(now time.Duration, d direction, within, boundary bool) (settled bool, frame []byte) {
	if !c.closing || c.phases[d] != relaying {
		return false, nil
	}
	due := d == toClient || c.backendToo
	if due && within && !c.ended[d] && now < c.frameBy {
		return false, nil
	}
	c.phases[d] = c.unwritten(d)
	if due && boundary {
		frame = closeFrame(c.code, c.reason, d == toBackend)
	}
	return true, frame
}

// unwritten returns the phase of a direction in which nothing is written any more.
func (c *course) unwritten(d direction) phase {
	if c.ended[d] {
		return over
	}
	return discarding
}

// leave is the end of a direction while the other one goes on for as long as it
// isn't silent for longer than quiet.
func (c *course) leave(now, quiet time.Duration) {
	c.quiet, c.quietBy = quiet, now+quiet
}

// active reports that the tunnel is not silent.
func (c *course) active(now time.Duration) {
	if c.quietBy != 0 {
		c.quietBy = now + c.quiet
	}
}

// deadline returns when expire is to be called for direction d, 0 for never.
func (c *course) deadline(now time.Duration, d direction) time.Duration {
	switch {
	case c.closing && c.phases[d] == relaying && now < c.frameBy:
		return c.frameBy
	case c.closing:
		return c.goneBy
	case c.phases[d] == relaying:
		return c.quietBy
	case c.phases[d] == discarding:
		return c.discardBy
	}
	return 0
}

// expire does what is due in direction d by now; it may be called too early. busy
// tells that bytes wait for room at the destination: then it isn't the source that
// is silent.
func (c *course) expire(now time.Duration, d direction, busy bool) order {
	by := c.deadline(now, d)
	switch {
	case c.closing && now >= c.goneBy:
		c.finish()
		return cutBoth
	case c.closing:
		return settleBoth
	case by == 0 || now < by:
	case c.phases[d] == discarding:
		c.phases[d] = over
	case busy:
		c.active(now)
	default:
		return c.cut(os.ErrDeadlineExceeded)
	}
	return carryOn
}

// cut ends the tunnel now. err is what broke it, nil if the gateway wants it so.
func (c *course) cut(err error) order {
	c.note(Summary{By: SideGateway, Err: err})
	c.finish()
	return cutBoth
}

// finish ends both directions.
func (c *course) finish() { c.phases = [2]phase{over, over} }

// note remembers what ended the tunnel: what is noted first.
func (c *course) note(cause Summary) {
	if !c.known {
		c.known, c.cause = true, cause
	}
}

// takesMessages reports whether the gateway may still send messages of its own to
// the client.
func (c *course) takesMessages() bool {
	return c.phases[toClient] == relaying && !c.closing && !c.closeSeen
}
