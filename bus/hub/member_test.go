package hub_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// A member that doesn't take its messages is closed with 1013, or loses the
// oldest of them; the others get theirs at once in any case.
func TestMemberSlow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		opts    hub.Options
		size    int // of messages
		code    int // that the slow one is closed with
		dropped int
	}{
		{"messages", hub.Options{QueueMessages: 10}, 1, 1013, 0},
		{"bytes", hub.Options{QueueBytes: 1000}, 100, 1013, 0},
		{"drop by messages", hub.Options{QueueMessages: 10, DropOldest: true}, 1, 0, 89},
		{"drop by bytes", hub.Options{QueueBytes: 1000, DropOldest: true}, 100, 0, 89},
		{"fits", hub.Options{}, 100, 0, 0},
		{"bytes by default", hub.Options{}, 20_000, 1013, 0},
		{"drop by bytes by default", hub.Options{DropOldest: true}, 20_000, 0, 47}, // 52 fit into 1 MiB
		{"small ones count as 64 bytes", hub.Options{QueueBytes: 640, DropOldest: true}, 2, 0, 89},
		{"the newest only", hub.Options{QueueMessages: 1, DropOldest: true}, 100, 0, 98},
		{"each is too big", hub.Options{QueueBytes: 10, DropOldest: true}, 100, 0, 98},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tt.opts.WriteTimeout = time.Hour
				h := startHub(t, nil, &tt.opts)
				slow := &conn{stuck: make(chan struct{})}
				connectConn(t, h, slow, "slow", "room")
				_, quick := connect(t, h, "quick", "room")
				text := func(i int) string { return fmt.Sprintf("%0*d", max(2, tt.size), i) }
				for i := range 100 {
					send(t, h, inRooms("room"), text(i))
					synctest.Wait() // the first message is being written, the others wait
					if got := quick.take(); !slices.Equal(got, []string{text(i)}) {
						t.Fatalf("message %d: the quick one got %q", i, got)
					}
				}
				queued := (99 - tt.dropped) * max(tt.size, 64)
				if tt.code != 0 {
					queued = 0
				}
				if s := h.Stats(); s.LongestQueue != queued || s.QueuedBytes != int64(queued) {
					t.Errorf("%+v, want %d bytes in a queue", s, queued)
				}
				close(slow.stuck)
				synctest.Wait()
				code, _ := slow.closed()
				s := h.Stats()
				if s.QueuedBytes != 0 || s.LongestQueue != 0 {
					t.Errorf("%+v once all is sent", s)
				}
				if code != tt.code || s.Dropped != int64(tt.dropped) || (s.Slow == 1) != (code == 1013) || s.Members != 2-int(s.Slow) {
					t.Errorf("closed with %d, %+v; want %d and %d dropped", code, s, tt.code, tt.dropped)
				}
				want := []string{text(0)}
				for i := 1 + tt.dropped; i < 100 && code == 0; i++ {
					want = append(want, text(i))
				}
				if got := slow.take(); !slices.Equal(got, want) || slow.after {
					t.Errorf("the slow one got %d messages, want %d: the first and the newest", len(got), len(want))
				}
			})
		})
	}
}

// What is written at once is bounded, so that WriteTimeout is fair to who is slow
// but takes what it can.
func TestMemberBatches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ size, want int }{{1, 64}, {10_000, 7}, {100_000, 1}} {
		synctest.Test(t, func(t *testing.T) {
			h := startHub(t, nil, &hub.Options{QueueBytes: 100 << 20})
			c := &conn{stuck: make(chan struct{})}
			m := connectConn(t, h, c, "")
			m.Send(hub.Text(nil))
			synctest.Wait()
			for range 100 {
				m.Send(hub.Text(make([]byte, tt.size)))
			}
			for _, want := range []int{1, tt.want} {
				c.stuck <- struct{}{}
				synctest.Wait()
				if got := len(c.take()); got != want {
					t.Errorf("%d messages of %d bytes, want %d", got, tt.size, want)
				}
			}
			close(c.stuck)
		})
	}
}

// A connection that hangs is given up, and that it fails ends the member.
func TestMemberConnFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, nil)
		stuck := &conn{stuck: make(chan struct{})}
		m := connectConn(t, h, stuck, "", "room")
		start := time.Now()
		for range 200 { // more than is written at once: the rest is not tried
			m.Send(hub.Text([]byte("hello")))
		}
		time.Sleep(5*time.Second - time.Nanosecond)
		if code, _ := stuck.closed(); code != 0 {
			t.Errorf("closed after %v", time.Since(start))
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if code, _ := stuck.closed(); code != 1011 || h.Stats().Members != 0 || stuck.after {
			t.Errorf("closed with %d, %d members", code, h.Stats().Members)
		}
	})
}

// What is in the queue arrives before the close, and nothing behind it; only the
// first Close counts.
func TestMemberClose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code, want  int
		reason, cut string
	}{
		{1000, 1000, "bye", "bye"},
		{4999, 4999, strings.Repeat("ö", 62), strings.Repeat("ö", 61)},
		{3000, 3000, strings.Repeat("o", 124), strings.Repeat("o", 123)},
		{999, 1005, "bye", ""}, {1004, 1005, "bye", ""}, {1005, 1005, "bye", ""}, {1006, 1005, "bye", ""},
		{1015, 1005, "bye", ""}, {2999, 1005, "bye", ""}, {5000, 1005, "bye", ""}, {-1, 1005, "bye", ""},
	} {
		t.Run(fmt.Sprint(tt.code), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, nil, nil)
				c := &conn{stuck: make(chan struct{})}
				m := connectConn(t, h, c, "", "room")
				for range 100 {
					m.Send(hub.Text(nil))
				}
				m.Close(tt.code, tt.reason)
				m.Close(1000, "later")
				m.Send(hub.Text(nil))
				send(t, h, inRooms("room"), "")
				close(c.stuck)
				synctest.Wait()
				code, reason := c.closed()
				if code != tt.want || reason != tt.cut || len(c.take()) != 100 || c.after {
					t.Errorf("closed with %d, %q", code, reason)
				}
			})
		})
	}
}

// The hooks tell what happens to a member in its order, and may use the hub.
func TestMemberHooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h *hub.Hub
		var told []string
		tell := func(what string) func(*hub.Member, string) {
			return func(m *hub.Member, room string) {
				told = append(told, what+m.ID()+room)
				send(t, h, hub.Who{Rooms: []string{room}, ExceptIDs: []string{m.ID()}}, what+room)
			}
		}
		h = startHub(t, nil, &hub.Options{Joined: tell("+"), Left: tell("-")})
		_, c := connect(t, h, "b")
		if err := h.Join(t.Context(), hub.Who{All: true}, "one"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		m, _ := connect(t, h, "a", "one", "two")
		synctest.Wait()
		m.Leave("two", "three")
		m.Leave("two")
		m.Close(1000, "")
		synctest.Wait()
		if want := []string{"+bone", "+aone", "+atwo", "-atwo", "-aone"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		if got, want := c.take(), []string{"+one", "-one"}; !slices.Equal(got, want) {
			t.Errorf("the other got %q, want %q", got, want)
		}
	})
}

// A member that moves faster than the hooks return makes no long list of calls.
func TestMemberHooksLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var told []string
		h := startHub(t, nil, &hub.Options{
			Joined: func(_ *hub.Member, room string) { <-release; told = append(told, "+"+room) },
			Left:   func(_ *hub.Member, room string) { told = append(told, "-"+room) },
		})
		m, _ := connect(t, h, "", "one")
		for range 1000 {
			for _, rooms := range [][]string{{"one", "two"}, {"two", "one"}} {
				m.Leave(rooms[0])
				if err := m.Join(t.Context(), rooms[1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		m.Close(1000, "")
		close(release)
		synctest.Wait()
		in := make(map[string]int)
		for _, what := range told {
			in[what[1:]] += ',' - int(what[0]) // 1 or -1
		}
		if len(told) > 600 || in["one"] != 0 || in["two"] != 0 {
			t.Errorf("told of %d changes, which leave %v", len(told), in)
		}
	})
}

// Data that is no JSON is an error of Connect.
func TestMemberData(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, nil)
	if _, err := h.Connect(t.Context(), &conn{}, hub.MemberOptions{Data: make(chan int)}); err == nil || errors.Is(err, hub.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// All at once, for the race detector: senders, members that come, move and go,
// and the hub's end in the middle of it.
func TestHubConcurrently(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	var all sync.WaitGroup
	var conns []*conn
	var stops []func()
	for node := range 2 {
		h := newHub(t, memory, &hub.Options{QueueMessages: 4, DropOldest: node == 0, Joined: func(*hub.Member, string) {}})
		stops = append(stops, runHub(t, h))
		for range 4 {
			all.Go(func() {
				for range 200 {
					send(t, h, inRooms("a", "b"), "x")
					send(t, h, hub.Who{All: true, ExceptRooms: []string{"b"}}, "x")
				}
			})
			c := &conn{}
			conns = append(conns, c)
			all.Go(func() {
				for i := range 200 {
					m, err := h.Connect(t.Context(), c, hub.MemberOptions{ID: "id", Rooms: []string{"a"}})
					if err != nil {
						return // Run has ended
					}
					_ = m.Join(t.Context(), "b", fmt.Sprint(i))
					m.Send(hub.Text(nil))
					m.Leave("a")
					if i%2 == 0 {
						m.Close(1000, "")
					} else {
						_ = h.Disconnect(t.Context(), hub.Who{IDs: []string{"id"}}, 1000, "")
					}
					c = &conn{}
				}
			})
		}
		all.Go(func() {
			for range 20 {
				if _, err := h.Members(t.Context(), hub.Who{All: true}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	stops[0]()
	all.Wait()
	stops[1]()
	for _, c := range conns {
		if code, _ := c.closed(); c.after || code == 0 && len(c.take()) > 0 {
			t.Error("a member wasn't closed once")
		}
	}
}
