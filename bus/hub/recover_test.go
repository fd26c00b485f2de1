package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// guest is a client that speaks hub.Protocol: it keeps its positions while it is away.
type guest struct {
	mu        sync.Mutex
	positions map[string]string
	got       map[string][]string // messages by room, "" for those to itself
	told      []string            // the lines without a message, without positions
	stuck     chan struct{}       // Send waits for it, if there is one
	code      int
	member    *hub.Member
}

func newGuest() *guest { return &guest{positions: map[string]string{}, got: map[string][]string{}} }

// come makes the guest a member of a hub.
func (g *guest) come(t testing.TB, h *hub.Hub, rooms ...string) {
	t.Helper()
	g.mu.Lock()
	g.code = 0
	opts := hub.MemberOptions{ID: "guest", Rooms: rooms, Positions: maps.Clone(g.positions)}
	g.mu.Unlock()
	m, err := h.Connect(context.Background(), g, opts)
	if err != nil {
		t.Fatal(err)
	}
	g.member = m
}

// leave ends the member.
func (g *guest) leave() { g.member.Close(1000, "") }

func (g *guest) Send(ctx context.Context, messages []*hub.Frame) error {
	if g.stuck != nil {
		select {
		case <-g.stuck:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range messages {
		g.take(f.Payload())
	}
	return nil
}

func (g *guest) take(payload []byte) {
	head, rest, message := bytes.Cut(payload, []byte{'\n'})
	var line struct {
		Room, Joined, Missed, Left *string
		ID                         string
		Recovered                  bool
	}
	if err := json.Unmarshal(head, &line); err != nil {
		panic(err)
	}
	room := ""
	for _, named := range []*string{line.Room, line.Joined, line.Missed} {
		if named != nil {
			room = *named
		}
	}
	if line.ID != "" {
		g.positions[room] = line.ID
	}
	switch {
	case message:
		g.got[room] = append(g.got[room], string(rest))
	case line.Left != nil:
		delete(g.positions, *line.Left)
		g.told = append(g.told, "left "+*line.Left)
	case line.Missed != nil:
		g.told = append(g.told, "missed "+room)
	case line.Recovered:
		g.told = append(g.told, "recovered "+room)
	case line.Joined != nil:
		g.told = append(g.told, "joined "+room)
	default:
		g.told = append(g.told, "passed "+room)
	}
}

func (g *guest) Close(_ context.Context, code int, _ string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.code = code
	return nil
}

// position returns where the guest is in a room.
func (g *guest) position(room string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.positions[room]
}

// heard returns the messages to a room since it was last called.
func (g *guest) heard(room string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer delete(g.got, room)
	return g.got[room]
}

// events returns what the guest was told since events was last called.
func (g *guest) events() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.told = nil }()
	return g.told
}

// numbers returns the texts of a range of numbers.
func numbers(from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

func count(t testing.TB, h *hub.Hub, room string, from, to int) {
	t.Helper()
	for _, text := range numbers(from, to) {
		send(t, h, inRooms(room), text)
	}
}

func wantEqual(t testing.TB, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	if len(got)+len(want) < 40 {
		t.Errorf("%s: got %q, want %q", what, got, want)
	} else {
		t.Errorf("%s: got %d, want %d", what, len(got), len(want))
	}
}

// A member that was away for a minute under a hundred messages a second gets each of them
// once and in order, before those that come then, on another node.
func TestRecover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{History: 10_000}
		opts := &hub.Options{Recover: 10_000}
		here, there := startHub(t, memory, opts), startHub(t, memory, opts)
		g := newGuest()
		g.come(t, here, "room", "quiet")
		_, other := connect(t, here, "", "room")
		count(t, there, "room", 1, 10)
		synctest.Wait()
		wantEqual(t, "at first", g.heard("room"), numbers(1, 10))
		told := g.events()
		slices.Sort(told)
		wantEqual(t, "told", told, []string{"joined quiet", "joined room"})
		g.leave()
		var sending sync.WaitGroup
		sending.Go(func() {
			for i := 11; i <= 6100; i++ {
				send(t, there, inRooms("room"), fmt.Sprint(i))
				time.Sleep(10 * time.Millisecond)
			}
		})
		time.Sleep(60*time.Second + time.Millisecond)
		g.come(t, there, "room", "quiet")
		sending.Wait()
		synctest.Wait()
		wantEqual(t, "then", g.heard("room"), numbers(11, 6100))
		wantEqual(t, "a member that was there", other.take(), numbers(1, 6100))
		told = g.events()
		slices.Sort(told)
		wantEqual(t, "told", told, []string{"recovered quiet", "recovered room"})
	})
}

// What can't be recovered is told, and what comes then is heard.
func TestRecoverNot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		history int
		recover int
		change  func(id string) string
	}{
		{"trimmed", 50, 1000, func(id string) string { return id }},
		{"too many", 1000, 50, func(id string) string { return id }},
		{"no position", 1000, 1000, func(string) string { return "<>" }},
		{"empty", 1000, 1000, func(string) string { return "" }},
		{"the beginning", 1000, 1000, func(string) string { return "0-0" }},
		{"of the future", 1000, 1000, func(id string) string { epoch, _, _ := strings.Cut(id, "-"); return epoch + "-5000" }},
		{"of another time", 1000, 1000, func(id string) string { _, n, _ := strings.Cut(id, "-"); return "17-" + n }},
		{"of another time to come", 1000, 1000, func(string) string { return "18446744073709551615-18446744073709551615" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, &bus.Memory{History: tt.history}, &hub.Options{Recover: tt.recover})
				connect(t, h, "", "room")
				g := newGuest()
				g.come(t, h, "room")
				count(t, h, "room", 1, 10)
				synctest.Wait()
				g.leave()
				count(t, h, "room", 11, 110)
				synctest.Wait()
				g.heard("room")
				g.events()
				g.positions["room"] = tt.change(g.positions["room"])
				g.come(t, h, "room")
				synctest.Wait()
				wantEqual(t, "told", g.events(), []string{"missed room", "joined room"})
				wantEqual(t, "of the history", g.heard("room"), nil)
				count(t, h, "room", 111, 120)
				synctest.Wait()
				wantEqual(t, "what comes", g.heard("room"), numbers(111, 120))
				g.leave()
				count(t, h, "room", 121, 130)
				g.come(t, h, "room")
				synctest.Wait()
				wantEqual(t, "the next time", g.heard("room"), numbers(121, 130))
			})
		})
	}
}

// A position says nothing about whether a client may be in the room.
func TestRecoverNotAllowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, &hub.Options{Recover: 100})
		connect(t, h, "", "one", "two")
		g := newGuest()
		g.come(t, h, "one", "two")
		synctest.Wait()
		g.leave()
		count(t, h, "one", 1, 10)
		count(t, h, "two", 1, 10)
		synctest.Wait()
		g.events()
		g.come(t, h, "one")
		synctest.Wait()
		wantEqual(t, "told", g.events(), []string{"recovered one"})
		wantEqual(t, "one", g.heard("one"), numbers(1, 10))
		wantEqual(t, "two", g.heard("two"), nil)
		if err := g.member.Join(t.Context(), "two"); err != nil { // it may after all
			t.Error(err)
		}
		synctest.Wait()
		wantEqual(t, "two", g.heard("two"), numbers(1, 10))
		g.member.Leave("two")
		count(t, h, "two", 11, 20)
		synctest.Wait()
		if err := g.member.Join(t.Context(), "two"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		wantEqual(t, "told", g.events(), []string{"recovered two", "left two", "joined two"})
		wantEqual(t, "while it wasn't in the room", g.heard("two"), nil)
	})
}

// A member is told of all of its rooms, and gets all messages, however few may wait for it.
func TestRecoverShortQueue(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]int{"with a history": 100, "without": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, &bus.Memory{History: 100}, &hub.Options{Recover: kept, QueueMessages: 1})
				g := newGuest()
				g.come(t, h, "one", "two", "three")
				synctest.Wait()
				g.member.Leave("one", "three")
				synctest.Wait()
				told := g.events()
				slices.Sort(told)
				wantEqual(t, "told", told, []string{"joined one", "joined three", "joined two", "left one", "left three"})
				if kept > 0 {
					count(t, h, "two", 1, 10)
					synctest.Wait()
					wantEqual(t, "messages", g.heard("two"), numbers(1, 10))
				}
				g.mu.Lock()
				defer g.mu.Unlock()
				if g.code != 0 {
					t.Errorf("closed with %d", g.code)
				}
			})
		})
	}
}

// What a member has missed doesn't wait for it all at once: QueueBytes bounds it, and what is
// read for it.
func TestRecoverLargeMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size, bound = 1000, 10_000
		h := startHub(t, &bus.Memory{History: 1000}, &hub.Options{Recover: 1000, QueueBytes: bound, WriteTimeout: time.Hour})
		connect(t, h, "", "room")
		g := newGuest()
		g.come(t, h, "room")
		synctest.Wait()
		g.leave()
		var want []string
		for i := range 500 {
			want = append(want, fmt.Sprintf("%0*d", size, i))
			send(t, h, inRooms("room"), want[i])
			synctest.Wait()
		}
		g.stuck = make(chan struct{})
		most := int64(0)
		g.come(t, h, "room")
		for range 1000 {
			synctest.Wait()
			most = max(most, h.Stats().QueuedBytes)
			select {
			case g.stuck <- struct{}{}: // lets one batch through
			default:
			}
		}
		wantEqual(t, "messages", g.heard("room"), want)
		if most > bound+2*size {
			t.Errorf("%d bytes have waited", most)
		}
	})
}

// A message to two rooms was sent while a member was in one of them only. That it is in the other
// one, too, when it comes back, doesn't mean that it has got the message there.
func TestRecoverOtherRoomIsNew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, &bus.Memory{History: 100}, &hub.Options{Recover: 100})
		connect(t, h, "", "new", "room")
		g := newGuest()
		g.come(t, h, "room")
		synctest.Wait()
		g.leave()
		send(t, h, inRooms("new", "room"), "1")
		synctest.Wait()
		g.come(t, h, "new", "room")
		synctest.Wait()
		wantEqual(t, "what was missed", g.heard("room"), []string{"1"})
		wantEqual(t, "the new room", g.heard("new"), nil)
		g.leave()
		send(t, h, inRooms("new", "room"), "2")
		g.come(t, h, "new", "room")
		synctest.Wait()
		send(t, h, inRooms("new", "room"), "3")
		synctest.Wait()
		wantEqual(t, "once", g.heard("new"), []string{"2", "3"})
		wantEqual(t, "once", g.heard("room"), nil)
	})
}
