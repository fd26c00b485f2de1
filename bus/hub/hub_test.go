package hub_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// Each kind of Who selects the same members from every node, and each of them
// once.
func TestHubWho(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		who  hub.Who
		want string // a and b are on the first node, c and d on the second
	}{
		{"nobody", hub.Who{}, ""},
		{"all", hub.Who{All: true}, "abcd"},
		{"a room", inRooms("red"), "ac"},
		{"rooms", inRooms("red", "blue"), "abc"},
		{"the same room twice", inRooms("red", "red"), "ac"},
		{"a room without members", inRooms("green"), ""},
		{"an ID", hub.Who{IDs: []string{"c"}}, "c"},
		{"a room and IDs", hub.Who{Rooms: []string{"red"}, IDs: []string{"c", "d", "nobody"}}, "acd"},
		{"an ID is no room", inRooms("a"), ""},
		{"except a room", hub.Who{All: true, ExceptRooms: []string{"blue"}}, "ad"},
		{"except IDs", hub.Who{Rooms: []string{"red", "blue"}, ExceptIDs: []string{"a", "b"}}, "c"},
		{"except all", hub.Who{Rooms: []string{"red"}, ExceptRooms: []string{"red"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				memory := &bus.Memory{}
				nodes := []*hub.Hub{startHub(t, memory, nil), startHub(t, memory, nil), startHub(t, memory, nil)}
				conns := make([]*conn, 4)
				_, conns[0] = connect(t, nodes[0], "a", "red")
				_, conns[1] = connect(t, nodes[0], "b", "blue")
				_, conns[2] = connect(t, nodes[1], "c", "red", "blue")
				_, conns[3] = connect(t, nodes[1], "d")
				got := func() string {
					synctest.Wait()
					var b strings.Builder
					for i, c := range conns {
						b.WriteString(strings.Repeat(string(rune('a'+i)), len(c.take())))
					}
					return b.String()
				}
				for i, node := range nodes {
					if send(t, node, tt.who, "hello"); got() != tt.want {
						t.Errorf("sent by node %d: not to %q alone", i, tt.want)
					}
					roster, err := node.Members(t.Context(), tt.who)
					if ids := ids(roster.Members); err != nil || ids != tt.want || roster.Answered != roster.Nodes {
						t.Errorf("Members of node %d: %q, %+v, %v", i, ids, roster, err)
					}
				}
				tt.who.Local = true
				send(t, nodes[1], tt.who, "hello")
				if got, want := got(), strings.Trim(tt.want, "ab"); got != want {
					t.Errorf("local: %q, want %q", got, want)
				}
			})
		})
	}
}

func ids(members []hub.MemberInfo) string {
	var all []string
	for _, info := range members {
		all = append(all, info.ID)
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

// The messages of one sender to one room stay in order on a bus on which topics
// and publishers overtake each other; on one that loses messages, too.
func TestHubOrder(t *testing.T) {
	t.Parallel()
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprint("lossy=", lossy), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const senders, messages = 4, 100
				b := &faulty{Memory: bus.Memory{Queue: 10_000}}
				nodes := []*hub.Hub{startHub(t, b, nil), startHub(t, b, nil)}
				var conns []*conn
				for i := range 4 {
					// The last ones are in both rooms, and get each message to both once.
					_, c := connect(t, nodes[i%2], fmt.Sprint(i), [][]string{{"red"}, {"red", "blue"}}[i/2]...)
					conns = append(conns, c)
				}
				b.set(func() { b.mixed, b.lossy = true, lossy })
				var all sync.WaitGroup
				for s := range senders {
					all.Go(func() {
						for n := range messages {
							who := []hub.Who{inRooms("red"), inRooms("red", "blue")}[s%2]
							send(t, nodes[s/2], who, fmt.Sprintf("%d %d", s, n))
						}
					})
				}
				all.Wait()
				b.settle()
				synctest.Wait()
				for i, c := range conns {
					next := [senders]int{}
					for _, message := range c.take() {
						from, number, _ := strings.Cut(message, " ")
						s, _ := strconv.Atoi(from)
						n, _ := strconv.Atoi(number)
						if n < next[s] || !lossy && n != next[s] {
							t.Fatalf("member %d got message %d of sender %d, and had all before %d", i, n, s, next[s])
						}
						next[s] = n + 1
					}
					for s, n := range next {
						if n != messages && (!lossy || s/2 == i%2) {
							t.Errorf("member %d got %d messages of sender %d", i, n, s)
						}
					}
				}
			})
		})
	}
}

// Join returns when the messages of other nodes arrive, for who comes into a new
// room and for who follows meanwhile; and only rooms with members are
// subscribed to.
func TestHubInterest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &faulty{}
		there := startHub(t, b, nil)
		synctest.Wait() // here's is the second subscription
		here := startHub(t, b, nil)
		first, firstConn := connect(t, here, "first")
		second, secondConn := connect(t, here, "second")
		var changes []string
		stop := here.OnRooms(func(opened, closed hub.Who) {
			if len(opened.Rooms)+len(closed.Rooms) > 0 {
				changes = append(changes, fmt.Sprint(opened.Rooms, closed.Rooms, closed.IDs))
			}
		})
		b.set(func() { b.slow = time.Second })

		start := time.Now()
		var joins sync.WaitGroup
		for _, m := range []*hub.Member{first, second} {
			joins.Go(func() {
				if err := m.Join(t.Context(), "room"); err != nil {
					t.Error(err)
				}
				if waited := time.Since(start); waited != time.Second {
					t.Errorf("joined after %v, the bus takes 1s", waited)
				}
			})
		}
		joins.Wait()
		send(t, there, inRooms("room"), "hello")
		synctest.Wait()
		if got := append(firstConn.take(), secondConn.take()...); len(got) != 2 {
			t.Errorf("got %q", got)
		}

		first.Leave("room")
		second.Leave("room")
		if err := second.Join(t.Context(), "room"); err != nil { // before the round, or behind it
			t.Error(err)
		}
		send(t, there, inRooms("room"), "again")
		synctest.Wait()
		if got := append(firstConn.take(), secondConn.take()...); len(got) != 1 {
			t.Errorf("got %q", got)
		}
		second.Close(1000, "")
		synctest.Wait()
		stop()
		if err := first.Join(t.Context(), "other"); err != nil {
			t.Error(err)
		}
		if want := []string{"[room] [] []", "[] [room] [second]"}; !slices.Equal(changes, want) {
			t.Errorf("OnRooms told %q, want %q", changes, want)
		}
		b.set(func() {
			topics := slices.Sorted(maps.Keys(b.subs[1].topics))
			want := []string{"hub", "hub:member:first", "hub:node:" + here.ID(), "hub:room:other"}
			if !slices.Equal(topics, want) {
				t.Errorf("subscribed to %q, want %q", topics, want)
			}
		})
		var again hub.Who
		here.OnRooms(func(opened, _ hub.Who) { again = opened })
		if !slices.Equal(again.Rooms, []string{"other"}) || !slices.Equal(again.IDs, []string{"first"}) {
			t.Errorf("a late OnRooms is told %+v", again)
		}
	})
}

// Members of other nodes are moved and closed like those of this one.
func TestHubCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		near, far := startHub(t, memory, nil), startHub(t, memory, nil)
		var conns []*conn
		for i, h := range []*hub.Hub{near, far, far} {
			_, c := connect(t, h, string(rune('a'+i)), "room")
			conns = append(conns, c)
		}
		const two = "two\xff" // names are bytes
		in := func(room string) string {
			synctest.Wait()
			roster, err := near.Members(t.Context(), inRooms(room))
			if err != nil {
				t.Error(err)
			}
			return ids(roster.Members)
		}
		ctx := t.Context()
		if err := near.Join(ctx, hub.Who{IDs: []string{"a", "b"}}, "one", two); err != nil || in("one")+in(two) != "abab" {
			t.Errorf("Join: %v, %q and %q", err, in("one"), in(two))
		}
		if err := near.Leave(ctx, inRooms("room"), two, "room"); err != nil || in("one")+in(two)+in("room") != "ab" {
			t.Errorf("Leave: %v, %q, %q and %q", err, in("one"), in(two), in("room"))
		}
		send(t, near, inRooms("one"), "goodbye")
		if err := near.Disconnect(ctx, inRooms("one"), 4001, "enough"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		for i, c := range conns {
			code, reason := c.closed()
			if got := fmt.Sprint(c.take(), code, reason); i < 2 && got != "[goodbye] 4001enough" || i == 2 && got != "[] 0" {
				t.Errorf("member %d: %q", i, got)
			}
		}
		if err := far.Disconnect(ctx, hub.Who{All: true}, 1005, strings.Repeat("ö", 100)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if code, reason := conns[2].closed(); code != 1005 || reason != "" {
			t.Errorf("closed with %d, %q", code, reason)
		}
		if s := near.Stats(); s != (hub.Stats{Nodes: 2, Sent: 1, Delivered: 1}) {
			t.Errorf("%+v", s)
		}
	})
}

// Whoever asks for members learns who didn't answer, and what all others said,
// however much that is.
func TestHubMembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &faulty{}
		near, far := startHub(t, b, nil), startHub(t, b, nil)
		m, err := far.Connect(t.Context(), &conn{}, hub.MemberOptions{ID: "ann", Data: map[string]int{"age": 7}, Rooms: []string{"z", "a"}})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // until the nodes know each other
		roster, err := near.Members(t.Context(), inRooms("a"))
		if err != nil || len(roster.Members) != 1 {
			t.Fatalf("%+v, %v", roster, err)
		}
		if got, want := fmt.Sprintf("%s", roster.Members[0]), fmt.Sprintf("{ann %s [a z] {\"age\":7}}", far.ID()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := m.SetData(func() {}); err == nil {
			t.Error("a function is no JSON, but no error")
		}
		if err := m.SetData("new"); err != nil || string(m.Info().Data) != `"new"` {
			t.Errorf("SetData: %v, %s", err, m.Info().Data)
		}

		const many = 2500
		for range many {
			connect(t, far, "", "crowd")
		}
		roster, err = near.Members(t.Context(), inRooms("crowd"))
		if err != nil || len(roster.Members) != many || roster.Answered != 2 {
			t.Errorf("%d members, %d of %d nodes, %v", len(roster.Members), roster.Answered, roster.Nodes, err)
		}

		connect(t, near, "bob", "a")
		b.set(func() { b.mute = true })
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if roster, err := near.Members(ctx, inRooms("a")); err != nil || roster.Answered != 1 || time.Since(start) != time.Second {
			t.Errorf("with a second's time: %+v, %v", roster, err)
		}
		roster, err = near.Members(t.Context(), inRooms("a"))
		if err != nil || ids(roster.Members) != "bob" || roster.Answered != 1 || roster.Nodes != 2 || time.Since(start) != 3*time.Second {
			t.Errorf("a silent node: %+v, %v after %v", roster, err, time.Since(start))
		}
		roster, err = near.Members(t.Context(), inRooms("a"))
		if err != nil || roster.Answered != 1 || roster.Nodes != 2 || time.Since(start) != 3100*time.Millisecond {
			t.Errorf("a node that was silent before: %+v, %v after %v", roster, err, time.Since(start))
		}
		b.set(func() { b.away = true })
		if roster, err := near.Members(t.Context(), inRooms("a")); !errors.Is(err, errAway) || ids(roster.Members) != "bob" {
			t.Errorf("without a bus: %+v, %v", roster, err)
		}
	})
}

// Nodes know each other at once, and learn of a node's end: at once if it says
// so, else within five heartbeats.
func TestHubNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bus.Memory{}
		killed := &single{Bus: b}
		var mu sync.Mutex
		var told []string
		first := startHub(t, b, &hub.Options{Heartbeat: time.Second, Node: func(id string, alive bool) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(id, alive))
		}})
		second, third := newHub(t, b, &hub.Options{Heartbeat: time.Second}), newHub(t, killed, &hub.Options{Heartbeat: time.Second})
		stopSecond, stopThird := runHub(t, second), runHub(t, third)
		defer stopThird()
		synctest.Wait()
		for i, h := range []*hub.Hub{first, second, third} {
			if n := h.Stats().Nodes; n != 3 {
				t.Errorf("node %d knows %d nodes", i, n)
			}
		}
		stopSecond()
		synctest.Wait()
		if n := first.Stats().Nodes; n != 2 {
			t.Errorf("%d nodes when one has left", n)
		}
		killed.mute.Store(true)
		time.Sleep(5 * time.Second)
		if n := first.Stats().Nodes; n != 1 {
			t.Errorf("%d nodes when one is silent", n)
		}
		killed.mute.Store(false)
		time.Sleep(5 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(told[:2])
		want := []string{second.ID() + "true", third.ID() + "true"}
		slices.Sort(want)
		want = append(want, second.ID()+"false", third.ID()+"false", third.ID()+"true")
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// While the bus is away, each node goes on by itself and says so. When it is
// back, who has joined meanwhile is reached, and the hub tells that messages are
// missing.
func TestHubBusAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &faulty{}
		gaps := make(chan hub.Who, 10)
		far := startHub(t, b, nil)
		b.set(func() { b.away = true })
		near := startHub(t, b, &hub.Options{Gap: func(who hub.Who, _ *bus.Gap) { gaps <- who }})
		m, c := connect(t, near, "ann")
		if err := m.Join(t.Context(), "room"); !errors.Is(err, errAway) {
			t.Errorf("Join: %v", err)
		}
		if err := near.Send(t.Context(), inRooms("room", "more"), hub.Text([]byte("here"))); !errors.Is(err, errAway) {
			t.Errorf("Send: %v", err)
		}
		synctest.Wait()
		if got := c.take(); !slices.Equal(got, []string{"here"}) {
			t.Errorf("the sender's node got %q", got)
		}
		b.back()
		synctest.Wait()
		if who := <-gaps; fmt.Sprint(who) != "{true [room] [ann] [] [] true}" || len(gaps) != 0 {
			t.Errorf("a gap of %v and %d more", who, len(gaps))
		}
		send(t, far, inRooms("room"), "there")
		send(t, far, hub.Who{IDs: []string{"ann"}}, "to you")
		synctest.Wait()
		if got := c.take(); !slices.Equal(got, []string{"there", "to you"}) {
			t.Errorf("got %q", got)
		}
		if s := near.Stats(); s.Sent != 1 || s.Received != 2 || s.Delivered != 3 || s.Gaps != 1 {
			t.Errorf("%+v", s)
		}
		if near.Stats().Nodes != 2 || far.Stats().Nodes != 2 {
			t.Error("the nodes don't know each other")
		}
	})
}

// As long as the bus couldn't subscribe to a room, everybody who joins it is told.
func TestHubJoinAfterFailure(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := &faulty{}
			h := startHub(t, b, nil)
			m, _ := connect(t, h, "ann")
			other, _ := connect(t, h, "bob")
			synctest.Wait()
			b.set(func() { b.away = true })
			for i, m := range []*hub.Member{m, other} {
				if err := m.Join(t.Context(), "room"); !errors.Is(err, errAway) {
					t.Errorf("member %d joins while the bus is away: %v", i, err)
				}
			}
			b.set(func() { b.all = all })
			b.back()
			synctest.Wait()
			third, _ := connect(t, h, "cid")
			if err := third.Join(t.Context(), "room"); err != nil {
				t.Errorf("a gap of all topics: %v; Join after it: %v", all, err)
			}
		})
	}
}

// Run's end is the end of the members, and of all that waits.
func TestHubEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, nil, nil)
		stop := runHub(t, h)
		m, c := connect(t, h, "ann", "room")
		slow := &conn{stuck: make(chan struct{})}
		connectConn(t, h, slow, "slow", "room")
		send(t, h, inRooms("room"), "goodbye")
		start := time.Now()
		stop()
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("Run has waited for a stuck member for %v, want 5s", took)
		}
		if code, reason := c.closed(); code != 1012 || reason != "service restart" || !slices.Equal(c.take(), []string{"goodbye"}) {
			t.Errorf("closed with %d, %q", code, reason)
		}
		if code, _ := slow.closed(); code == 0 {
			t.Error("the stuck one isn't closed")
		}
		if _, err := h.Connect(t.Context(), &conn{}, hub.MemberOptions{}); !errors.Is(err, hub.ErrClosed) {
			t.Errorf("Connect: %v", err)
		}
		if err := m.Join(t.Context(), "room"); err != nil || len(m.Info().Rooms) != 0 {
			t.Errorf("Join of one who has ended: %v, %v", err, m.Info())
		}
		if err := h.Run(t.Context()); err == nil {
			t.Error("Run a second time: no error")
		}
	})
}

// Who waits for the bus when the hub ends doesn't wait for ever.
func TestHubEndsJoin(t *testing.T) {
	t.Parallel()
	for range 10 { // whether Run sees the room or its end first is up to chance
		synctest.Test(t, func(t *testing.T) {
			b := &faulty{}
			h := newHub(t, b, nil)
			stop := runHub(t, h)
			m, _ := connect(t, h, "")
			b.set(func() { b.slow = time.Minute })
			var joins sync.WaitGroup
			for _, room := range []string{"red", "blue"} {
				joins.Go(func() {
					if err := m.Join(context.Background(), room); err != nil && !errors.Is(err, hub.ErrClosed) {
						t.Error(err)
					}
				})
				synctest.Wait() // the first is being added, the other waits for that
			}
			stop()
			joins.Wait()
		})
	}
}

// A bus that ends the subscription ends the hub.
func TestHubSubscriptionEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &faulty{}
		h := newHub(t, b, nil)
		ended := make(chan error)
		go func() { ended <- h.Run(context.Background()) }()
		_, c := connect(t, h, "")
		b.subs[0].Close()
		if err := <-ended; !errors.Is(err, bus.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		if code, _ := c.closed(); code != 1012 {
			t.Errorf("the member is closed with %d", code)
		}
	})
}

// Who connects before Run waits for it.
func TestHubConnectBeforeRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		h, other := newHub(t, memory, nil), startHub(t, memory, nil)
		connected := make(chan *conn)
		go func() {
			_, c := connect(t, h, "ann")
			connected <- c
		}()
		time.Sleep(time.Minute)
		select {
		case <-connected:
			t.Error("a member that others can't reach")
		default:
		}
		defer runHub(t, h)()
		c := <-connected
		send(t, other, hub.Who{IDs: []string{"ann"}}, "hello")
		synctest.Wait()
		if got := c.take(); len(got) != 1 {
			t.Errorf("got %q", got)
		}
	})
}

// What isn't a hub's, or of another version's, does no harm.
func TestHubForeignMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		h := startHub(t, memory, &hub.Options{Presence: true})
		_, c := connect(t, h, "ann", "room")
		for _, data := range []string{"", "\x01", "\x02\x01", "hello", "\x01\x01\x01x\x01\x0a:room:room\x00wrong topic",
			"\x01\x03\x01x\x01\x00\x00no JSON", "\x01\x06\x01x\x00\x00no JSON", "\x01\x07\x01x\x00\x00{}",
			"\x01\x0b\x01x\x00\x00\xff", "\x01\x0b\x01x\x00\x00\x01\x01y", "\x01\x0c\x01x\x00\x00no JSON", "\x01\x0d\x01x\x00\x00",
			"\x01\x0e\x01x\x00\x00\xff", "\x01\x0f\x01x\x00\x00\x01\x01\x00"} {
			if err := memory.Publish(t.Context(), "hub", []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := c.take(); len(got) != 0 {
			t.Errorf("got %q", got)
		}
	})
}

// The README's hub with a client that ignores time limits: what is wrong is said
// where it is made, before anybody could drop the error of Run.
func TestNew(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	for _, b := range []bus.Bus{&bus.Redis{Client: client}, &bus.Streams{Client: client}} {
		if _, err := hub.New(b, nil); err == nil || !strings.Contains(err.Error(), "ContextTimeoutEnabled") {
			t.Errorf("%T: %v", b, err)
		}
	}
	if _, err := hub.New((*bus.Redis)(nil), nil); err == nil || !strings.Contains(err.Error(), "a nil *bus.Redis") {
		t.Errorf("a nil bus of some type: %v", err)
	}
	for want, opts := range map[string]hub.Options{
		"QueueBytes is -1": {QueueBytes: -1}, "QueueMessages is -1": {QueueMessages: -1},
		"WriteTimeout is -1ns": {WriteTimeout: -1}, "Heartbeat is -1ns": {Heartbeat: -1}, "Timeout is -1ns": {Timeout: -1},
		"Heartbeat is 5ns: a number without a unit": {Heartbeat: 5},
		"OnPresence is set, but not Presence":       {OnPresence: func(hub.MemberInfo, string, bool) {}},
	} {
		if _, err := hub.New(&bus.Memory{}, &opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// sized is a bus that refuses what [bus.Redis] refuses.
type sized struct{ bus.Memory }

func (s *sized) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > 8<<20 {
		return errors.New("too large")
	}
	return s.Memory.Publish(ctx, topic, data)
}

// A node with members of which much is known lists them in messages that aren't huge.
func TestHubMembersLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &sized{}
		near, far := startHub(t, b, nil), startHub(t, b, nil)
		synctest.Wait()
		data := strings.Repeat("x", 20<<10)
		for range 500 {
			if _, err := far.Connect(t.Context(), &conn{}, hub.MemberOptions{Data: data}); err != nil {
				t.Fatal(err)
			}
		}
		roster, err := near.Members(t.Context(), hub.Who{All: true})
		if err != nil || len(roster.Members) != 500 || roster.Answered != 2 {
			t.Errorf("got %d members of %d nodes, %v", len(roster.Members), roster.Answered, err)
		}
	})
}
