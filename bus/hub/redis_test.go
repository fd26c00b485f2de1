package hub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/redistest"
)

// When Join has returned, what another node sends arrives, however many members join and
// leave at the same time.
func TestHubJoinsTogether(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	here, there := redisHub(t, server, time.Minute), redisHub(t, server, time.Minute)
	var joining sync.WaitGroup
	for i := range 50 {
		joining.Go(func() {
			m, c := connect(t, here, fmt.Sprint("member", i))
			for round := range 20 {
				own, shared := fmt.Sprintf("%d of %d", round, i), fmt.Sprintf("%d of all", round)
				if err := m.Join(t.Context(), own, shared); err != nil {
					t.Error(err)
				}
				send(t, there, inRooms(own), own)
				for _, room := range []string{own, shared} {
					if round%2 == 0 {
						m.Leave(room)
					}
				}
				if round%2 == 0 { // nobody else is in its own room: it must come back to it
					if err := m.Join(t.Context(), own); err != nil {
						t.Error(err)
					}
					send(t, there, inRooms(own), own+" again")
				}
				if !await(t, own, func() bool {
					c.mu.Lock()
					defer c.mu.Unlock()
					got := strings.Join(c.got, ",")
					if round%2 == 0 { // the first one may have come when it had left
						return strings.HasSuffix(got, own+" again")
					}
					return strings.HasSuffix(got, own)
				}) {
					return
				}
			}
		})
	}
	joining.Wait()
}

// Members join and leave while Redis is killed and comes back. Each Join returns; what has
// joined hears of other nodes once Redis is back, what has left is unsubscribed from, and
// a Join that says nothing of an error is as good as any other.
func TestHubJoinsRedisKilled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	here, there := redisHub(t, server, 0), redisHub(t, server, 0)
	var joining sync.WaitGroup
	half := make(chan struct{})
	halfway := sync.OnceFunc(func() { close(half) })
	conns := make([]*conn, 50)
	for i := range conns {
		m, c := connect(t, here, fmt.Sprint("member", i))
		conns[i] = c
		joining.Go(func() {
			for round := range 20 {
				if round == 10 {
					halfway()
				}
				// It may fail, and the member is in the room all the same.
				if err := m.Join(t.Context(), fmt.Sprintf("room %d", i), fmt.Sprintf("%d of %d", round, i)); errors.Is(err, hub.ErrClosed) {
					t.Error(err)
				}
				m.Leave(fmt.Sprintf("%d of %d", round, i))
			}
		})
	}
	<-half
	server.Kill()
	server.Restart(t)
	joining.Wait()

	client := server.Client(t)
	for i, c := range conns {
		room := fmt.Sprintf("room %d", i)
		await(t, room, func() bool {
			if err := there.Send(t.Context(), inRooms(room), hub.Text([]byte(room))); err != nil {
				return false
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.got) > 0
		})
	}
	await(t, "what was left to be unsubscribed from", func() bool {
		channels, err := client.PubSubChannels(t.Context(), "*of*").Result()
		return err == nil && len(channels) == 0
	})
	m, c := connect(t, here, "late")
	for i := range 100 {
		room := fmt.Sprint("late ", i)
		if err := m.Join(t.Context(), room); err != nil {
			t.Error(err)
		}
		send(t, there, inRooms(room), "x")
	}
	await(t, "all messages", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.got) == 100
	})
}

func redisHub(t *testing.T, server *redistest.Server, timeout time.Duration) *hub.Hub {
	return startHub(t, &bus.Redis{Client: server.Client(t), Timeout: timeout}, &hub.Options{Logger: slog.New(slog.DiscardHandler)})
}

// await asks until ok is true.
func await(t *testing.T, what string, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("waited in vain for %s", what)
			return false
		}
	}
	return true
}
