package upgrade

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

var errReset = errors.New("reset")

// courseEvents are all that can happen to a tunnel.
var courseEvents = []struct {
	name string
	take func(c *course, now time.Duration) order
}{
	{"client ends", func(c *course, now time.Duration) order { return c.sourceEnded(now, toBackend, nil) }},
	{"client resets", func(c *course, now time.Duration) order { return c.sourceEnded(now, toBackend, errReset) }},
	{"backend ends", func(c *course, now time.Duration) order { return c.sourceEnded(now, toClient, nil) }},
	{"backend resets", func(c *course, now time.Duration) order { return c.sourceEnded(now, toClient, errReset) }},
	{"client lost", func(c *course, now time.Duration) order { return c.destinationLost(now, toClient, errReset) }},
	{"backend lost", func(c *course, now time.Duration) order { return c.destinationLost(now, toBackend, errReset) }},
	{"client's close frame", func(c *course, _ time.Duration) order { c.closeFrame(toBackend, 1000); return carryOn }},
	{"backend's close frame", func(c *course, _ time.Duration) order { c.closeFrame(toClient, 1000); return carryOn }},
	{"close", func(c *course, now time.Duration) order { return c.close(now, 1001, "idle") }},
	{"cut", func(c *course, _ time.Duration) order { return c.cut(nil) }},
	{"settle, within a frame", func(c *course, now time.Duration) order { settleAll(c, now, true); return carryOn }},
	{"settle", func(c *course, now time.Duration) order { settleAll(c, now, false); return carryOn }},
	{"deadline", func(c *course, now time.Duration) order { return expireFirst(c, now, false) }},
	{"deadline, busy", func(c *course, now time.Duration) order { return expireFirst(c, now, true) }},
	{"close gracefully", func(c *course, now time.Duration) order {
		return c.closeGracefully(now, 2*time.Second, 1012, "", now-time.Second/2, false)
	}},
}

// settleAll settles both directions at once.
func settleAll(c *course, now time.Duration, within bool) {
	for d := range direction(2) {
		c.settle(now, d, within, !within)
	}
}

// expireFirst lets time pass up to the first deadline of both directions.
func expireFirst(c *course, now time.Duration, busy bool) order {
	up, down := c.deadline(now, toBackend), c.deadline(now, toClient)
	if up == 0 || down != 0 && down < up {
		up = down
	}
	return max(c.expire(up, toBackend, busy), c.expire(up, toClient, busy))
}

// describe returns what an engine and the summary see of a course.
func describe(c *course, now time.Duration, order order) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s/%s", [...]string{"on", "settle", "half", "cut", "reset"}[order],
		[...]string{"relaying", "discarding", "over"}[c.phases[toBackend]], [...]string{"relaying", "discarding", "over"}[c.phases[toClient]])
	for i, by := range [...]time.Duration{c.deadline(now, toBackend), c.deadline(now, toClient)} {
		if by != 0 && c.phases[i] != over {
			fmt.Fprintf(&b, " %v", by-now)
		} else {
			b.WriteString(" -")
		}
	}
	if c.known {
		fmt.Fprintf(&b, ", %v", c.cause.By)
		if c.cause.Code != 0 {
			fmt.Fprintf(&b, " %d", c.cause.Code)
		}
		switch c.cause.Err {
		case io.ErrUnexpectedEOF:
			b.WriteString(" EOF")
		case os.ErrDeadlineExceeded:
			b.WriteString(" silent")
		case errReset:
			b.WriteString(" reset")
		}
	}
	return b.String()
}

// Each event in each state that a tunnel can be in: what the engine is to do, the
// phases of the directions to backend and client, in what time each is looked at
// again, and what the summary says.
func TestCourse(t *testing.T) {
	t.Parallel()
	for _, state := range courseStates {
		t.Run(state.name, func(t *testing.T) {
			t.Parallel()
			for i, event := range courseEvents {
				const now = time.Hour
				c := inState(!state.raw, state.events, now)
				order := event.take(c, now)
				got := describe(c, now, order)
				if got != state.want[i] {
					t.Errorf("%s: %q, want %q", event.name, got, state.want[i])
				}
			}
		})
	}
}

// Whether the writing in a direction ends, and with a close frame, once the tunnel
// is closing.
func TestCourseSettle(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name             string
		events           []string
		after            time.Duration
		within, boundary bool
		want             [2]string // to backend, to client
	}{
		{name: "not closing", boundary: true, want: [2]string{"goes on", "goes on"}},
		{name: "half open", events: []string{"client ends"}, boundary: true, want: [2]string{"goes on", "goes on"}},
		{name: "between frames", events: []string{"close"}, boundary: true, want: [2]string{"frame", "frame"}},
		{name: "within a frame", events: []string{"close"}, within: true, want: [2]string{"goes on", "goes on"}},
		{name: "within a frame, just in time", events: []string{"close"}, after: frameTime - 1, within: true, want: [2]string{"goes on", "goes on"}},
		{name: "within a frame, too late", events: []string{"close"}, after: frameTime, within: true, want: [2]string{"ends", "ends"}},
		{name: "behind a close frame, or lost track", events: []string{"close"}, want: [2]string{"ends", "ends"}},
		{name: "backend ended", events: []string{"backend ends"}, boundary: true, want: [2]string{"ends", "frame"}},
		{name: "backend ended, within frames", events: []string{"backend ends"}, within: true, want: [2]string{"ends", "ends"}},
		{name: "client ended while closing", events: []string{"close", "client ends"}, within: true, want: [2]string{"ends", "goes on"}},
		{name: "client lost", events: []string{"client lost", "close"}, boundary: true, want: [2]string{"frame", "goes on"}},
		{name: "twice", events: []string{"close", "settle"}, boundary: true, want: [2]string{"goes on", "goes on"}},
		{name: "after a lull", events: []string{"close gracefully", "deadline"}, boundary: true, want: [2]string{"goes on", "frame"}},
		{name: "after a lull, just in time", events: []string{"close gracefully", "deadline"}, after: time.Second/2 + frameTime - 1, boundary: true, want: [2]string{"goes on", "frame"}},
		{name: "after a lull, too late", events: []string{"close gracefully", "deadline"}, after: time.Second/2 + frameTime, boundary: true, want: [2]string{"frame", "frame"}},
		{name: "after a lull, the client answered", events: []string{"close gracefully", "deadline", "settle", "client's close frame"}, want: [2]string{"ends", "goes on"}},
		{name: "after a lull, the client ended", events: []string{"close gracefully", "deadline", "settle", "client ends"}, boundary: true, want: [2]string{"frame", "goes on"}},
		{name: "after a lull, the backend ended", events: []string{"close gracefully", "deadline", "settle", "backend ends"}, boundary: true, want: [2]string{"frame", "goes on"}},
		{name: "after a lull, an invalid message", events: []string{"close gracefully", "deadline", "settle", "close"}, boundary: true, want: [2]string{"frame", "goes on"}},
		{name: "closed while waiting for a lull", events: []string{"close gracefully", "close"}, boundary: true, want: [2]string{"frame", "frame"}},
		{name: "backend ended while waiting for a lull", events: []string{"close gracefully", "backend ends"}, boundary: true, want: [2]string{"ends", "frame"}},
		{name: "cut", events: []string{"close", "cut"}, boundary: true, want: [2]string{"goes on", "goes on"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const now = time.Hour
			c := inState(true, test.events, now)
			for d, want := range test.want {
				settled, frame := c.settle(now+test.after, direction(d), test.within, test.boundary)
				got := "goes on"
				if settled {
					got = "ends"
				}
				if frame != nil {
					got = "frame"
					if masked := frame[1]&maskBit != 0; masked != (direction(d) == toBackend) {
						t.Errorf("the frame from %v is masked: %v", direction(d).from(), masked)
					}
				}
				if got != want {
					t.Errorf("from %v: %s, want %s", direction(d).from(), got, want)
				}
			}
		})
	}
}

// Activity begins the time of quiet anew, and sets no deadline while both directions relay.
func TestCourseActive(t *testing.T) {
	t.Parallel()
	c := inState(true, nil, time.Hour)
	if c.active(2 * time.Hour); c.deadline(2*time.Hour, toClient) != 0 {
		t.Error("an open tunnel got a deadline")
	}
	c = inState(true, []string{"client ends"}, time.Hour)
	c.active(2 * time.Hour)
	if by := c.deadline(2*time.Hour, toClient); by != 2*time.Hour+halfTime {
		t.Errorf("silent until %v", by)
	}
}

// A sender and the flow may both find that the client is lost: the second one gives
// nobody more time.
func TestCourseLostTwice(t *testing.T) {
	t.Parallel()
	const now = time.Hour
	c := inState(true, []string{"client lost"}, now)
	c.destinationLost(now+discardTime/2, toClient, errReset)
	for d := range direction(2) {
		if by := c.deadline(now, d); by != now+discardTime {
			t.Errorf("from %v: until %v", d.from(), by)
		}
	}
}

// Send may write only while nothing has begun to end the tunnel for the
// client.
func TestCourseTakesMessages(t *testing.T) {
	t.Parallel()
	for event, want := range map[string]bool{
		"client ends": true, "backend lost": true, "settle": true, "deadline": true,
		"client resets": false, "backend ends": false, "client lost": false, "close": false, "cut": false,
		"client's close frame": false, "backend's close frame": false,
	} {
		if c := inState(true, []string{event}, time.Hour); c.takesMessages() != want {
			t.Errorf("%s: takes messages: %v", event, !want)
		}
	}
}

// inState returns the course of a tunnel to which events have happened.
func inState(websocket bool, events []string, now time.Duration) *course {
	c := &course{websocket: websocket}
	for _, name := range events {
		for _, event := range courseEvents {
			if event.name == name {
				event.take(c, now)
			}
		}
	}
	return c
}
