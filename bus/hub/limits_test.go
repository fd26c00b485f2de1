package hub_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus/hub"
)

// A client that sends more messages than it may is closed, whatever they are; one that sends
// as many is not.
func TestHandlerMessageRate(t *testing.T) {
	t.Parallel()
	server := serveHub(t, startHub(t, nil, nil), &hub.HandlerOptions{
		MessageRate: 1, MessageBurst: 4,
		Message: func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	})
	bye := masked(closing, "\x03\xe8bye")
	for _, tt := range []struct {
		name string
		sent []byte
		want string // of the close frame
	}{
		{"as many as may be", append(bytes.Repeat(masked(text, "x"), 4), bye...), "88 1000"},
		{"messages", append(bytes.Repeat(masked(text, "x"), 100), bye...), "88 1008"},
		{"pings", append(bytes.Repeat(masked(ping, "x"), 100), bye...), "88 1008"},
		{"fragments", append(masked(text&^part, "x"), append(bytes.Repeat(masked(0, "x"), 100), bye...)...), "88 1008"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, in := rawClient(t, server, tt.sent)
			frames := received(t, in)
			if n := len(frames); n == 0 || n > 50 || frames[n-1] != tt.want {
				t.Errorf("got %q, want a close frame %q", frames, tt.want)
			}
		})
	}
}

// A member is closed when its permission ends, which can be moved.
func TestMemberExpires(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		expires time.Duration // 0 is never
		extend  []time.Duration
		want    time.Duration // when it is closed; 0 is never
	}{
		{"never", 0, nil, 0},
		{"in a minute", time.Minute, nil, time.Minute},
		{"it has already", -time.Minute, nil, 1},
		{"more time", time.Minute, []time.Duration{time.Hour}, time.Hour},
		{"less time", time.Hour, []time.Duration{time.Minute}, time.Minute},
		{"none at all", time.Hour, []time.Duration{-time.Minute}, time.Second},
		{"for ever", time.Minute, []time.Duration{time.Hour, 0}, 0},
		{"later", 0, []time.Duration{time.Minute}, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				at := func(d time.Duration) (at time.Time) {
					if d != 0 {
						at = start.Add(d)
					}
					return at
				}
				h, c := startHub(t, nil, nil), &conn{}
				m, err := h.Connect(t.Context(), c, hub.MemberOptions{Expires: at(tt.expires)})
				if err != nil {
					t.Fatal(err)
				}
				closed := func() string {
					synctest.Wait()
					code, reason := c.closed()
					return fmt.Sprint(code, reason)
				}
				if tt.expires >= 0 {
					time.Sleep(time.Second)
				}
				for _, d := range tt.extend {
					m.Extend(at(d))
				}
				if tt.want > 0 {
					if wait := tt.want - time.Since(start) - 1; wait > 0 {
						if time.Sleep(wait); closed() != "0" {
							t.Errorf("closed after %v with %s", time.Since(start), closed())
						}
					}
					time.Sleep(time.Nanosecond)
					if closed() != "1008expired" {
						t.Errorf("after %v: %s, want 1008", time.Since(start), closed())
					}
					m.Extend(at(time.Hour)) // does nothing, and leaves no timer
					return
				}
				time.Sleep(24 * time.Hour)
				if closed() != "0" {
					t.Errorf("closed with %s", closed())
				}
			})
		})
	}
}
