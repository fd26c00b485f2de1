package upgrade

import (
	"io"
	"os"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/lull"
)

// A course decides how one tunnel ends. An engine reports to it each event that has to
// do with the end, and carries out the order that it returns. The course does no I/O
// and reads no clock: an engine passes in the time, counted from any moment that is
// the same for the whole tunnel. The zero value, with websocket set for a WebSocket,
// is the course of a tunnel of which nothing has ended yet.
//
// A course has no lock of its own. pumpTunnel.mu guards that of a tunnel on a pump. A
// tunnel on a loop gets one with its first event, and loop.mu guards it.
//
// Each direction of the tunnel is in one of three phases:
//
//	phase       bytes from its source    the next phase, and who moves it there
//	relaying    are passed on            discarding or over: settle, destinationLost; over: sourceEnded, cut
//	discarding  are read and dropped     over: sourceEnded, expire, cut
//	over        are not read             none
//
// The tunnel as a whole is open, half open or closing. While it is half open, one
// direction relays and the other one doesn't, and the one that relays may not be
// silent for longer than quiet. While it is closing, each direction settles as soon as
// it can: it gets its close frame, and then has time until goneBy. After a lull the
// direction to the backend lingers: see lingersIn. What an event does ("notes X" for the
// Summary that has X in By, unless something was noted before):
//
//	event, and its direction       open or half open                          closing
//	close                          notes SideGateway; closing                 nothing
//	closeGracefully                the same, but at the next lull; at once    nothing
//	                               in a tunnel of which something has ended
//	closeFrame                     notes its sender; from now on the end of   lingers no more
//	                               the backend is no loss
//	sourceEnded, relaying:
//	  client, orderly              notes SideClient; half open for halfTime,  settles, and is over
//	                               or reset if the client can't be written
//	  client, broken               notes SideClient; reset                    settles, and is over
//	  backend, unannounced: a      notes SideBackend; closing with 1012, and  settles, and is over
//	    WebSocket, no close frame  a close frame for the client only
//	    seen, client not ended
//	  backend, otherwise           notes SideBackend; half open for halfTime, settles, and is over
//	                               of a WebSocket for discardTime
//	sourceEnded, discarding        over                                       over; lingers no more
//	destinationLost:
//	  client                       notes SideClient; discarding, half open    discarding
//	                               for discardTime; reset if it has ended
//	  backend                      discarding, half open for discardTime: the discarding
//	                               other direction finds out what has ended
//	expire, discarding             over after discardTime                     cut at goneBy
//	expire, relaying               close in a lull that is waited for;        settles at frameBy,
//	                               cut if it was silent for quiet             cut at goneBy
//	active                         the time of quiet begins anew              nothing
//	parted, half open              both are over
//	cut                            notes SideGateway; both are over           the same
//
// A direction whose source has ended is over instead of discarding. The engine calls
// close for what the gateway decides: Close, a timeout, an invalid or too long message;
// and closeGracefully for what can wait for a moment: CloseGracefully, a drain, an age.
type course struct {
	websocket  bool
	phases     [2]phase // by direction
	ended      [2]bool  // nothing more comes from the source
	lost       [2]bool  // nothing can be written to the destination
	closeSeen  bool     // a close frame of an end has passed
	known      bool     // cause is set
	closing    bool     // the next six are set; code and reason also while waiting for a lull
	backendToo bool     // a close frame is due to the backend too
	lingers    bool     // what the client sends still passes: see lingersIn
	code       int
	reason     string
	frameBy    time.Duration // until then the frame that is passing may end
	goneBy     time.Duration // until then the ends may close
	cause      Summary       // By, Code, Reason and Err of the first event that has ended something
	quiet      time.Duration // how long the direction that still relays may be silent
	quietBy    time.Duration // when that time is over; 0 while both directions relay
	discardBy  time.Duration // until then a direction whose destination is lost discards
	waiting    bool          // for a lull, before the tunnel is closing
	lull       lull.Lull     // what is known of that
}

// A direction is one of the two of a tunnel.
type direction uint8

const (
	toBackend direction = iota
	toClient
)

// from returns the side from which d comes.
func (d direction) from() Side {
	if d == toBackend {
		return SideClient
	}
	return SideBackend
}

// A phase tells how far a direction is on its way to the end. See course.
type phase uint8

const (
	relaying   phase = iota
	discarding       // see discardTime
	over
)

// An order is what an engine has to do about an event, beside what phases and
// deadlines tell it.
type order uint8

const (
	carryOn    order = iota
	settleBoth       // call settle for both directions, for each once nothing is under way there
	halfClose        // shut down the writing in the event's direction
	cutBoth          // close both connections
	resetBoth        // the same, so that the backend sees a reset
)

// How long a tunnel that is closing or half open may take.
const (
	// frameTime is how long a close frame waits for the end of the frame that is
	// passing.
	frameTime = time.Second
	// discardTime is how long what an end still sends is read and dropped after its
	// close frame was written. To close a connection with unread bytes is a reset,
	// and an end that has not read the close frame yet would never see it.
	discardTime = time.Second
	// halfTime is how long the other direction may be silent once one has ended.
	halfTime = 30 * time.Second
)

// close begins to close the tunnel, with a close frame to both ends. It does nothing
// if the tunnel is closing already.
func (c *course) close(now time.Duration, code int, reason string) order {
	c.waiting = false
	return c.begin(now, code, reason, Summary{By: SideGateway, Code: code, Reason: reason})
}

// begin is close for any cause. The backend gets a close frame if the gateway is the cause.
func (c *course) begin(now time.Duration, code int, reason string, cause Summary) order {
	if c.closing {
		c.lingers = false
		return carryOn
	}
	c.note(cause)
	lingers := c.waiting && c.websocket && !c.endsAlready()
	c.closing, c.code, c.reason, c.waiting = true, code, reason, false
	c.backendToo = cause.By == SideGateway
	c.lingers = lingers
	c.frameBy = now + frameTime
	c.goneBy = c.frameBy + discardTime
	return settleBoth
}

// closeFrame reports that a close frame passes in direction d. It has to be called
// before the frame is written: the other end may answer it at once.
func (c *course) closeFrame(d direction, code int) {
	c.lingers = false
	if !c.closeSeen {
		c.closeSeen = true
		c.note(Summary{By: d.from(), Code: code})
	}
}

// sourceEnded reports that nothing more comes in direction d. err is nil after an
// orderly end, and tells how the connection broke otherwise.
func (c *course) sourceEnded(now time.Duration, d direction, err error) order {
	c.ended[d] = true
	lingered := c.lingers
	c.lingers = false
	if c.phases[d] != relaying {
		c.phases[d] = over
		if lingered {
			return settleBoth // there is nobody to pass anything on to
		}
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
			return resetBoth // so that the backend learns at once that its client is gone
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
// other direction, which reads from that end, goes on for a moment: it may find bytes
// that the end has sent before, and how it ended.
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

// settle ends the writing in direction d if the tunnel is closing and nothing stands
// against it. If settled, the engine writes frame, unless that is nil, and shuts down
// the writing behind it. within tells that the direction is within a frame whose end
// can be waited for, and boundary that it is at a place where a frame may be put.
func (c *course) settle(now time.Duration, d direction, within, boundary bool) (settled bool, frame []byte) {
	if !c.closing || c.phases[d] != relaying {
		return false, nil
	}
	due := d == toClient || c.backendToo
	waits := within || c.lingersIn(d)
	if due && waits && !c.ended[d] && now < c.frameBy {
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

// leave begins the time for which the direction that still relays may be silent.
func (c *course) leave(now, quiet time.Duration) {
	c.quiet, c.quietBy = quiet, now+quiet
}

// active reports that bytes have come, or that there was room for some.
func (c *course) active(now time.Duration) {
	if c.quietBy != 0 {
		c.quietBy = now + c.quiet
	}
}

// deadline returns the time at which expire has to be called for d, 0 for never.
func (c *course) deadline(now time.Duration, d direction) time.Duration {
	switch {
	case c.closing && c.phases[d] == relaying && now < c.frameBy:
		return c.frameBy
	case c.closing:
		return c.goneBy
	case c.phases[d] == relaying && c.waiting && (c.quietBy == 0 || c.lull.At() < c.quietBy):
		return max(1, c.lull.At())
	case c.phases[d] == relaying:
		return c.quietBy
	case c.phases[d] == discarding:
		return c.discardBy
	}
	return 0
}

// expire does what is due in direction d by now. It may be called too early. busy
// tells that bytes wait for room at the destination: then it isn't the source that is
// silent.
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
	case c.waiting && c.lull.At() <= now:
		return c.closeInLull(now)
	case busy:
		c.active(now)
	default:
		return c.cut(os.ErrDeadlineExceeded)
	}
	return carryOn
}

// parted reports that both ends have sent a close frame, that one of them has ended since, and
// that nothing of the other one waits to be read. It has nothing to say any more (RFC 6455,
// section 5.5.1), so there is nothing to wait for.
func (c *course) parted() order {
	c.finish()
	return cutBoth
}

// cut ends the tunnel now. err is what broke it, and nil if the gateway decided so.
func (c *course) cut(err error) order {
	c.note(Summary{By: SideGateway, Err: err})
	c.finish()
	return cutBoth
}

// finish has both directions be over.
func (c *course) finish() { c.phases = [2]phase{over, over} }

// note remembers what has ended the tunnel: what is noted first.
func (c *course) note(cause Summary) {
	if !c.known {
		c.known, c.cause = true, cause
	}
}

// takesMessages reports whether Send may still write to the client.
func (c *course) takesMessages() bool {
	return c.phases[toClient] == relaying && !c.closing && !c.closeSeen
}
