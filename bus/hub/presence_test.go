package hub_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// ledger keeps what OnPresence tells, and finds calls that don't take turns.
type ledger struct {
	t  *testing.T
	mu sync.Mutex
	in map[string]bool // "member room"
	n  int             // calls
}

func (l *ledger) note(m hub.MemberInfo, room string, joined bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	key := m.ID + " " + room
	if l.in[key] == joined {
		l.t.Errorf("%s: told %v twice", key, joined)
	}
	if l.in[key] = joined; !joined {
		delete(l.in, key)
	}
}

func (l *ledger) list() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(l.in)), ", ")
}

func newLedger(t *testing.T) *ledger { return &ledger{t: t, in: make(map[string]bool)} }

// presentIn returns "member room" of all that a hub believes to be present, as a ledger does.
func presentIn(h *hub.Hub) string {
	var all []string
	for m := range h.Present(hub.Who{All: true}) {
		for _, room := range m.Rooms {
			all = append(all, m.ID+" "+room)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// Every node knows the members of all, without asking: each kind of Who selects the same ones.
func TestPresence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		book := newLedger(t)
		opts := &hub.Options{Presence: true, OnPresence: book.note}
		nodes := []*hub.Hub{startHub(t, memory, opts), startHub(t, memory, &hub.Options{Presence: true})}
		a, _ := connect(t, nodes[0], "a", "red")
		connect(t, nodes[0], "b", "blue")
		c, _ := connect(t, nodes[1], "c", "red", "blue")
		d, _ := connect(t, nodes[1], "d")
		see := func(what string) {
			t.Helper()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			for i, h := range nodes {
				for _, who := range []hub.Who{{}, {All: true}, inRooms("red"), inRooms("red", "blue"), inRooms("green"),
					{IDs: []string{"c"}}, {Rooms: []string{"red"}, IDs: []string{"c", "d", "nobody"}},
					{All: true, ExceptRooms: []string{"blue"}}, {Rooms: []string{"red", "blue"}, ExceptIDs: []string{"a", "b"}},
					{All: true, Local: true}, {Rooms: []string{"red"}, Local: true}} {
					roster, err := h.Members(t.Context(), who)
					if err != nil {
						t.Fatal(err)
					}
					byID := func(a, b hub.MemberInfo) int { return strings.Compare(a.ID+a.Node, b.ID+b.Node) }
					want, got := slices.SortedFunc(slices.Values(roster.Members), byID), slices.SortedFunc(h.Present(who), byID)
					if fmt.Sprintf("%s", got) != fmt.Sprintf("%s", want) || h.Count(who) != len(want) {
						t.Errorf("%s, node %d, %+v: %d are present, %s, want %s", what, i, who, h.Count(who), got, want)
					}
				}
			}
			if got, want := book.list(), presentIn(nodes[0]); got != want {
				t.Errorf("%s: OnPresence told %q, want %q", what, got, want)
			}
		}
		see("all connect")
		if err := d.Join(t.Context(), "red", "green"); err != nil {
			t.Error(err)
		}
		c.Leave("blue")
		if err := c.SetData("new"); err != nil {
			t.Error(err)
		}
		see("some move")
		told := book.n
		a.Leave("red")
		if err := a.Join(t.Context(), "red"); err != nil {
			t.Error(err)
		}
		see("one leaves and joins again")
		if book.n != told {
			t.Errorf("%d calls for who left and joined again at once", book.n-told)
		}
		connect(t, nodes[1], "a", "green") // a second one of this ID
		see("an ID twice")
		a.Close(1000, "")
		d.Close(1000, "")
		see("some end")
		if got := presentIn(nodes[0]); got != "a green, b blue, c red" {
			t.Errorf("some end: %q", got)
		}
	})
}

// Whatever gets lost between nodes, in the end all of them know who is there; those of a
// node that dies are gone when it is forgotten, and there again when it is back.
func TestPresenceFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const nodes = 5
		b := &faulty{}
		var hubs []*hub.Hub
		var buses []*single
		var books []*ledger
		var truth []map[string]*hub.Member // by node and ID
		for range nodes {
			one, book := &single{Bus: b}, newLedger(t)
			hubs = append(hubs, startHub(t, one, &hub.Options{Presence: true, OnPresence: book.note, Gap: func(hub.Who, *bus.Gap) {}}))
			buses, books, truth = append(buses, one), append(books, book), append(truth, make(map[string]*hub.Member))
		}
		last := 0
		happen := func(changes int) {
			for range changes {
				i := rand.IntN(nodes)
				room := fmt.Sprint("room", rand.IntN(4))
				ids := slices.Collect(maps.Keys(truth[i]))
				switch what := rand.IntN(4); {
				case what == 0 || len(ids) == 0:
					last++
					id := fmt.Sprint("m", last)
					truth[i][id], _ = connect(t, hubs[i], id, room)
				case what == 1:
					_ = truth[i][ids[0]].Join(t.Context(), room)
				case what == 2:
					truth[i][ids[0]].Leave(room)
				default:
					truth[i][ids[0]].Close(1000, "")
					delete(truth[i], ids[0])
				}
				time.Sleep(rand.N(60 * time.Millisecond))
			}
		}
		see := func(what string, wait time.Duration, dead ...int) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			var want []string
			for i := range truth {
				for _, m := range truth[i] {
					for _, room := range m.Info().Rooms {
						if !slices.Contains(dead, i) {
							want = append(want, m.ID()+" "+room)
						}
					}
				}
			}
			slices.Sort(want)
			for i, h := range hubs {
				if slices.Contains(dead, i) {
					continue
				}
				if got := presentIn(h); got != strings.Join(want, ", ") || books[i].list() != got {
					t.Fatalf("%s: node %d knows\n%q, and was told\n%q, want\n%q", what, i, got, books[i].list(), want)
				}
			}
		}
		happen(200)
		see("nothing is lost", time.Second)
		b.set(func() { b.lossy = true })
		happen(300)
		b.set(func() { b.lossy = false })
		see("much is lost", 30*time.Second)
		b.set(func() { b.away = true })
		happen(50)
		b.back()
		see("the bus was away", 30*time.Second)
		buses[2].deaf.Store(true)
		happen(50)
		buses[2].deaf.Store(false)
		see("one heard nothing", 30*time.Second)
		buses[3].mute.Store(true)
		happen(50)
		see("one is dead", 15*time.Second, 3)
		buses[3].mute.Store(false)
		see("it is back", 30*time.Second)
		b.set(func() { b.mixed = true })
		happen(200)
		b.settle()
		see("topics overtake each other", 30*time.Second)
		if s := hubs[0].Stats(); s.Nodes != nodes {
			t.Errorf("%+v", s)
		}
	})
}

// A node that starts is told at once of all members that there are, however much is known of
// them, and those of a node that leaves are gone at once.
func TestPresenceStarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &sized{}
		opts := &hub.Options{Presence: true}
		first := newHub(t, b, opts)
		stop := runHub(t, first)
		defer stop()
		const many = 1500
		for i := range many {
			if _, err := first.Connect(t.Context(), &conn{}, hub.MemberOptions{Data: strings.Repeat("x", 2<<10), Rooms: []string{fmt.Sprint(i % 2)}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		second := startHub(t, b, opts)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if all, half := second.Count(hub.Who{All: true}), second.Count(inRooms("1")); all != many || half != many/2 {
			t.Errorf("a new node knows %d members of %d, and %d in a room of %d", all, many, half, many/2)
		}
		stop()
		synctest.Wait()
		if n := second.Count(hub.Who{All: true}); n != 0 {
			t.Errorf("%d members of a node that has left", n)
		}
	})
}

// What happens at one moment is announced together: however many members join on each node, a
// node gets about one message of each other.
func TestPresenceDeliveries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const nodes, joins = 30, 40
		c := startCrowd(t, nodes, 0, hub.Options{Presence: true})
		defer c.stop()
		time.Sleep(time.Minute)
		c.most()
		for i, h := range c.hubs {
			for j := range joins {
				connect(t, h, fmt.Sprint(i, "-", j), "lobby")
			}
		}
		time.Sleep(2 * time.Second)
		n := c.most()
		if n > 2*nodes {
			t.Errorf("%d deliveries for a node", n)
		}
		for _, h := range c.hubs {
			if n := h.Count(inRooms("lobby")); n != nodes*joins {
				t.Errorf("a node counts %d members, want %d", n, nodes*joins)
			}
		}
	})
}

// slowBus takes its time to publish, and counts announcements.
type slowBus struct {
	bus.Memory
	announced atomic.Int64
}

func (b *slowBus) Publish(ctx context.Context, topic string, data []byte) error {
	if topic == "hub:presence" {
		b.announced.Add(1)
		time.Sleep(5 * time.Millisecond)
	}
	return b.Memory.Publish(ctx, topic, data)
}

// However much happens, it is announced every 50 ms at most.
func TestPresenceChurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &slowBus{}
		h := startHub(t, b, &hub.Options{Presence: true})
		for range 1000 { // a second
			m, _ := connect(t, h, "", "lobby")
			time.Sleep(time.Millisecond)
			defer m.Close(1000, "")
		}
		if n := b.announced.Load(); n < 15 || n > 20 {
			t.Errorf("%d announcements in a second, want one each 55 ms", n)
		}
	})
}
