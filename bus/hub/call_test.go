package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// A call returns what each node has answered, or why it hasn't, within its time.
func TestHubCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		name := make(map[string]string) // by ID
		ended := make(chan error, 1)    // why the ctx of a slow Answer has
		answer := func(ctx context.Context, node string, request []byte) ([]byte, error) {
			switch string(request) {
			case "fail":
				return nil, errors.New("no such thing")
			case "wait":
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, nil
			}
			return fmt.Appendf(nil, "%s for %s", request, name[node]), nil
		}
		start := func(called string, b bus.Bus, opts *hub.Options) *hub.Hub {
			h := startHub(t, b, opts)
			name[h.ID()] = called
			synctest.Wait()
			return h
		}
		dead := &single{Bus: memory}
		near := start("near", memory, &hub.Options{Answer: answer})
		far := start("far", memory, &hub.Options{Answer: answer})
		start("mute", memory, nil)
		killed := start("killed", dead, &hub.Options{Answer: answer})

		// call calls a node, or all if it is nil, and returns the replies sorted.
		call := func(ctx context.Context, request string, took time.Duration, node *hub.Hub) string {
			t.Helper()
			began := time.Now()
			var replies []hub.Reply
			if node != nil {
				data, err := near.Call(ctx, node.ID(), []byte(request))
				replies = []hub.Reply{{Node: node.ID(), Data: data, Err: err}}
			} else {
				var err error
				if replies, err = near.CallAll(ctx, []byte(request)); err != nil {
					t.Error(err)
				}
			}
			if time.Since(began) != took {
				t.Errorf("%s took %v, want %v", request, time.Since(began), took)
			}
			var all []string
			for _, r := range replies {
				all = append(all, name[r.Node]+": "+said(r))
			}
			slices.Sort(all)
			return strings.Join(all, "; ")
		}
		for _, tt := range []struct {
			name, request string
			node          *hub.Hub
			want          string
		}{
			{"all", "tea", nil, "far: tea for near; killed: tea for near; mute: hub: node it has no Answer"},
			{"errors", "fail", nil, "far: no such thing; killed: no such thing; mute: hub: node it has no Answer"},
			{"one", "tea", far, "far: tea for near"},
			{"nothing", "", far, "far:  for near"},
			{"itself", "tea", near, "near: tea for near"},
			{"an error", "fail", far, "far: no such thing"},
		} {
			if got := call(t.Context(), tt.request, 0, tt.node); got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}

		// Who waits for too long is told, on both sides.
		if got := call(t.Context(), "wait", 2*time.Second, far); got != "far: late" || !errors.Is(<-ended, context.DeadlineExceeded) {
			t.Errorf("got %q", got)
		}
		brief, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if got := call(brief, "wait", time.Second, far); got != "far: canceled" {
			t.Errorf("got %q", got)
		}
		<-ended
		dead.mute.Store(true)
		if got := call(t.Context(), "tea", 2*time.Second, nil); got != "far: tea for near; killed: late; mute: hub: node it has no Answer" {
			t.Errorf("got %q", got)
		}
		time.Sleep(15 * time.Second) // it is forgotten
		if got := call(t.Context(), "tea", 100*time.Millisecond, killed); got != "killed: late" {
			t.Errorf("got %q", got)
		}
		dead.mute.Store(false)
		time.Sleep(5 * time.Second)
		if got := call(t.Context(), "tea", 0, killed); got != "killed: tea for near" {
			t.Errorf("got %q", got)
		}
	})
}

// A bus that is away is an error.
func TestHubCallBusAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &faulty{}
		near, far := startHub(t, b, nil), startHub(t, b, nil)
		synctest.Wait()
		b.set(func() { b.away = true })
		began := time.Now()
		if _, err := near.Call(t.Context(), far.ID(), nil); !errors.Is(err, errAway) {
			t.Error(err)
		}
		if replies, err := near.CallAll(t.Context(), nil); !errors.Is(err, errAway) {
			t.Errorf("%v, %v", replies, err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v to say so", took)
		}
	})
}

// A Run that ends waits for the answers that are being given, and ends their contexts.
func TestHubCallEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{}
		var why error
		h := newHub(t, memory, &hub.Options{Answer: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			<-ctx.Done()
			why = ctx.Err()
			return nil, nil
		}})
		stop := runHub(t, h)
		near := startHub(t, memory, nil)
		synctest.Wait()
		go near.CallAll(t.Context(), nil)
		synctest.Wait()
		stop()
		if !errors.Is(why, context.Canceled) {
			t.Errorf("Run has ended and the answer's context: %v", why)
		}
	})
}

// said returns what a reply says, which names its node "it".
func said(r hub.Reply) string {
	switch {
	case errors.Is(r.Err, context.DeadlineExceeded):
		return "late"
	case errors.Is(r.Err, context.Canceled):
		return "canceled"
	case r.Err != nil:
		return strings.ReplaceAll(r.Err.Error(), r.Node, "it")
	}
	return string(r.Data)
}
