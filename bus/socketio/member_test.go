package socketio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// fakeSockets are the sockets of a member in a test.
type fakeSockets struct {
	sockets []Socket
	find    func() // before each Find
	do      func(Action)
}

func (f *fakeSockets) Find(s Selection) (found []Socket) {
	if f.find != nil {
		f.find()
	}
	for _, socket := range f.sockets {
		if s.Has(socket) {
			found = append(found, socket)
		}
	}
	return found
}

func (f *fakeSockets) Do(s Selection, a Action) int {
	n := 0
	for _, socket := range f.sockets {
		if s.Has(socket) {
			if f.do != nil {
				f.do(a)
			}
			n++
		}
	}
	return n
}

var memberAdapters = map[string]Adapter{
	"legacy": Legacy{}, "current": PubSub{}, "specific": PubSub{SpecificResponses: true}, "sharded": Sharded{}, "streams": Streams{},
	"heartbeats": Streams{Heartbeats: true},
}

// later lets a second pass, and waits until everything that it causes has happened.
func later() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// A request waits until its time limit, and returns the answers that have arrived by
// then.
func TestRequestLimit(t *testing.T) {
	t.Parallel()
	for name, adapter := range memberAdapters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &double{}
				hung := make(chan struct{})
				asks := start(t, d, adapter, ClusterOptions{Sockets: &fakeSockets{sockets: []Socket{{ID: "own"}}}})
				start(t, d, adapter, ClusterOptions{Sockets: &fakeSockets{sockets: []Socket{{ID: "other"}}}})
				start(t, d, adapter, ClusterOptions{Sockets: &fakeSockets{find: func() { <-hung }}})
				start(t, d, adapter, ClusterOptions{Namespace: "chat"}) // which isn't asked
				synctest.Wait()
				defer close(hung)

				begin := time.Now()
				sockets, err := asks.Timeout(3 * time.Second).FetchSockets(t.Context())
				var missing *IncompleteError
				if !errors.As(err, &missing) || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("error is %v", err)
				}
				if missing.Nodes != 1 || missing.Expected != 2 || time.Since(begin) != 3*time.Second {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
				if len(sockets) != 2 || sockets[0].ID != "own" || sockets[1].ID != "other" {
					t.Errorf("sockets are %v", sockets)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := asks.FetchSockets(ctx); !errors.As(err, &missing) || time.Since(begin) != 4*time.Second {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

// If some clients don't acknowledge an event, the acknowledgements of the others are
// returned beside the error.
func TestMissingAcknowledgements(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		asks := start(t, d, nil, ClusterOptions{})
		var late func(any)
		n := 0
		start(t, d, nil, ClusterOptions{Sockets: &fakeSockets{sockets: []Socket{{ID: "a"}, {ID: "b"}}, do: func(a Action) {
			if late = a.(Event).Ack; n == 0 {
				late("yes")
			}
			n++
		}}})
		synctest.Wait()
		answers, err := asks.EmitWithAck(t.Context(), "event")
		want := &IncompleteError{Nodes: 1, Expected: 1, Clients: 1, Reached: 2, Err: context.DeadlineExceeded}
		if !reflect.DeepEqual(err, want) || !reflect.DeepEqual(answers, []any{"yes"}) {
			t.Errorf("%v, %v", answers, err)
		}
		late("too late") // harms nobody
	})
}

// While Redis is away, requests fail within their time limit. When it is back,
// everything works again.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	for name, adapter := range memberAdapters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &double{away: true}
				var gaps sync.Map
				opts := ClusterOptions{
					Logger: slog.New(slog.DiscardHandler), Gap: func(g *bus.Gap) { gaps.Store(g, true) },
					Sockets: &fakeSockets{sockets: []Socket{{ID: "one"}}},
				}
				a := start(t, d, adapter, opts)
				start(t, d, adapter, opts)
				begin := time.Now()
				if _, err := a.FetchSockets(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != defaultTimeout {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
				fetch := func() {
					t.Helper()
					if sockets, err := a.FetchSockets(t.Context()); err != nil || len(sockets) != 2 {
						t.Errorf("sockets are %v, %v", sockets, err)
					}
				}
				d.set(false)
				fetch()
				d.set(true)
				if _, err := a.FetchSockets(t.Context()); !errors.Is(err, errAway) {
					t.Errorf("error is %v", err)
				}
				if err := a.Emit(t.Context(), "event"); !errors.Is(err, errAway) {
					t.Errorf("error is %v", err)
				}
				later()
				d.set(false)
				fetch()
				n := 0
				gaps.Range(func(g, _ any) bool { n++; return errors.Is(g.(*bus.Gap), errAway) })
				if n < 4 { // two members, two absences
					t.Errorf("%d gaps were told", n)
				}
			})
		})
	}
}

// A Cluster is ready when it has all of its channels, and not when a part of a Redis Cluster
// says that it is back.
func TestReadyForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{away: true, half: true}
		c := start(t, d, Sharded{}, ClusterOptions{Logger: slog.New(slog.DiscardHandler)})
		synctest.Wait()
		select {
		case <-c.ready:
			t.Error("it is ready with a part of its channels")
		default:
		}
		if d.half {
			t.Error("there was no Gap")
		}
		d.set(false)
		<-c.ready
	})
}

// stuck is a Redis that takes no message.
type stuck struct{ *double }

func (stuck) send(ctx context.Context, _ *frame) error {
	<-ctx.Done()
	return ctx.Err()
}

// The end of Run doesn't wait until an answer is sent.
func TestRunEndsWithinAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		asks := start(t, d, nil, ClusterOptions{})
		c, err := newCluster(stuck{d}, nil, &ClusterOptions{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		synctest.Wait()
		go asks.FetchSockets(t.Context()) // ends with its time limit
		synctest.Wait()
		began := time.Now()
		stop()
		if err := <-ended; err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(defaultTimeout)
	})
}

// A member is subscribed to what it needs, and to the channel of a room only while a
// socket is in it. A guest isn't subscribed as a member.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	const public20 = "a room of 20 letters"
	for _, tt := range []struct {
		name                string
		adapter             Adapter
		member, more, guest string
	}{
		{"legacy", Legacy{}, "socket.io#/# socket.io-request#/# socket.io-response#/#",
			"socket.io#/#" + public20 + "# socket.io#/#blue#", "socket.io-response#/#"},
		{"current", PubSub{Prefix: "x"}, "x#/# x-request#/# x-response#/# x-response#/#UID#",
			"x#/#" + public20 + "# x#/#blue#", "x-response#/# x-response#/#UID#"},
		{"static", Sharded{SubscriptionMode: SubscriptionModeStatic}, "socket.io#/# socket.io#/#UID#", "", "socket.io#/#UID#"},
		{"dynamic", Sharded{}, "socket.io#/# socket.io#/#UID#", "socket.io#/#blue#", "socket.io#/#UID#"},
		{"dynamic-private", Sharded{SubscriptionMode: SubscriptionModeDynamicPrivate}, "socket.io#/# socket.io#/#UID#",
			"socket.io#/#" + public20 + "# socket.io#/#blue#", "socket.io#/#UID#"},
		{"streams", Streams{}, "socket.io#/# socket.io#/#UID#", "", "socket.io#/#UID#"},
		{"heartbeats", Streams{Heartbeats: true}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &double{}
				c, err := newCluster(d, tt.adapter, nil)
				if err != nil {
					t.Fatal(err)
				}
				check := func(what string, c *Cluster, want string) {
					t.Helper()
					synctest.Wait()
					if got := strings.ReplaceAll(d.open(), c.uid, "UID"); got != strings.TrimSpace(want) {
						t.Errorf("%s: subscribed to %q, want %q", what, got, want)
					}
				}
				if err := c.Watch(t.Context(), "early"); err != nil {
					t.Error(err)
				}
				if err := c.Unwatch(t.Context(), "early"); err != nil {
					t.Error(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { _ = c.Run(ctx) })
				check("at first", c, tt.member)
				if err := c.Watch(t.Context(), "blue", public20); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				got := strings.ReplaceAll(d.open(), c.uid, "UID")
				for _, channel := range strings.SplitAfter(tt.more, "# ") {
					if !strings.Contains(got, strings.TrimSpace(channel)) {
						t.Errorf("subscribed to %q, without %q", got, channel)
					}
				}
				if want := len(tt.member) + len(tt.more); len(got) != want && len(got) != want+1 {
					t.Errorf("subscribed to %q, want %q and %q", got, tt.member, tt.more)
				}
				if err := c.Unwatch(t.Context(), "blue", public20); err != nil {
					t.Error(err)
				}
				check("at last", c, tt.member)
				stop()
				running.Wait()
				check("at the end", c, "")

				guest, err := newCluster(d, tt.adapter, nil)
				if err != nil {
					t.Fatal(err)
				}
				guest.guest = true
				ctx, stop = context.WithCancel(t.Context())
				running.Go(func() { _ = guest.Run(ctx) })
				check("a guest", guest, tt.guest)
				stop()
				running.Wait()
			})
		})
	}
}

// A Watch of a room that comes during an Unwatch of the same room isn't undone.
func TestWatchMeanwhile(t *testing.T) {
	t.Parallel()
	d := &double{}
	c := start(t, d, nil, ClusterOptions{})
	if _, err := c.ServerCount(t.Context()); err != nil { // it is there
		t.Fatal(err)
	}
	if err := c.Watch(t.Context(), "room"); err != nil {
		t.Fatal(err)
	}
	watched := make(chan error, 1)
	d.removing = sync.OnceFunc(func() {
		done := make(chan struct{})
		go func() { watched <- c.Watch(t.Context(), "room"); close(done) }()
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond): // it waits, as it should
		}
	})
	if err := c.Unwatch(t.Context(), "room"); err != nil {
		t.Fatal(err)
	}
	if err := <-watched; err != nil || !strings.Contains(d.open(), "#room#") {
		t.Errorf("subscribed to %q, %v", d.open(), err)
	}
}

// A stream is read from the place where the connection broke, and what was trimmed
// meanwhile is reported.
func TestStreamGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		var got []string
		var gaps []*bus.Gap
		sends := start(t, d, Streams{}, ClusterOptions{})
		start(t, d, Streams{}, ClusterOptions{
			Gap:     func(g *bus.Gap) { gaps = append(gaps, g) },
			Sockets: &fakeSockets{sockets: []Socket{{ID: "a"}}, do: func(a Action) { got = append(got, a.(Event).Name) }},
		})
		synctest.Wait()
		emit := func(names ...string) {
			for _, name := range names {
				if err := sends.Emit(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		}
		emit("1", "2")
		later()
		d.mu.Lock()
		d.away = true // to readers of the stream
		d.mu.Unlock()
		later()
		d.mu.Lock()
		d.away = false
		d.mu.Unlock()
		emit("3", "4")
		later()
		if want := "1 2 3 4"; strings.Join(got, " ") != want || len(gaps) != 0 {
			t.Errorf("got %q and the gaps %v, want %q", got, gaps, want)
		}

		d.mu.Lock()
		d.away = true
		d.mu.Unlock()
		later()
		d.mu.Lock()
		d.away = false
		d.mu.Unlock()
		emit("5", "6")
		d.mu.Lock()
		d.trimmed = 5
		d.mu.Unlock()
		later()
		if want := "1 2 3 4 6"; strings.Join(got, " ") != want || len(gaps) != 1 || gaps[0].Lost != -1 {
			t.Errorf("got %q and the gaps %v, want %q", got, gaps, want)
		}
	})
}

// A gap is reported if a stream is trimmed faster than it is read, however short it
// is. Entries for other namespaces aren't decoded, and an error of Redis is logged
// once.
func TestShortStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		d := &double{}
		slow := make(chan struct{})
		var gaps atomic.Int32
		adapter := Streams{MaxLen: 10}
		sends := start(t, d, adapter, ClusterOptions{})
		start(t, d, adapter, ClusterOptions{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Gap:    func(g *bus.Gap) { gaps.Add(1) }, Sockets: &fakeSockets{sockets: []Socket{{ID: "a"}}, do: func(a Action) { <-slow }},
		})
		synctest.Wait()
		for i := range 400 {
			if err := sends.Emit(t.Context(), fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
			synctest.Wait() // the inbox is full at last
		}
		d.mu.Lock()
		d.trimmed = 380
		d.mu.Unlock()
		close(slow)
		later()
		if gaps.Load() != 1 {
			t.Errorf("%d gaps were told", gaps.Load())
		}
		if err := d.send(t.Context(), &frame{entry: []string{"nsp", "/other", "type", "3", "data", "?"}}); err != nil {
			t.Fatal(err)
		}
		later()
		if log.Len() > 0 {
			t.Errorf("logged %s", &log)
		}
		d.mu.Lock()
		d.away = true // to readers of the stream
		d.mu.Unlock()
		later()
		later()
		if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "err=away") {
			t.Errorf("logged %q", &log)
		}
	})
}

// A member that sends nothing for too long is forgotten, and requests don't wait for
// it any longer. A member that leaves is forgotten at once.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		adapter := Streams{Heartbeats: true}
		asks := start(t, d, adapter, ClusterOptions{})
		start(t, d, adapter, ClusterOptions{Sockets: &fakeSockets{sockets: []Socket{{ID: "a"}}}})
		leaves, err := newCluster(d, adapter, nil)
		if err != nil {
			t.Fatal(err)
		}
		run, leave := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = leaves.Run(run) })
		count := func(want int) {
			t.Helper()
			if n, err := asks.ServerCount(t.Context()); n != want || err != nil {
				t.Errorf("%d members, %v, want %d", n, err, want)
			}
		}
		count(3)
		for range 60 {
			later()
		}
		emitter, err := newEmitter(d, adapter)
		if err != nil {
			t.Fatal(err)
		}
		guest, stay, ctx, err := emitter.join(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		later()
		count(3)
		if n, err := guest.others(ctx); n != 3 || err != nil {
			t.Errorf("a guest counts %d members, %v", n, err)
		}
		stay()
		leave()
		running.Wait()
		later()
		count(2)

		frames, err := adapter.encode(&message{kind: heartbeat, nsp: "/", uid: "killed"})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.send(t.Context(), &frames[0]); err != nil {
			t.Fatal(err)
		}
		later()
		count(3)
		begin := time.Now()
		sockets, err := asks.Timeout(time.Minute).FetchSockets(t.Context())
		if err != nil || len(sockets) != 1 || time.Since(begin) > heartbeatTimeout+time.Second {
			t.Errorf("%v, %v after %v", sockets, err, time.Since(begin))
		}
		count(2)
	})
}

// A server acknowledges an event once, even if its function calls Ack twice. A
// server without a function doesn't answer, like a node without a listener.
func TestServerSideAck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		asks := start(t, d, nil, ClusterOptions{ServerSideEmit: func(Event) { t.Error("it gets its own") }})
		start(t, d, nil, ClusterOptions{ServerSideEmit: func(e Event) { e.Ack(e.Args[0]); e.Ack("again") }})
		synctest.Wait()
		answers, err := asks.ServerSideEmitWithAck(t.Context(), "add", 1)
		if err != nil || !reflect.DeepEqual(answers, []any{1.0}) {
			t.Errorf("%v, %v", answers, err)
		}
		start(t, d, nil, ClusterOptions{})
		synctest.Wait()
		answers, err = asks.ServerSideEmitWithAck(t.Context(), "add", 2)
		if want := (&IncompleteError{Nodes: 1, Expected: 2, Err: context.DeadlineExceeded}); !reflect.DeepEqual(err, want) || len(answers) != 1 {
			t.Errorf("%v, %v", answers, err)
		}
	})
}

// A function that handles a message may send a request to the cluster.
func TestAskWithinAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		var inner *Cluster
		opts := ClusterOptions{ServerSideEmit: func(e Event) {
			sockets, err := inner.FetchSockets(t.Context())
			e.Ack(fmt.Sprint(len(sockets), err))
		}}
		asks := start(t, d, nil, ClusterOptions{Sockets: &fakeSockets{sockets: []Socket{{ID: "a"}}}})
		inner = start(t, d, nil, opts)
		synctest.Wait()
		answers, err := asks.ServerSideEmitWithAck(t.Context(), "count")
		if err != nil || !reflect.DeepEqual(answers, []any{"1 <nil>"}) {
			t.Errorf("%v, %v", answers, err)
		}
	})
}

// A request for a single socket means the socket with the ID, not the sockets in a
// room of the same name. Legacy has no other requests.
func TestSingleSockets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		var did atomic.Int32
		sockets := &fakeSockets{sockets: []Socket{{ID: "own", Rooms: []string{"room"}}}, do: func(Action) { did.Add(1) }}
		c := start(t, d, Legacy{}, ClusterOptions{Sockets: sockets})
		asks := start(t, d, Legacy{}, ClusterOptions{})
		synctest.Wait()
		if err := c.To("room").SocketsJoin(t.Context(), "other"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("error is %v", err)
		}
		if rooms, err := asks.SocketRooms(t.Context(), "room"); err == nil {
			t.Errorf("a room is in the rooms %v", rooms)
		}
		for _, sid := range []string{"room", "own"} {
			request := fmt.Sprintf(`{"requestid":"1","type":6,"sid":%q,"close":true}`, sid)
			if err := d.bus.Publish(t.Context(), "socket.io-request#/#", []byte(request)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.To("own").SocketsJoin(t.Context(), "other"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if did.Load() != 2 {
			t.Errorf("%d sockets were meant, want own twice", did.Load())
		}
	})
}

// SocketRooms takes the socket by its ID, whatever sockets the Target selects, with
// every adapter.
func TestSocketRoomsOfAnyTarget(t *testing.T) {
	t.Parallel()
	for name, adapter := range memberAdapters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &double{}
				start(t, d, adapter, ClusterOptions{Sockets: &fakeSockets{sockets: []Socket{
					{ID: "a", Rooms: []string{"a", "room"}}, {ID: "b", Rooms: []string{"b", "other"}},
				}}})
				asks := start(t, d, adapter, ClusterOptions{})
				synctest.Wait()
				rooms, err := asks.To("other").Except("room").SocketRooms(t.Context(), "a")
				if want := []string{"a", "room"}; err != nil || !slices.Equal(rooms, want) {
					t.Errorf("rooms are %q, %v, want %q", rooms, err, want)
				}
			})
		})
	}
}

// The answers of a member to its own request are like those of the others.
func TestOwnAnswers(t *testing.T) {
	t.Parallel()
	type data struct {
		N int `json:"n"`
	}
	want := map[string]any{"n": 1.0}
	for name, adapter := range memberAdapters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &double{}
				var c *Cluster
				for _, id := range []string{"a", "b"} {
					c = start(t, d, adapter, ClusterOptions{
						Sockets: &fakeSockets{sockets: []Socket{{ID: id, Data: data{1}}}, do: func(a Action) { a.(Event).Ack(data{1}) }},
					})
				}
				synctest.Wait()
				if _, legacy := adapter.(Legacy); legacy {
					return // which knows neither
				}
				sockets, err := c.FetchSockets(t.Context())
				if err != nil || len(sockets) != 2 || !reflect.DeepEqual(sockets[0].Data, sockets[1].Data) {
					t.Errorf("sockets are %v, %v", sockets, err)
				}
				answers, err := c.EmitWithAck(t.Context(), "event")
				if err != nil || !reflect.DeepEqual(answers, []any{want, want}) {
					t.Errorf("answers are %#v, %v", answers, err)
				}
			})
		})
	}
}

// A time limit of less than a millisecond isn't rounded to none.
func TestShortLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := start(t, &double{away: true}, nil, ClusterOptions{Logger: slog.New(slog.DiscardHandler)})
		begin := time.Now()
		if _, err := c.Timeout(time.Microsecond).FetchSockets(t.Context()); err == nil || time.Since(begin) != time.Microsecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// A member copes with whatever arrives on its channels.
func FuzzMember(f *testing.F) {
	for _, seed := range []string{
		`{"uid":"x","requestId":"1","type":5,"opts":{"rooms":["a"],"except":[]}}`,
		`{"requestid":"1","type":1,"sid":"a"}`, `{"requestid":"1","type":5}`,
		`{"uid":"x","nsp":"/","type":3,"data":{"requestId":"1","packet":{"type":2,"data":["e",1]},"opts":{"rooms":[]}}}`,
		`{"uid":"x","nsp":"/","type":9,"data":{"requestId":"1","packet":["e"]}}`,
		`{"requestId":"mine","sockets":[1,{"id":2}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range slices.Sorted(maps.Keys(memberAdapters)) { // in an order, or the fuzzer is led astray
			adapter := memberAdapters[name]
			sockets := &fakeSockets{sockets: []Socket{{ID: "a"}}, do: func(a Action) {
				if e, ok := a.(Event); ok && e.Ack != nil {
					e.Ack(e.Args)
				}
			}}
			c, err := newCluster(&double{}, adapter, &ClusterOptions{
				Logger: slog.New(slog.DiscardHandler), Sockets: sockets, ServerSideEmit: func(e Event) {
					if e.Ack != nil {
						e.Ack(e.Args)
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			c.asked["mine"] = &pending{kind: fetchSockets, expected: 1, arrived: make(chan struct{}, 1)}
			all, answers := adapter.channels("/", c.uid)
			inbox := make(chan *message, 10)
			for _, channel := range append(all, answers...) {
				m, err := adapter.decode("/", channel, data)
				c.deliver(t.Context(), m, err, inbox)
			}
			for len(inbox) > 0 {
				c.handle(t.Context(), <-inbox)
			}
		}
	})
}
