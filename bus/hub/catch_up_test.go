package hub_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// partial is a Memory in which the history of the room "ill" can't be read for a while, as when
// one node of a Redis Cluster is away.
type partial struct {
	bus.Memory
	ill atomic.Bool
}

func (p *partial) Last(ctx context.Context, topic string, n int) ([]bus.Message, error) {
	if p.ill.Load() && strings.HasSuffix(topic, ":ill") {
		return nil, errors.New("the history is away")
	}
	return p.Memory.Last(ctx, topic, n)
}

func (p *partial) After(ctx context.Context, topic, id string, n int) ([]bus.Message, error) {
	if p.ill.Load() && strings.HasSuffix(topic, ":ill") {
		return nil, errors.New("the history is away")
	}
	return p.Memory.After(ctx, topic, id, n)
}

// A room whose history can't be read doesn't hold up the other rooms of a member.
func TestRecoverBesideIllRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &partial{Memory: bus.Memory{History: 100}}
		h := startHub(t, memory, &hub.Options{Recover: 100})
		stays, _ := connect(t, h, "", "ill", "well")
		g := newGuest()
		g.come(t, h, "ill", "well")
		synctest.Wait()
		count(t, h, "ill", 1, 3)
		count(t, h, "well", 1, 3)
		synctest.Wait()
		g.leave()
		count(t, h, "ill", 4, 6)
		count(t, h, "well", 4, 6)
		synctest.Wait()
		memory.ill.Store(true)
		g.come(t, h, "ill", "well") // in this order
		time.Sleep(10 * time.Second)
		wantEqual(t, "of the room that is well", g.heard("well"), numbers(1, 6))
		memory.ill.Store(false)
		time.Sleep(10 * time.Second)
		wantEqual(t, "of the room that was ill", g.heard("ill"), numbers(1, 6))
		stays.Close(1000, "")
	})
}

// A message to several rooms comes once, although a member comes into them one after the other
// and gets in each what it has missed.
func TestRecoverRoomsInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, &hub.Options{Recover: 100})
		connect(t, h, "", "a", "b", "c")
		g := newGuest()
		g.come(t, h, "a", "b", "c")
		synctest.Wait()
		g.leave()
		to := func(text string, rooms ...string) {
			send(t, h, inRooms(rooms...), text)
			synctest.Wait()
		}
		to("1", "a", "b", "c")
		to("same", "b", "c")
		to("same", "b", "c") // is another message
		to("2", "a")
		g.come(t, h, "c")
		synctest.Wait()
		wantEqual(t, "c", g.heard("c"), []string{"1", "same", "same"})
		to("3", "a", "b", "c")
		wantEqual(t, "c, live", g.heard("c"), []string{"3"})
		to("4", "a", "b")
		where := g.position("b")
		for _, room := range []string{"b", "a"} {
			if err := g.member.Join(t.Context(), room); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		wantEqual(t, "b", g.heard("b"), []string{"4"})
		wantEqual(t, "a", g.heard("a"), []string{"2"})
		if g.position("b") == where {
			t.Error("the position stands still")
		}
		to("5", "a", "b", "c")
		wantEqual(t, "a, live", append(g.heard("a"), append(g.heard("b"), g.heard("c")...)...), []string{"5"})
	})
}
