package hub_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// However many nodes there are, a node hears of few others in each heartbeat. Who dies is
// forgotten soon, together with those who watched it, too; and nobody else is, whoever
// hears nothing.
func TestHubHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const nodes, beat = 24, 2 * time.Second
		c := startCrowd(t, nodes, 0)
		defer c.stop()
		time.Sleep(time.Minute)
		slices.SortFunc(c.buses, func(a, b *counted) int { return strings.Compare(a.hub.ID(), b.hub.ID()) })
		// know waits while the nodes that aren't killed know at least want of each other, and at
		// last exactly so many.
		know := func(what string, wait time.Duration, atLeast, want int, killed ...*counted) {
			t.Helper()
			for end := time.Now().Add(wait); ; time.Sleep(beat) {
				for _, b := range c.buses {
					n := b.hub.Stats().Nodes
					if !slices.Contains(killed, b) && (n < atLeast || n != want && !time.Now().Before(end)) {
						t.Fatalf("%s: a node knows %d nodes %v before the end, want %d", what, n, time.Until(end), want)
					}
				}
				if !time.Now().Before(end) {
					return
				}
			}
		}

		c.most()
		know("nothing happens", 2*time.Minute, nodes, nodes)
		if n, beats := c.most(), int64(2*time.Minute/(beat*95/100)); n > 7*beats {
			t.Errorf("a node got %d messages in some %d heartbeats", n, beats)
		}

		one := c.buses[nodes/2]
		one.mute.Store(true)
		know("one was killed", 10*time.Second, nodes-1, nodes-1, one)
		if n := c.most(); n > 7*6+watchers {
			t.Errorf("a node got %d messages when one was killed", n)
		}
		one.mute.Store(false)
		know("it is back", time.Minute, nodes-1, nodes)

		killed := c.buses[nodes-4:] // watched by each other, and by two others
		for _, b := range killed {
			b.mute.Store(true)
		}
		know("neighbours were killed", 30*time.Second, nodes-len(killed), nodes-len(killed), killed...)
		for _, b := range killed {
			b.mute.Store(false)
		}
		know("they are back", time.Minute, nodes-len(killed), nodes)

		one.deaf.Store(true)
		know("one hears nothing", 40*time.Second, nodes, nodes)
		one.deaf.Store(false)
		know("it hears again", 40*time.Second, nodes, nodes)
		c.set(func() { c.mute = true })
		know("the bus loses everything", 40*time.Second, nodes, nodes)
		c.set(func() { c.mute = false })
		know("it doesn't any more", time.Minute, nodes, nodes)

		c.set(func() { c.mute = true }) // each node is as good as dead for the others
		know("the bus loses everything for long", 2*time.Minute, 1, 1)
	})
}

// watchers is the number of nodes that accuse a silent one.
const watchers = 2

// Nodes of an older version hear each node in each heartbeat, since they would forget it
// otherwise, and are forgotten when they are silent for as long as they have said.
func TestHubHeartbeatsForOlderNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const nodes = 12
		c := startCrowd(t, nodes, 0)
		defer c.stop()
		old, err := c.faulty.Memory.Subscribe(t.Context(), "hub")
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		// heard returns the number of nodes that tell everybody in two heartbeats that they are there.
		heard := func() int {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			alive := make(map[string]bool)
			for {
				m, err := old.Next(ctx)
				if err != nil {
					return len(alive)
				}
				if id := string(m.Data[3 : 3+m.Data[2]]); m.Data[1] == 8 && id != "old" {
					alive[id] = true
				}
			}
		}
		say := func(what string) {
			t.Helper()
			if err := c.Memory.Publish(t.Context(), "hub", []byte(what)); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		heard() // what has come meanwhile
		if n := heard(); n > nodes/2 {
			t.Errorf("%d nodes tell everybody, though no node is old", n)
		}
		say("\x01\x08\x03old\x00\x00\x90\x4e") // it lives for 10 s
		heard()
		if n := heard(); n != nodes {
			t.Errorf("%d of %d nodes tell an old one that they are there", n, nodes)
		}
		if n := c.fewest(); n != nodes+1 {
			t.Errorf("a node knows %d nodes of %d and an old one", n, nodes)
		}
		time.Sleep(5 * time.Second)
		if n := c.fewest(); n != nodes {
			t.Errorf("a node knows %d nodes of %d when the old one is silent", n, nodes)
		}
	})
}

// A node that doesn't answer a question is forgotten by all nodes unless it is heard, and
// without it Members waits for nobody.
func TestHubMembersForgetsTheDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		near, other, dead := &single{Bus: memory}, &single{Bus: memory}, &single{Bus: memory}
		var hubs []*hub.Hub
		for _, b := range []*single{near, other, dead} {
			hubs = append(hubs, startHub(t, b, nil))
		}
		synctest.Wait()
		ask := func(h *hub.Hub, nodes, answered int, took time.Duration) {
			t.Helper()
			start := time.Now()
			roster, err := h.Members(t.Context(), hub.Who{All: true})
			if err != nil || roster.Nodes != nodes || roster.Answered != answered || time.Since(start) != took {
				t.Errorf("%+v, %v after %v; want %d answers of %d nodes after %v", roster, err, time.Since(start), answered, nodes, took)
			}
		}
		ask(hubs[0], 3, 3, 0)
		dead.mute.Store(true)
		ask(hubs[0], 3, 2, 2*time.Second)
		synctest.Wait()
		ask(hubs[1], 3, 2, 100*time.Millisecond)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		ask(hubs[0], 2, 2, 0)
		ask(hubs[1], 2, 2, 0)

		dead.mute.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		ask(hubs[1], 3, 3, 0)
		dead.deaf.Store(true) // it doesn't hear the question, nor that it was accused, and says that it is there
		ask(hubs[1], 3, 2, 2*time.Second)
		time.Sleep(time.Minute)
		if n := hubs[0].Stats().Nodes; n != 3 {
			t.Errorf("%d nodes, want 3: it goes on telling that it is there", n)
		}
		dead.deaf.Store(false)
	})
}

// A greeting that couldn't be answered is answered with the next heartbeat.
func TestHubAnswersLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		away := &single{Bus: memory}
		for range 10 {
			startHub(t, memory, nil)
		}
		startHub(t, away, nil)
		time.Sleep(time.Minute)
		away.fails.Store(true)
		late := []*hub.Hub{startHub(t, memory, nil), startHub(t, memory, nil)}
		synctest.Wait()
		away.fails.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, h := range late {
			if n := h.Stats().Nodes; n != 13 {
				t.Errorf("hub %d knows %d nodes of 13", i, n)
			}
		}
	})
}
