package hub_test

import (
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/redistest"
)

// streamsHub returns a hub over Streams that recovers, and a function that ends it.
func streamsHub(t *testing.T, server *redistest.Server, maxLen int64) (h *hub.Hub, stop func()) {
	b := &bus.Streams{Client: server.Client(t), MaxLen: maxLen, Idle: time.Hour, Timeout: 20 * time.Second}
	h = newHub(t, b, &hub.Options{Recover: 10_000, Logger: slog.New(slog.DiscardHandler), Gap: func(hub.Who, *bus.Gap) {}})
	stop = runHub(t, h)
	t.Cleanup(stop)
	return h, stop
}

// has waits until a guest has got a message to a room.
func (g *guest) has(t *testing.T, room, text string) {
	t.Helper()
	await(t, text, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.Contains(g.got[room], text)
	})
}

// was waits until a guest was told something.
func (g *guest) was(t *testing.T, told string) {
	t.Helper()
	await(t, told, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return strings.Contains(strings.Join(g.told, ","), told)
	})
}

// A member whose node ends gets at another node what it has missed, although Redis cuts
// connections meanwhile.
func TestRecoverStreams(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	there, _ := streamsHub(t, server, 0)
	here, kill := streamsHub(t, server, 0)
	sender, _ := streamsHub(t, server, 0)
	g := newGuest()
	g.come(t, here, "room")
	var sending sync.WaitGroup
	sending.Go(func() { count(t, sender, "room", 1, 3000) })
	g.has(t, "room", "1")
	client := server.Client(t)
	for range 3 {
		kill()
		client.Do(t.Context(), "client", "kill", "type", "pubsub")
		client.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes")
		g.come(t, there, "room")
		g.was(t, "recovered room")
		g.events()
		g.leave()
		await(t, "the last messages before the close", func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.code != 0
		})
	}
	g.come(t, there, "room")
	sending.Wait()
	g.has(t, "room", "3000")
	g.was(t, "recovered room")
	wantEqual(t, "got", g.heard("room"), numbers(1, 3000))
	wantEqual(t, "told", g.events(), []string{"recovered room"})
}

// A member is told that Redis has lost its data, or that the history was trimmed, whether it
// was there or not.
func TestRecoverStreamsLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	h, _ := streamsHub(t, server, 10)
	other, _ := streamsHub(t, server, 10)
	there, away, quiet := newGuest(), newGuest(), newGuest()
	for _, g := range []*guest{there, away, quiet} {
		g.come(t, h, "room", "empty")
	}
	quiet.was(t, "joined empty")
	quiet.leave()
	count(t, h, "room", 1, 3)
	there.has(t, "room", "3")
	away.has(t, "room", "3")
	away.leave()
	await(t, "another millisecond", func() bool {
		last, _, _ := strings.Cut(away.position("room"), "-")
		return client.Time(t.Context()).Val().UnixMilli() > number(last)
	})
	client.FlushAll(t.Context())
	count(t, h, "room", 4, 6)
	there.was(t, "missed room")
	for _, g := range []*guest{away, quiet} {
		g.events()
		g.come(t, other, "room", "empty")
		g.was(t, "missed room,joined room")
		g.was(t, "missed empty,joined empty") // nobody knows whether there was something until Redis lost it
	}
	count(t, h, "room", 7, 9)
	for _, g := range []*guest{there, away, quiet} {
		g.has(t, "room", "9")
	}
	away.leave()
	count(t, h, "room", 10, 500)
	away.events()
	away.come(t, h, "room")
	away.was(t, "missed room,joined room")
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// When the newest entry of the stream is a copy of the last message, whose Publish was repeated,
// a member that has got the message has missed nothing.
func TestRecoverStreamsCopy(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	here, _ := streamsHub(t, server, 0)
	g := newGuest()
	g.come(t, here, "room")
	count(t, here, "room", 1, 3)
	g.has(t, "room", "3")
	g.leave()
	const key = "limpet:bus:hub:room:room"
	last, err := client.XRevRangeN(t.Context(), key, "+", "-", 1).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []any{"m", last[0].Values["m"], "d", last[0].Values["d"]}}).Err(); err != nil {
		t.Fatal(err)
	}
	there, _ := streamsHub(t, server, 0)
	g.events()
	g.come(t, there, "room")
	g.was(t, "ed room") // joined or recovered
	count(t, there, "room", 4, 4)
	g.has(t, "room", "4")
	wantEqual(t, "got", g.heard("room"), numbers(1, 4))
	wantEqual(t, "told", g.events(), []string{"recovered room"})
}
